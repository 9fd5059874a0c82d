"""Negative Euclidean distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Card, Output
from losskit.math import differentiable_once, pairwise_distance, promoted

__all__ = ["EuclideanSimilarity"]


class EuclideanSimilarity:
    """Negative Euclidean distance of two vectors: 0 is nearest."""

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="-|a - b|_2",
    )

    highest = 0.0

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]; the gradient at distance 0 is 0."""
        # Without the matrix-product shortcut: it loses near pairs to rounding.
        return -torch.cdist(
            promoted(a.embedding), promoted(b.embedding), p=2.0, compute_mode="donot_use_mm_for_euclid_dist"
        )

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]; the gradient at distance 0 is 0."""
        return -pairwise_distance(a.embedding, b.embedding)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each other, [n, k]."""
        return -pairwise_distance(a.embedding, *(other.embedding for other in others))

    def of_products(self, products: Tensor, squares_a: Tensor, squares_b: Tensor) -> Tensor:
        """All pairs from their inner products [n, m] and squared lengths [n, 1] and [m].

        Of what is nearer than rounding tells, the distance and its gradient are 0.
        """
        similarities: Tensor = _OfProducts.apply(products, squares_a, squares_b)
        return similarities


class _OfProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Tensor, squares_a: Tensor, squares_b: Tensor) -> Tensor:
        sums = squares_a + squares_b
        squared = torch.sub(sums, products, alpha=2.0)
        near = squared <= sums.mul_(4.0 * torch.finfo(sums.dtype).eps)
        similarities = squared.masked_fill_(near, 0.0).sqrt_().neg_()
        ctx.shapes = squares_a.shape, squares_b.shape
        ctx.save_for_backward(similarities)
        return similarities

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (similarities,) = ctx.saved_tensors
        of_products = upstream / torch.threshold_(similarities.neg(), 0.0, float("inf"))
        return of_products, *(of_products.sum_to_size(shape) * -0.5 for shape in ctx.shapes)
