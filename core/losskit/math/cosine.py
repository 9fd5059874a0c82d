"""Directions of vectors and the cosines between them, with gradients that need no intermediate vectors."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .once import differentiable_once
from .precision import promoted

__all__ = ["normalize", "pairwise_cosine"]

EPSILON = 1e-12
"""A shorter vector has no direction: it counts as zero, and passes no gradient."""


def normalize(vectors: Float[Tensor, "*items dim"]) -> Float[Tensor, "*items dim"]:
    """Vectors divided by their length, in float32 at least; a zero vector stays zero, with gradient 0.

    >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    unit: Tensor = _Normalize.apply(promoted(vectors))  # type: ignore[no-untyped-call]
    return unit


def pairwise_cosine(a: Float[Tensor, "rows dim"], b: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
    """Cosine of row i of `a` with row i of `b`, in float32 at least; 0 with a zero vector, with gradient 0.

    >>> pairwise_cosine(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[6.0, 8.0], [1.0, 0.0]]))
    tensor([1., 0.])
    """
    cosines: Tensor = _PairwiseCosine.apply(promoted(a), promoted(b))  # type: ignore[no-untyped-call]
    return cosines


def _inverse_length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length.reciprocal().masked_fill_(length < EPSILON, 0.0)


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        inverse = _inverse_length(vectors)[..., None]
        unit = vectors * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)
        return torch.addcmul(gradient, along, unit, value=-1).mul_(inverse)


class _PairwiseCosine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        inverse_a, inverse_b = _inverse_length(a), _inverse_length(b)
        cosines = (a * b).sum(-1).mul_(inverse_a).mul_(inverse_b)
        ctx.save_for_backward(a, b, inverse_a, inverse_b, cosines)
        return cosines

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        a, b, inverse_a, inverse_b, cosines = ctx.saved_tensors
        across = (gradient * inverse_a * inverse_b)[..., None]
        along_a = (gradient * cosines * inverse_a.square())[..., None]
        along_b = (gradient * cosines * inverse_b.square())[..., None]
        of_a = (b * across).addcmul_(a, along_a, value=-1)
        of_b = (a * across).addcmul_(b, along_b, value=-1)
        return of_a, of_b
