"""Inner product."""

from __future__ import annotations

from torch import Tensor

from losskit import Card, Output
from losskit.math import promoted

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
        return (self.transform(a) * self.transform(b)).sum(-1)
