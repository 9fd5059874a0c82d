"""Matryoshka: one embedding, good at every size it is cut to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Loss, Output, Wrapper
from losskit.errors import LossError, check_number
from losskit.loss import Value
from losskit.math import normalize
from losskit.wrapper import prefixed

__all__ = ["Axis", "MatryoshkaLoss", "largest"]

logger = logging.getLogger("losskit")

Axis = Literal["dimensions", "active"]


def largest(embeddings: Float[Tensor, "*n d"], count: int) -> Float[Tensor, "*n d"]:
    """The embeddings with all but their so many largest entries, by absolute value, set to 0.

    >>> largest(torch.tensor([[0.5, -2.0, 1.0]]), 2)
    tensor([[ 0., -2.,  1.]])
    """
    places = embeddings.detach().abs().topk(count, dim=-1, sorted=False).indices
    return torch.zeros_like(embeddings).scatter(-1, places, embeddings.gather(-1, places))


class MatryoshkaLoss(Wrapper):
    """Trains an embedding so that its first dimensions, or its largest entries, serve alone.

    Args:
        model: the encoder.
        loss: what is computed at every size; any loss that does not fix the dimension.
        dims: sizes to cut the embedding to.
        weights: one per size; None: 1 each.
        dims_per_step: how many sizes are computed, drawn anew each training step; -1: all. Evaluation has one
            fixed draw.
        normalize: bring cut embeddings to unit length; None: if the encoder's are.
        axis: what a size counts. "dimensions": the first ones, and all others go. "active": the largest entries of
            each embedding, by absolute value; all others become 0, and the width stays.
        execution: how records come about.

    Raises:
        LossError: impossible sizes or weights, or an inner loss whose parameters have the encoder's width.
    """

    card = Card(
        encoders=["dense", "sparse", "multi-vector"],
        stochastic=True,
        memory="B",
        formula="sum over sizes d of w_d loss(embedding[:d]), or loss of the d largest entries",
        citation="""@inproceedings{kusupati2022matryoshka,
  title = {Matryoshka Representation Learning},
  author = {Kusupati, Aditya and Bhatt, Gantavya and Rege, Aniket and others},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022}
}""",
        relations=["With only the full size and weight 1 it is the inner loss."],
    )
    identity = {"dims": [8]}  # noqa: RUF012 - read as it stands

    def __init__(
        self,
        model: Any,
        loss: Loss,
        dims: tuple[int, ...],
        weights: tuple[float, ...] | None = None,
        dims_per_step: int = -1,
        normalize: bool | None = None,
        axis: Axis = "dimensions",
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, loss, execution=execution)
        self.dims = tuple(dims)
        self.weights = None if weights is None else tuple(weights)
        self.dims_per_step = dims_per_step
        self.normalize = normalize
        self.axis: Axis = axis
        self._check_options()

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> tuple[int, ...]:
        """Which sizes this forward computes, as places in `dims`."""
        if self.dims_per_step < 0 or self.dims_per_step >= len(self.dims):
            return tuple(range(len(self.dims)))
        chosen = torch.randperm(len(self.dims), generator=generator, device=generator.device)[: self.dims_per_step]
        return tuple(sorted(chosen.tolist()))

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The inner loss at every chosen size, under `matryoshka_SIZE`."""
        weights = self.weights or (1.0,) * len(self.dims)
        values: dict[str, Tensor] = {}
        for place in range(len(self.dims)) if self.drawn is None else self.drawn:
            size = self.dims[place]
            cut = [self._cut_record(column, size) for column in columns]
            value = self.loss.compute(cut, self._cut_labels(labels, size), rows)
            for key, each in prefixed(f"matryoshka_{size}", value).items():
                values[key] = each * weights[place]
        return values

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Tensor]:
        """That of the inner loss, under the names of this one's components."""
        inner = self.loss.denominator(columns, labels, rows)
        if not isinstance(inner, dict):
            return inner
        return {key: each for size in self.dims for key, each in prefixed(f"matryoshka_{size}", inner).items()}

    def _cut_record(self, record: Output, size: int) -> Output:
        """Everything that the encoder, or one trained beside it, embedded; a guide's embeddings stay whole."""
        whole = {name for _, loss in self.loss.tree() for name in loss.frozen}
        cut = partial(self._cut, size=size)
        return replace(
            record.map_embedding(cut),
            layers=tuple(map(cut, record.layers)),
            parts={
                name: self._cut_record(part, size) if isinstance(part, Output) and name not in whole else part
                for name, part in record.parts.items()
            },
        )

    def _cut(self, embedding: Tensor, size: int) -> Tensor:
        if size >= embedding.shape[-1]:
            return embedding
        cut = embedding[..., :size] if self.axis == "dimensions" else largest(embedding, size)
        unit = self.normalize
        if unit is None:
            unit = self.model is not None and self.encoder.normalized
        return normalize(cut) if unit else cut

    def _cut_labels(self, labels: Tensor | None, size: int) -> Tensor | None:
        """Labels that are embeddings are cut as embeddings are."""
        if labels is None or labels.ndim < 2 or all(item.labels != "embedding" for item in self.formats):
            return labels
        return self._cut(labels, size)

    def _check_options(self) -> None:
        name = type(self).__name__
        if not self.dims or any(type(size) is not int or size < 1 for size in self.dims):
            raise LossError(f"{name}.dims", expected="one positive integer or more", got=repr(self.dims))
        if len(set(self.dims)) < len(self.dims):
            raise LossError(f"{name}.dims", expected="every size once", got=repr(self.dims))
        if self.weights is not None and len(self.weights) != len(self.dims):
            raise LossError(
                f"{name}.weights", expected=f"one for each of {len(self.dims)} sizes", got=f"{len(self.weights)}"
            )
        for place, weight in enumerate(self.weights or ()):
            check_number(f"{name}.weights.{place}", weight)
        if self.dims_per_step == 0 or self.dims_per_step < -1:
            raise LossError(
                f"{name}.dims_per_step", expected="a positive integer, or -1 for all", got=repr(self.dims_per_step)
            )
        if self.axis not in get_args(Axis):
            raise LossError(f"{name}.axis", expected=" or ".join(get_args(Axis)), got=repr(self.axis))
        if self.axis == "dimensions" and self.loss.fixed_dimension:
            raise LossError(
                f"{name}.loss",
                expected="a loss that works at any size",
                got=f"{type(self.loss).__name__}, whose parameters or state have the encoder's width",
            )
        dimension = None if self.model is None else self.encoder.dimension
        if dimension is not None and max(self.dims) > dimension:
            raise LossError(f"{name}.dims", expected=f"at most the encoder's {dimension}", got=repr(max(self.dims)))
        if self.axis == "dimensions" and dimension is not None and dimension not in self.dims:
            logger.warning(
                "%s.dims: the encoder's %d is not among %s, so the full embedding is not trained",
                name,
                dimension,
                self.dims,
            )
