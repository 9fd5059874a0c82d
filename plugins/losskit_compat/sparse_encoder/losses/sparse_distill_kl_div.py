"""Distillation of a teacher's distribution over candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...sentence_transformer.losses import DistillKLDivLoss
from ...util import pairwise_dot_score
from ..base import SparseLoss

__all__ = ["SparseDistillKLDivLoss"]


class SparseDistillKLDivLoss(SparseLoss, DistillKLDivLoss):
    """DistillKLDivLoss of sparse embeddings, with flatter distributions."""

    def __init__(
        self,
        model: Any,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = pairwise_dot_score,
        temperature: float = 2.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model, similarity_fct, temperature, student_temperature, teacher_temperature)
