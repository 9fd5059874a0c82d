"""A teacher's embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from losskit.loss import Value

from ...sentence_transformer.losses import MSELoss
from ..base import SparseLoss

__all__ = ["SparseMSELoss"]


class SparseMSELoss(SparseLoss, MSELoss):
    """MSELoss of sparse embeddings, without a projection."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)

    def compute_loss_from_embeddings(
        self, embeddings: Sequence[Tensor], teacher_embeddings: Sequence[Tensor] | Tensor
    ) -> Value:
        """The loss of embeddings, one tensor per column, and the teacher's for each."""
        return super().compute_loss_from_embeddings(embeddings, teacher_embeddings)
