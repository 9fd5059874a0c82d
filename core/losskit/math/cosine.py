"""Directions of vectors."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .once import differentiable_once
from .precision import promoted

__all__ = ["inverse", "normalize"]

EPSILON = 1e-12
"""A shorter vector has no direction: it counts as zero, and passes no gradient."""


def normalize(vectors: Float[Tensor, "*items dim"]) -> Float[Tensor, "*items dim"]:
    """Vectors divided by their length, in float32 at least; a zero vector stays zero, with gradient 0.

    One whose squares overflow (in float32, from a length of about 1e19) has no length either, and becomes zero.

    >>> normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    unit: Tensor = _Normalize.apply(promoted(vectors))  # type: ignore[no-untyped-call]
    return unit


def inverse(lengths: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """1 / |v| of lengths |v|; 0 for a vector without direction.

    >>> inverse(torch.tensor([5.0, 0.0]))
    tensor([0.2000, 0.0000])
    """
    return torch.threshold(lengths, EPSILON, float("inf")).reciprocal_()


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        inverses = inverse(torch.linalg.vector_norm(vectors, dim=-1, keepdim=True))
        unit = vectors * inverses
        ctx.save_for_backward(unit, inverses)
        return unit

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, inverses = ctx.saved_tensors
        along = (gradient * unit).sum(-1, keepdim=True)
        return torch.sub(gradient, unit * along).mul_(inverses)
