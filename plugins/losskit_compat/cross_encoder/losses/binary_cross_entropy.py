"""Binary cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.losses import binary_cross_entropy as native

from ..base import IDENTITY, Activation, Criterion

__all__ = ["BinaryCrossEntropyLoss"]


class BinaryCrossEntropyLoss(Criterion, native.BinaryCrossEntropyLoss):
    """`losskit.losses.BinaryCrossEntropyLoss`; `**kwargs` are those of `torch.nn.BCEWithLogitsLoss`."""

    def __init__(
        self,
        model: Any,
        activation_fn: Activation = IDENTITY,
        pos_weight: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model)
        self.activation_fn = activation_fn
        self.pos_weight = pos_weight
        self.bce_with_logits_loss = nn.BCEWithLogitsLoss(pos_weight=pos_weight, **kwargs)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """What `bce_with_logits_loss` says of all."""
        scores = self.activated(columns[0].embedding)
        return self.bce_with_logits_loss(scores, labels.flatten().to(scores.dtype))

    def get_config_dict(self) -> dict[str, Any]:
        """The weight as a number."""
        weight = None if self.pos_weight is None else self.pos_weight.item()
        return {**super().get_config_dict(), "pos_weight": weight}
