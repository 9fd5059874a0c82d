"""Losses on pairs with a score: CoSENT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from losskit_plugins.losses import cosent

from ...base import Scored
from ...functions import PairwiseFunction
from ...util import pairwise_cos_sim

__all__ = ["CoSENTLoss"]


class CoSENTLoss(Scored, cosent.CoSENTLoss):
    """`losskit.losses.CoSENTLoss` under the incumbent's constructor."""

    configuration = ("scale", "similarity_fct")
    function_kind = PairwiseFunction

    def __init__(
        self, model: Any, scale: float = 20.0, similarity_fct: Callable[[Tensor, Tensor], Tensor] = pairwise_cos_sim
    ) -> None:
        super().__init__(model, scale)
        self.similarity_fct = similarity_fct
