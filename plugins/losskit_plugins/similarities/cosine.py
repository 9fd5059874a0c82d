"""Cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from losskit import Card, Output
from losskit.math import normalize, pairwise_cosine

__all__ = ["CosineSimilarity"]


class CosineSimilarity:
    """Cosine of the angle between two vectors, in [-1, 1]."""

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="a b / (|a| |b|)",
    )

    highest = 1.0
    bound = 1.0

    def transform(self, record: Output) -> Tensor:
        """Unit vectors: the similarity is their inner product."""
        return normalize(record.embedding)

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return self.transform(a) @ self.transform(b).T

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return pairwise_cosine(a.embedding, b.embedding)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each other, [n, k]."""
        return pairwise_cosine(a.embedding, *(other.embedding for other in others))
