"""Distillation of a teacher's distribution over candidates, scored by late interaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...sentence_transformer.losses import DistillKLDivLoss
from ..base import InMiniBatches, ScoresOfLists, scores_or
from ..scoring import colbert_kd_scores

__all__ = ["MultiVectorDistillKLDivLoss"]


class MultiVectorDistillKLDivLoss(InMiniBatches, DistillKLDivLoss):
    """`losskit.losses.DistillKLDivLoss` under the incumbent's constructor."""

    function_kind = scores_or(ScoresOfLists)

    def __init__(
        self,
        model: Any,
        *,
        similarity_fct: Callable[..., Tensor] | None = None,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        function = colbert_kd_scores if similarity_fct is None else similarity_fct
        super().__init__(model, function, temperature, student_temperature, teacher_temperature)
        self.mini_batch_size = mini_batch_size

    @property
    def configuration(self) -> tuple[str, ...]:
        """The settings as model cards print them."""
        return (*super().configuration, "mini_batch_size")
