"""Multiple negatives ranking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...sentence_transformer.losses.ranking import Directions, Hardness, MultipleNegativesRankingLoss, Partition
from ...util import dot_score
from ..base import SparseLoss

__all__ = ["SparseMultipleNegativesRankingLoss"]


class SparseMultipleNegativesRankingLoss(SparseLoss, MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss of sparse embeddings, by inner products."""

    def __init__(
        self,
        model: Any,
        scale: float = 1.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = dot_score,
        gather_across_devices: bool = False,
        directions: Directions = ("query_to_doc",),
        partition_mode: Partition = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        options = (gather_across_devices, directions, partition_mode, hardness_mode, hardness_strength)
        super().__init__(model, scale, similarity_fct, *options)
