"""ADR-MSE."""

from __future__ import annotations

from typing import Any

from losskit_plugins.losses import adr_mse as native

from ..base import IDENTITY, Activation, Listwise

__all__ = ["ADRMSELoss"]


class ADRMSELoss(Listwise, native.ADRMSELoss):
    """`losskit.losses.ADRMSELoss` under the incumbent's constructor."""

    configuration = ("alpha", "activation_fn", "mini_batch_size")

    def __init__(
        self,
        model: Any,
        alpha: float = 1.0,
        activation_fn: Activation = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, alpha)
        self.activation_fn = activation_fn
        self.mini_batch_size = mini_batch_size
