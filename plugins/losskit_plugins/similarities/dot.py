"""Inner product."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from losskit import Card, Output
from losskit.math import pairwise_dot, promoted

__all__ = ["DotSimilarity"]


class DotSimilarity:
    """Inner product of two vectors."""

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="a b",
    )

    def transform(self, record: Output) -> Tensor:
        """The vectors themselves."""
        return promoted(record.embedding)

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return self.transform(a) @ self.transform(b).T

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return pairwise_dot(a.embedding, b.embedding)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each other, [n, k]."""
        return pairwise_dot(a.embedding, *(other.embedding for other in others))
