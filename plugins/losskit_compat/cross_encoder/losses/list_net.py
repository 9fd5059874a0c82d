"""ListNet."""

from __future__ import annotations

from typing import Any

from losskit_plugins.losses import list_net as native

from ..base import IDENTITY, Activation, Listwise

__all__ = ["ListNetLoss"]


class ListNetLoss(Listwise, native.ListNetLoss):
    """`losskit.losses.ListNetLoss` under the incumbent's constructor."""

    def __init__(self, model: Any, activation_fn: Activation = IDENTITY, mini_batch_size: int | None = None) -> None:
        super().__init__(model)
        self.activation_fn = activation_fn
        self.mini_batch_size = mini_batch_size
