"""MaxSim, averaged over the tokens of a query."""

from __future__ import annotations

from torch import Tensor

from losskit import Card, Output
from losskit.math import maxsim, pairwise_maxsim

__all__ = ["MeanMaxSimSimilarity"]


class MeanMaxSimSimilarity:
    """Mean over the tokens of a query of their highest inner product with a token of the document.

    Of unit vectors it lies in [-1, 1], however long the query is. A document without tokens scores -1e9 over the
    number of query tokens.
    """

    card = Card(
        encoders=["multi-vector"],
        memory="tile",
        formula="mean over query tokens i of max over document tokens j of a_i b_j",
        relations=["maxsim: the sum, which grows with the length of the query."],
    )

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All queries with all documents, [n, m]."""
        return (maxsim(a.embedding, a.mask, b.embedding, b.mask).T / _lengths(a)).T

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Query i with document i, [n]."""
        return pairwise_maxsim(a.embedding, a.mask, b.embedding, b.mask) / _lengths(a)


def _lengths(a: Output) -> Tensor | int:
    """How many tokens count in each query, [n], and at least 1."""
    return max(1, a.embedding.shape[1]) if a.mask is None else a.mask.sum(1).clamp(min=1)
