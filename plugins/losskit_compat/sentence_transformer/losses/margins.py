"""Losses that keep distances on the right side of a margin: of pairs and triplets, and of the hardest in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from losskit import Direct, GradCache
from losskit_plugins.losses import contrastive, mega_batch_margin, online_contrastive, triplet

from ...base import Cached, Distanced, renamed
from .distances import SiameseDistanceMetric, TripletDistanceMetric

__all__ = ["ContrastiveLoss", "MegaBatchMarginLoss", "OnlineContrastiveLoss", "TripletLoss"]

Distances = Callable[[Tensor, Tensor], Tensor]


class ContrastiveLoss(Distanced, contrastive.ContrastiveLoss):
    """`losskit.losses.ContrastiveLoss` under the incumbent's constructor."""

    configuration = ("distance_metric", "margin", "size_average")

    def __init__(
        self,
        model: Any,
        distance_metric: Distances = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model, margin)
        self.distance_metric = distance_metric
        self.size_average = size_average

    @property
    def size_average(self) -> bool:
        """Whether it averages over pairs; else it sums."""
        return self.reduction == "mean"

    @size_average.setter
    def size_average(self, average: bool) -> None:
        self.reduction = "mean" if average else "sum"


class OnlineContrastiveLoss(Distanced, online_contrastive.OnlineContrastiveLoss):
    """`losskit.losses.OnlineContrastiveLoss` under the incumbent's constructor."""

    configuration = ("distance_metric", "margin")

    def __init__(
        self, model: Any, distance_metric: Distances = SiameseDistanceMetric.COSINE_DISTANCE, margin: float = 0.5
    ) -> None:
        super().__init__(model, margin)
        self.distance_metric = distance_metric


class TripletLoss(Distanced, triplet.TripletLoss):
    """`losskit.losses.TripletLoss` under the incumbent's constructor."""

    configuration = ("distance_metric", "triplet_margin")
    triplet_margin = renamed("margin")

    def __init__(
        self, model: Any, distance_metric: Distances = TripletDistanceMetric.EUCLIDEAN, triplet_margin: float = 5
    ) -> None:
        super().__init__(model, triplet_margin)
        self.distance_metric = distance_metric


class MegaBatchMarginLoss(Cached, mega_batch_margin.MegaBatchMarginLoss):
    """`losskit.losses.MegaBatchMarginLoss` with gradient caching, unless it is refused."""

    configuration = ("positive_margin", "negative_margin", "mini_batch_size", "mini_batch_num_tokens")

    def __init__(
        self,
        model: Any,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        execution = GradCache() if use_mini_batched_version else Direct()
        super().__init__(model, positive_margin, negative_margin, execution=execution)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar
