"""Multiple negatives ranking."""

from __future__ import annotations

from typing import Any

from torch import nn

from losskit_plugins.losses import cross_multiple_negatives_ranking as native

from ..base import Activation, CrossEncoderLoss

__all__ = ["MultipleNegativesRankingLoss"]

SIGMOID = nn.Sigmoid()


class MultipleNegativesRankingLoss(CrossEncoderLoss, native.CrossMultipleNegativesRankingLoss):
    """`losskit.losses.CrossMultipleNegativesRankingLoss` under the incumbent's name."""

    configuration = ("scale", "num_negatives", "activation_fn")

    def __init__(
        self,
        model: Any,
        num_negatives: int | None = 4,
        scale: int = 10.0,  # type: ignore[assignment] - as the incumbent writes it
        activation_fn: Activation = SIGMOID,
    ) -> None:
        super().__init__(model, num_negatives, scale)
        self.activation_fn = activation_fn
