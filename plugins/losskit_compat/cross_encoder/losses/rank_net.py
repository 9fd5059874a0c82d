"""RankNet."""

from __future__ import annotations

from typing import Any

from losskit_plugins.losses import rank_net as native

from ..base import IDENTITY, Activation
from .lambda_loss import LambdaLoss, Logarithm

__all__ = ["RankNetLoss"]


class RankNetLoss(LambdaLoss):
    """LambdaLoss without weights."""

    card = native.RankNetLoss.card
    configuration = ("k", "sigma", "eps", "reduction_log", "activation_fn", "mini_batch_size")

    def __init__(
        self,
        model: Any,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Logarithm = "binary",
        activation_fn: Activation = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, None, k, sigma, eps, reduction_log, activation_fn, mini_batch_size)
