"""Margins of a teacher, scored by late interaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...sentence_transformer.losses import MarginMSELoss
from ..base import InMiniBatches, ScoresOfPairs
from ..scoring import colbert_scores_pairwise

__all__ = ["MultiVectorMarginMSELoss"]


class MultiVectorMarginMSELoss(InMiniBatches, MarginMSELoss):
    """`losskit.losses.MarginMSELoss` under the incumbent's constructor."""

    configuration = ("similarity_fct", "mini_batch_size")
    function_kind = ScoresOfPairs

    def __init__(
        self,
        model: Any,
        *,
        similarity_fct: Callable[..., Tensor] | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, colbert_scores_pairwise if similarity_fct is None else similarity_fct)
        self.mini_batch_size = mini_batch_size
