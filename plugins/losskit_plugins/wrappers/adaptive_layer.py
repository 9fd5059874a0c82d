"""Adaptive layers: one transformer, good cut after any of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Loss, Output, Wrapper
from losskit.errors import LossError, check_number
from losskit.loss import Value
from losskit.math import masked_mean, normalize, pad_lists, promoted
from losskit.wrapper import prefixed

__all__ = ["AdaptiveLayerLoss", "divergence_of_dimensions", "divergence_of_directions"]


def divergence_of_directions(
    student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, " n"]:
    """1 - cos(student, teacher): how far two embeddings point apart.

    That is, up to a factor which the width and the temperature fix, the KL divergence of two von Mises-Fisher
    distributions around them, so the temperature changes nothing.

    >>> divergence_of_directions(torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]]), 0.3)
    tensor([1.])
    """
    return 1 - (normalize(student) * normalize(teacher)).sum(-1)


def divergence_of_dimensions(
    student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"], temperature: float
) -> Float[Tensor, " n"]:
    """t KL(softmax(teacher / t) || softmax(student / t)), each dimension taken for a class, as 2DMSE has it.

    >>> divergence_of_dimensions(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0]]), 0.3)
    tensor([0.])
    """
    ours, wanted = ((promoted(each) / temperature).log_softmax(-1) for each in (student, teacher))
    return temperature * (wanted.exp() * (wanted - ours)).sum(-1)


DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "directions": divergence_of_directions,
    "dimensions": divergence_of_dimensions,
}
WEIGHTINGS: Mapping[str, Callable[[int], float]] = {
    "uniform": lambda layer: 1.0,
    "log": lambda layer: 1 / (1 + math.log(1 + layer)),
    "linear": lambda layer: 1 / (1 + layer),
}


class AdaptiveLayerLoss(Wrapper):
    """Trains a transformer so that its first layers serve alone.

    Every training step draws some of the layers before the last, the embedding layer (0) among them.

    Args:
        model: the encoder, which must have layers.
        loss: what is computed at the last layer and at each drawn one.
        layers_per_step: how many layers are drawn; -1: all. Evaluation has one fixed draw. More than there are
            are refused in the first batch, which tells their number.
        last_layer_weight: of the loss at the last layer.
        prior_layers_weight: of the mean loss of the drawn layers.
        kl_weight: of the mean divergence of the drawn layers' embeddings from the last one's, which is their
            teacher and gets no gradient from it; 0: none.
        kl_temperature: of "dimensions".
        layer_weighting: of the loss at layer l: 1, 1 / (1 + ln(1 + l)), or 1 / (1 + l).
        kl_over: what diverges. "directions": 1 - cosine, which turning or scaling the space leaves alone.
            "dimensions": as in the paper, softmaxes over the d dimensions of embeddings; that depends on the basis,
            and for unit vectors its gradient is about d * kl_temperature times smaller.
        execution: how records come about.

    Raises:
        LossError: an impossible option, or an encoder without a transformer.
    """

    card = Card(
        encoders=["dense"],
        needs=["layers"],
        stochastic=True,
        memory="B",
        formula="w_last loss(last) + mean over drawn layers l of w_prior w(l) loss(l) + w_kl KL(last || l)",
        citation="""@misc{li20242dmatryoshkasentenceembeddings,
  title = {2D Matryoshka Sentence Embeddings},
  author = {Li, Xianming and Li, Zongxi and Li, Jing and Xie, Haoran and Li, Qing},
  year = {2024},
  eprint = {2402.14776},
  archivePrefix = {arXiv}
}""",
        relations=["With prior_layers_weight=0 and kl_weight=0 it is the inner loss."],
        deviations={"gradient": "the last layer teaches the others by the divergence, and gets no gradient from it"},
    )
    identity = {"prior_layers_weight": 0.0, "kl_weight": 0.0}  # noqa: RUF012 - read as it stands

    def __init__(
        self,
        model: Any,
        loss: Loss,
        layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_weight: float = 1.0,
        kl_temperature: float = 0.3,
        layer_weighting: Literal["uniform", "log", "linear"] = "uniform",
        kl_over: Literal["directions", "dimensions"] = "directions",
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, loss, execution=execution)
        self.layers_per_step = layers_per_step
        self.last_layer_weight = last_layer_weight
        self.prior_layers_weight = prior_layers_weight
        self.kl_weight = kl_weight
        self.kl_temperature = kl_temperature
        self.layer_weighting = layer_weighting
        self.kl_over = kl_over
        self._layers_read_inside = "layers" in loss.needs
        self._check_options()

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> tuple[float, ...] | None:
        """Numbers in [0, 1), one per layer to draw, for only the records tell how many layers there are."""
        if self.layers_per_step < 0:
            return None
        numbers: list[float] = torch.rand(
            self.layers_per_step, generator=generator, dtype=torch.float64, device=generator.device
        ).tolist()
        return tuple(numbers)

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """As the inner loss; before any wrapper cuts the records, they tell how many layers can be drawn."""
        count = _prior_layers(columns)
        if self.layers_per_step > count:
            raise LossError(
                f"{type(self).__name__}.layers_per_step",
                expected=f"at most {count}, the layers before the last, or -1 for all",
                got=repr(self.layers_per_step),
            )
        return super().observe(columns, labels)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The inner loss under `adaptive_final` and `adaptive_layer_NUMBER`, the divergence under `adaptive_kl`."""
        drawn = self._drawn_layers(_prior_layers(columns))
        final = [self._without_layers(column) for column in columns]
        values = _scaled(prefixed("adaptive_final", self.loss.compute(final, labels, rows)), self.last_layer_weight)
        for layer in drawn if self.prior_layers_weight else ():
            shallow = [self._at(column, layer) for column in columns]
            value = prefixed(f"adaptive_layer_{layer}", self.loss.compute(shallow, labels, rows))
            weight = self.prior_layers_weight * self.layer_weight(layer) / len(drawn)
            values |= _scaled(value, weight)
        if self.kl_weight and drawn:
            divergences = [self._divergence(columns, layer, rows) for layer in drawn]
            values["adaptive_kl"] = self.kl_weight * torch.stack(divergences).mean()
        return values

    def layer_weight(self, layer: int) -> float:
        """What `layer_weighting` gives a layer."""
        return WEIGHTINGS[self.layer_weighting](layer)

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Tensor]:
        """That of the inner loss for each layer; divergences are means over rows."""
        inner: Any = self.loss.denominator(columns, labels, rows)
        found: dict[str, Any] = {"adaptive_kl": rows.stop - rows.start, **prefixed("adaptive_final", inner)}
        for layer in range(_prior_layers(columns)):
            found |= prefixed(f"adaptive_layer_{layer}", inner)
        return found

    def _drawn_layers(self, count: int) -> list[int]:
        """The layers of this forward, by falling numbers drawn without putting back."""
        left = list(range(count))
        if self.drawn is None or len(self.drawn) >= count:
            return left
        return sorted(left.pop(int(number * len(left))) for number in self.drawn)

    def _at(self, record: Output, layer: int) -> Output:
        """The record of an encoder that ends after a layer; a column without layers stays as it is."""
        if not record.layers:
            return record
        cut = replace(record, embedding=record.layers[layer], layers=record.layers[: layer + 1])
        return self._without_layers(cut)

    def _without_layers(self, record: Output) -> Output:
        """The record as the inner loss asks for it: wrappers in between need not cut layers that nobody reads."""
        return record if self._layers_read_inside else replace(record, layers=())

    def _divergence(self, columns: Sequence[Output], layer: int, rows: slice) -> Tensor:
        """The mean over rows, and over the columns of each, of what a layer's embeddings are off."""
        measure = DIVERGENCES[self.kl_over]
        per_row = []
        for column in columns:
            if column.layers and column.embedding is not None:
                part = column[rows]
                assert part.embedding is not None
                apart = measure(part.layers[layer], part.embedding.detach(), self.kl_temperature)
                per_row.append(apart if part.lists is None else masked_mean(*pad_lists(apart, part.lists), dim=1))
        mean = torch.stack(per_row).mean(0)
        weight = columns[0].weight
        return mean.mean() if weight is None else (mean * weight[rows]).mean()

    def _check_options(self) -> None:
        name = type(self).__name__
        for option, choices in (("layer_weighting", WEIGHTINGS), ("kl_over", DIVERGENCES)):
            if getattr(self, option) not in choices:
                raise LossError(
                    f"{name}.{option}", expected=f"one of {', '.join(choices)}", got=repr(getattr(self, option))
                )
        if self.layers_per_step == 0 or self.layers_per_step < -1:
            raise LossError(
                f"{name}.layers_per_step", expected="a positive integer, or -1 for all", got=repr(self.layers_per_step)
            )
        for option in ("last_layer_weight", "prior_layers_weight", "kl_weight"):
            check_number(f"{name}.{option}", getattr(self, option))
        fix = "kl_weight=0 leaves the divergence out"
        check_number(f"{name}.kl_temperature", self.kl_temperature, "a positive number", fix=fix)
        if self.model is not None and getattr(self.encoder, "transformer", self.model) is None:
            raise LossError(
                f"{name}.model", expected="an encoder with layers", got="one without a transformer", fix="use another"
            )


def _prior_layers(columns: Sequence[Output]) -> int:
    """How many layers there are before the last.

    Raises:
        LossError: the records have none.
    """
    count = max(len(column.layers) for column in columns)
    if not count:
        raise LossError(
            "AdaptiveLayerLoss",
            expected="records with the embedding of every layer",
            got="records without layers",
            fix="call the loss with features, and an encoder that gives layers; foreign wrappers of a model hide them",
        )
    return count - 1


def _scaled(values: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    return {key: value * weight for key, value in values.items()}
