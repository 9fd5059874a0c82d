"""Multiple negatives ranking by late interaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from losskit_plugins.losses import multiple_negatives_ranking as native

from ...base import direct
from ..base import InMiniBatches, MultiVectorLoss, Scores, scores_or
from ..scoring import colbert_scores

__all__ = ["MultiVectorMultipleNegativesRankingLoss"]


class Ranking(MultiVectorLoss, native.MultipleNegativesRankingLoss):
    """`losskit.losses.MultipleNegativesRankingLoss` of token embeddings."""

    function_kind = scores_or(Scores)


class MultiVectorMultipleNegativesRankingLoss(InMiniBatches, Ranking):
    """`losskit.losses.MultipleNegativesRankingLoss` under the incumbent's constructor.

    `score_mini_batch_size` changes nothing: scores are formed in blocks of their own.
    """

    configuration = ("scale", "similarity_fct", "mini_batch_size", "score_mini_batch_size", "gather_across_devices")

    def __init__(
        self,
        model: Any,
        *,
        scale: float = 1.0,
        similarity_fct: Callable[..., Tensor] | None = None,
        mini_batch_size: int | None = None,
        score_mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model, scale, execution=direct(gather_across_devices))
        self.similarity_fct = colbert_scores if similarity_fct is None else similarity_fct
        self.mini_batch_size = mini_batch_size
        self.score_mini_batch_size = score_mini_batch_size
