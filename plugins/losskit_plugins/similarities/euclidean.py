"""Negative Euclidean distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losskit import Card, Output
from losskit.math import pairwise_distance, promoted

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
        sums = squares_a + squares_b
        squared = torch.sub(sums, products, alpha=2.0)
        near = squared <= sums * (4.0 * torch.finfo(sums.dtype).eps)
        return squared.masked_fill(near, 1.0).sqrt().masked_fill(near, 0.0).neg()
