"""Losses around a loss: Matryoshka, adaptive layers, and both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.wrappers import adaptive_layer, matryoshka

from ...base import Summed, renamed
from ...foreign import adopted

__all__ = ["AdaptiveLayerLoss", "Matryoshka2dLoss", "MatryoshkaLoss"]

Weighting = Literal["uniform", "log", "linear"] | Callable[[int], float]


class MatryoshkaLoss(Summed, matryoshka.MatryoshkaLoss):
    """`losskit.losses.MatryoshkaLoss` under the incumbent's constructor; cut embeddings get unit length."""

    configuration = ("loss", "matryoshka_dims", "matryoshka_weights", "n_dims_per_step")
    matryoshka_dims = renamed("dims")
    matryoshka_weights = renamed("weights")
    n_dims_per_step = renamed("dims_per_step")

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        dims = list(matryoshka_dims)
        weights = [1] * len(dims) if matryoshka_weights is None else list(matryoshka_weights)
        if len(weights) == len(dims):
            order = sorted(range(len(dims)), key=lambda place: -dims[place])
            dims, weights = [dims[place] for place in order], [weights[place] for place in order]
        per_step = _count(n_dims_per_step)
        super().__init__(model, adopted(model, loss), tuple(dims), tuple(weights), per_step, normalize=True)


class AdaptiveLayerLoss(Summed, adaptive_layer.AdaptiveLayerLoss):
    """`losskit.losses.AdaptiveLayerLoss` under the incumbent's constructor, with its divergence."""

    configuration = (
        "loss",
        "n_layers_per_step",
        "last_layer_weight",
        "prior_layers_weight",
        "kl_div_weight",
        "kl_temperature",
        "layer_weighting",
    )
    n_layers_per_step = renamed("layers_per_step")

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Weighting = "uniform",
    ) -> None:
        super().__init__(
            model,
            adopted(model, loss),
            _count(n_layers_per_step),
            last_layer_weight,
            prior_layers_weight,
            kl_div_weight,
            kl_temperature if kl_temperature > 0 else 1.0,
            layer_weighting if isinstance(layer_weighting, str) else "uniform",
            "dimensions",
        )
        self.kl_temperature = kl_temperature
        self.layer_weighting = layer_weighting

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """As the inner loss: where there are fewer layers than asked for, the incumbent draws all of them."""
        return self.loss.observe(columns, labels)

    def layer_weight(self, layer: int) -> float:
        """What `layer_weighting`, a name or a function, gives a layer."""
        weighting = self.layer_weighting
        return super().layer_weight(layer) if isinstance(weighting, str) else weighting(layer)

    get_layer_weight = layer_weight

    @property
    def kl_weight(self) -> float:
        """`kl_div_weight`, unless the temperature says that there is no divergence."""
        return self.kl_div_weight if self.kl_temperature > 0 else 0.0

    @kl_weight.setter
    def kl_weight(self, weight: float) -> None:
        self.kl_div_weight = weight


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """AdaptiveLayerLoss around MatryoshkaLoss."""

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        matryoshka_dims: list[int],
        matryoshka_weights: list[float] | None = None,
        n_layers_per_step: int = 1,
        n_dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Weighting = "uniform",
    ) -> None:
        super().__init__(
            model,
            MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step),
            n_layers_per_step,
            last_layer_weight,
            prior_layers_weight,
            kl_div_weight,
            kl_temperature,
            layer_weighting,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """The settings of both."""
        return {**super().get_config_dict(), **self.loss.get_config_dict()}


def _count(number: int) -> int:
    """How many to draw, where anything that is not positive means all."""
    return number if number > 0 else -1
