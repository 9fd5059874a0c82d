"""Losses around a loss: Matryoshka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from losskit import Loss
from losskit_plugins.wrappers import matryoshka

from ...base import Summed, renamed

__all__ = ["MatryoshkaLoss"]


class MatryoshkaLoss(Summed, matryoshka.MatryoshkaLoss):
    """`losskit.losses.MatryoshkaLoss` under the incumbent's constructor; cut embeddings get unit length."""

    configuration = ("loss", "matryoshka_dims", "matryoshka_weights", "n_dims_per_step")
    matryoshka_dims = renamed("dims")
    matryoshka_weights = renamed("weights")
    n_dims_per_step = renamed("dims_per_step")

    def __init__(
        self,
        model: Any,
        loss: Loss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        dims = list(matryoshka_dims)
        weights = [1] * len(dims) if matryoshka_weights is None else list(matryoshka_weights)
        if len(weights) == len(dims):
            order = sorted(range(len(dims)), key=lambda place: -dims[place])
            dims, weights = [dims[place] for place in order], [weights[place] for place in order]
        per_step = n_dims_per_step if n_dims_per_step > 0 else -1
        super().__init__(model, loss, tuple(dims), tuple(weights), per_step, normalize=True)
