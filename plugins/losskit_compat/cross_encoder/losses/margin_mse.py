"""Margins of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.losses import margin_mse as native

from ..base import IDENTITY, Activation, Criterion

__all__ = ["MarginMSELoss"]


class MarginMSELoss(Criterion, native.MarginMSELoss):
    """`losskit.losses.MarginMSELoss` under the incumbent's constructor; `**kwargs` are those of `torch.nn.MSELoss`."""

    fewest, most = 3, None

    def __init__(self, model: Any, activation_fn: Activation = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model)
        self.activation_fn = activation_fn
        self.loss_fct = nn.MSELoss(**kwargs)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """What `loss_fct` says of the margins of all."""
        count = columns[0].tuples
        scores, labels = self.activated(columns[0].embedding).view(count, -1), labels.view(count, -1)
        labels = labels.to(scores.dtype)
        margins = labels[:, :1] - labels[:, 1:] if labels.shape == scores.shape else labels
        return self.loss_fct(scores[:, :1] - scores[:, 1:], margins)
