"""Multiple negatives ranking by late interaction, with gradient caching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from losskit import GradCache

from ...base import Cached
from ..scoring import colbert_scores
from .multiple_negatives_ranking import Ranking

__all__ = ["CachedMultiVectorMultipleNegativesRankingLoss"]


class CachedMultiVectorMultipleNegativesRankingLoss(Cached, Ranking):
    """`losskit.losses.MultipleNegativesRankingLoss` with gradient caching.

    `score_mini_batch_size` changes nothing: scores are formed in blocks of their own.
    """

    configuration = (
        "scale",
        "similarity_fct",
        "mini_batch_size",
        "mini_batch_num_tokens",
        "score_mini_batch_size",
        "gather_across_devices",
    )

    def __init__(
        self,
        model: Any,
        *,
        scale: float = 1.0,
        similarity_fct: Callable[..., Tensor] | None = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        score_mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, scale, execution=GradCache(gather=gather_across_devices))
        self.similarity_fct = colbert_scores if similarity_fct is None else similarity_fct
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.score_mini_batch_size = mini_batch_size if score_mini_batch_size is None else score_mini_batch_size
        self.show_progress_bar = show_progress_bar
