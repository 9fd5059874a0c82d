"""Multiple negatives ranking with gradient caching."""

from __future__ import annotations

from typing import Any

from losskit import GradCache

from ...base import Cached
from ..base import Activation
from .multiple_negatives_ranking import SIGMOID, MultipleNegativesRankingLoss

__all__ = ["CachedMultipleNegativesRankingLoss"]


class CachedMultipleNegativesRankingLoss(Cached, MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss with gradient caching over pairs."""

    configuration = (*MultipleNegativesRankingLoss.configuration, "mini_batch_size")

    def __init__(
        self,
        model: Any,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation_fn: Activation = SIGMOID,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, num_negatives, scale, activation_fn)
        self.execution = GradCache()
        self.mini_batch_size = mini_batch_size
        self.show_progress_bar = show_progress_bar
