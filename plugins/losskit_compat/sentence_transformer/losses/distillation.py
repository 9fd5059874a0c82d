"""What a student learns from a teacher's embeddings and scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit.errors import LossError
from losskit.loss import Value
from losskit_plugins.losses import distill_kl_div, embed_distill, margin_mse

from ...base import Incumbent, Scored, renamed
from ...functions import PairwiseFunction
from ...util import pairwise_dot_score

__all__ = ["DistillKLDivLoss", "EmbedDistillLoss", "MSELoss", "MarginMSELoss"]

Function = Callable[[Tensor, Tensor], Tensor]


class MarginMSELoss(Scored, margin_mse.MarginMSELoss):
    """`losskit.losses.MarginMSELoss` under the incumbent's constructor."""

    configuration = ("similarity_fct",)
    function_kind = PairwiseFunction

    def __init__(self, model: Any, similarity_fct: Function = pairwise_dot_score) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct


class DistillKLDivLoss(Scored, distill_kl_div.DistillKLDivLoss):
    """`losskit.losses.DistillKLDivLoss` under the incumbent's constructor."""

    function_kind = PairwiseFunction

    def __init__(
        self,
        model: Any,
        similarity_fct: Function = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        student = temperature if student_temperature is None else student_temperature
        teacher = temperature if teacher_temperature is None else teacher_temperature
        super().__init__(model, temperature, student, teacher)
        self.similarity_fct = similarity_fct

    @property
    def configuration(self) -> tuple[str, ...]:
        """The temperatures that differ from the common one are named."""
        own = [
            name for name in ("student_temperature", "teacher_temperature") if getattr(self, name) != self.temperature
        ]
        return ("similarity_fct", "temperature", *own)


class EmbedDistillLoss(Incumbent, embed_distill.EmbedDistillLoss):
    """`losskit.losses.EmbedDistillLoss` under the incumbent's constructor; `projection` is the layer."""

    configuration = ("distance_metric", "projection_dim")
    distance_metric = renamed("distance")

    def __init__(
        self,
        model: Any,
        distance_metric: Literal["mse", "l2", "cosine"] = "cosine",
        projection_dim: int | None = None,
    ) -> None:
        super().__init__(model, distance_metric, projection_dim)

    @property
    def projection_dim(self) -> int | None:
        """The width of the projection, if there is one."""
        return None if self.projection_layer is None else self.projection_layer.out_features

    @property
    def projection(self) -> nn.Linear | None:
        """The layer from the student's embeddings to the width of the teacher's."""
        return self.projection_layer

    @projection.setter
    def projection(self, layer: nn.Linear | int | None) -> None:
        if not isinstance(layer, int):  # the native constructor keeps the width under this name
            self.projection_layer = layer

    def compute_loss_from_embeddings(
        self, embeddings: Sequence[Tensor], teacher_embeddings: Sequence[Tensor] | Tensor
    ) -> Value:
        """The loss of embeddings, one tensor per column, and the teacher's for each."""
        if not isinstance(teacher_embeddings, Tensor):
            teacher_embeddings = torch.stack(list(teacher_embeddings), dim=1)
        return super().compute_loss_from_embeddings(embeddings, teacher_embeddings)

    def save_projection(self, path: str | os.PathLike[str]) -> None:
        """Write the projection as safetensors.

        Raises:
            LossError: there is none.
        """
        if self.projection is None:
            raise LossError("No projection layer to save", fix="set projection_dim")
        save_file(self.projection.state_dict(), str(path))

    def load_projection(self, path: str | os.PathLike[str]) -> None:
        """Read a projection that `save_projection` wrote; made in its shape if there is none yet.

        Raises:
            LossError: it has another shape than the projection here, or than the encoder's embeddings.
        """
        state = load_file(str(path))
        width = state["weight"].shape[0]
        if self.projection is None:
            self.projection = self.owned_linear(width)
        found, wanted = (list(each["weight"].shape) for each in (state, self.projection.state_dict()))
        if found != wanted:
            name = f"the projection in {path}"
            raise LossError(f"{name} does not match the configured one", expected=f"{wanted}", got=f"{found}")
        self.projection.load_state_dict(state)


class MSELoss(EmbedDistillLoss):
    """EmbedDistillLoss by mean squared error."""

    configuration = ("projection_dim",)

    def __init__(self, model: Any, projection_dim: int | None = None) -> None:
        super().__init__(model, "mse", projection_dim)
