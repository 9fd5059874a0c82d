"""Losses on pairs with a score: CoSENT, AnglE, cosine similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from losskit_plugins.losses import angle, cosent, cosine_similarity

from ...base import Incumbent, Scored, renamed
from ...functions import PairwiseFunction, full_name
from ...util import pairwise_angle_sim, pairwise_cos_sim

__all__ = ["AnglELoss", "CoSENTLoss", "CosineSimilarityLoss"]

MEAN_SQUARED_ERROR, AS_THEY_ARE = nn.MSELoss(), nn.Identity()


class CoSENTLoss(Scored, cosent.CoSENTLoss):
    """`losskit.losses.CoSENTLoss` under the incumbent's constructor."""

    configuration = ("scale", "similarity_fct")
    function_kind = PairwiseFunction

    def __init__(
        self, model: Any, scale: float = 20.0, similarity_fct: Callable[[Tensor, Tensor], Tensor] = pairwise_cos_sim
    ) -> None:
        super().__init__(model, scale)
        self.similarity_fct = similarity_fct


class AnglELoss(Scored, angle.AnglELoss):
    """`losskit.losses.AnglELoss` under the incumbent's constructor."""

    configuration = ("scale", "similarity_fct")
    function_kind = PairwiseFunction

    def __init__(self, model: Any, scale: float = 20.0) -> None:
        super().__init__(model, scale)
        self.similarity_fct = pairwise_angle_sim


class CosineSimilarityLoss(Incumbent, cosine_similarity.CosineSimilarityLoss):
    """`losskit.losses.CosineSimilarityLoss` under the incumbent's constructor: modules instead of names."""

    loss_fct = renamed("criterion")

    def __init__(
        self, model: Any, loss_fct: nn.Module = MEAN_SQUARED_ERROR, cos_score_transformation: nn.Module = AS_THEY_ARE
    ) -> None:
        super().__init__(model, loss_fct)
        self.cos_score_transformation = cos_score_transformation

    @property
    def cos_score_transformation(self) -> nn.Module:
        """What is applied to the cosines."""
        return self.__dict__["_transformation"]

    @cos_score_transformation.setter
    def cos_score_transformation(self, module: nn.Module) -> None:
        self.__dict__["_transformation"] = module
        # Cosines as they are have known bounds, in which the labels must lie.
        self.exchange("activation", "identity" if type(module) is nn.Identity else module)

    def get_config_dict(self) -> dict[str, Any]:
        """Both modules by their full names."""
        return {name: full_name(getattr(self, name)) for name in ("loss_fct", "cos_score_transformation")}
