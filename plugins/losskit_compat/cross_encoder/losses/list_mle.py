"""ListMLE."""

from __future__ import annotations

from typing import Any

from losskit_plugins.losses import list_mle as native

from ..base import IDENTITY, Activation
from .plist_mle import PListMLELoss

__all__ = ["ListMLELoss"]


class ListMLELoss(PListMLELoss):
    """PListMLELoss without weights."""

    card = native.ListMLELoss.card
    configuration = ("activation_fn", "mini_batch_size", "respect_input_order")

    def __init__(
        self,
        model: Any,
        activation_fn: Activation = IDENTITY,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, None, activation_fn, mini_batch_size, respect_input_order)
