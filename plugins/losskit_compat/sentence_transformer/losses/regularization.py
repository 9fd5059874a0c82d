"""Global orthogonal regularization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from losskit_plugins.losses import global_orthogonal_regularization as native

from ...base import Scored
from ...util import cos_sim

__all__ = ["GlobalOrthogonalRegularizationLoss"]


class GlobalOrthogonalRegularizationLoss(Scored, native.GlobalOrthogonalRegularizationLoss):
    """`losskit.losses.GlobalOrthogonalRegularizationLoss` under the incumbent's constructor."""

    configuration = ("similarity_fct", "mean_weight", "second_moment_weight", "aggregation")

    def __init__(
        self,
        model: Any,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(model, mean_weight, second_moment_weight, aggregation)
        self.similarity_fct = similarity_fct
