"""Cross-entropy over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.losses import cross_entropy as native

from ..base import IDENTITY, Activation, Criterion

__all__ = ["CrossEntropyLoss"]


class CrossEntropyLoss(Criterion, native.CrossEntropyLoss):
    """`losskit.losses.CrossEntropyLoss`; `**kwargs` are those of `torch.nn.CrossEntropyLoss`.

    A class that `ignore_index` names is known, and left out.
    """

    outputs = None

    def __init__(self, model: Any, activation_fn: Activation = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model)
        self.activation_fn = activation_fn
        self.ce_loss = nn.CrossEntropyLoss(**kwargs)
        self._ignored: int | None = kwargs.get("ignore_index")

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Refuse classes that there are not."""
        kept = labels if self._ignored is None else labels[labels != self._ignored]
        if kept.numel():
            super().check_labels(columns, kept)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """What `ce_loss` says of all."""
        assert labels is not None
        logits, targets = self.logits(columns, rows), labels[rows]
        return self.ce_loss(
            logits, targets.to(logits.dtype) if targets.is_floating_point() else targets.flatten().long()
        )
