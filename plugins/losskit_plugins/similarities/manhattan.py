"""Negative Manhattan distance."""

from __future__ import annotations

import torch
from torch import Tensor

from losskit import Card, Output
from losskit.math import promoted

__all__ = ["ManhattanSimilarity"]


class ManhattanSimilarity:
    """Negative Manhattan distance of two vectors: 0 is nearest."""

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="-|a - b|_1",
    )

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return -torch.cdist(promoted(a.embedding), promoted(b.embedding), p=1.0)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return -(promoted(a.embedding) - promoted(b.embedding)).abs().sum(-1)
