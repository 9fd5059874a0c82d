"""Triplets mined in a batch of labelled texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from losskit_plugins.losses import (
    batch_all_triplet,
    batch_hard_soft_margin_triplet,
    batch_hard_triplet,
    batch_semi_hard_triplet,
)

from ...base import Distanced, renamed
from ...functions import BatchDistance
from .distances import BatchHardTripletLossDistanceFunction

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
]

Distances = Callable[[Tensor], Tensor]
EUCLIDEAN = BatchHardTripletLossDistanceFunction.euclidean_distance


class _Mined(Distanced):
    """A loss that finds its triplets in a batch of labelled texts; the model goes by another name here."""

    configuration = ("distance_metric", "margin")
    function_kind = BatchDistance
    sentence_embedder = renamed("model")


class BatchAllTripletLoss(_Mined, batch_all_triplet.BatchAllTripletLoss):
    """`losskit.losses.BatchAllTripletLoss` under the incumbent's constructor."""

    triplet_margin = renamed("margin")

    def __init__(self, model: Any, distance_metric: Distances = EUCLIDEAN, margin: float = 5) -> None:
        super().__init__(model, margin)
        self.distance_metric = distance_metric


class BatchHardTripletLoss(_Mined, batch_hard_triplet.BatchHardTripletLoss):
    """`losskit.losses.BatchHardTripletLoss` under the incumbent's constructor."""

    triplet_margin = renamed("margin")

    def __init__(self, model: Any, distance_metric: Distances = EUCLIDEAN, margin: float = 5) -> None:
        super().__init__(model, margin)
        self.distance_metric = distance_metric


class BatchHardSoftMarginTripletLoss(_Mined, batch_hard_soft_margin_triplet.BatchHardSoftMarginTripletLoss):
    """`losskit.losses.BatchHardSoftMarginTripletLoss` under the incumbent's constructor."""

    configuration = ("distance_metric",)

    def __init__(self, model: Any, distance_metric: Distances = EUCLIDEAN) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric


class BatchSemiHardTripletLoss(_Mined, batch_semi_hard_triplet.BatchSemiHardTripletLoss):
    """`losskit.losses.BatchSemiHardTripletLoss` under the incumbent's constructor."""

    def __init__(self, model: Any, distance_metric: Distances = EUCLIDEAN, margin: float = 5) -> None:
        super().__init__(model, margin)
        self.distance_metric = distance_metric
