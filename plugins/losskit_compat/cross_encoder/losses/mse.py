"""Regression of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.losses import score_mse as native

from ..base import IDENTITY, Activation, Criterion

__all__ = ["MSELoss"]


class MSELoss(Criterion, native.ScoreMSELoss):
    """`losskit.losses.ScoreMSELoss` under the incumbent's name; `**kwargs` are those of `torch.nn.MSELoss`."""

    def __init__(self, model: Any, activation_fn: Activation = IDENTITY, **kwargs: Any) -> None:
        super().__init__(model)
        self.activation_fn = activation_fn
        self.loss_fct = nn.MSELoss(**kwargs)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """What `loss_fct` says of all."""
        scores = self.activated(columns[0].embedding)
        return self.loss_fct(scores, labels.flatten().to(scores.dtype))
