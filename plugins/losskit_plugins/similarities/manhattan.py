"""Negative Manhattan distance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losskit import Card, Output
from losskit.math import pairwise_distance, promoted

__all__ = ["ManhattanSimilarity"]


class ManhattanSimilarity:
    """Negative Manhattan distance of two vectors: 0 is nearest."""

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="-|a - b|_1",
    )

    highest = 0.0

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return -torch.cdist(promoted(a.embedding), promoted(b.embedding), p=1.0)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return -pairwise_distance(a.embedding, b.embedding, order=1.0)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each other, [n, k]."""
        return -pairwise_distance(a.embedding, *(other.embedding for other in others), order=1.0)
