"""How many entries of sparse embeddings are not 0, and what it costs to compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

__all__ = ["Activity", "activity_metrics", "activity_names"]


@dataclass(frozen=True)
class Activity:
    """In how many of n embeddings each dimension is not 0.

    Args:
        counts: [d].
        texts: n.
    """

    counts: NDArray[np.int64]
    texts: int

    @classmethod
    def of(cls, values: csr_array) -> Activity:
        """That of embeddings [n, d]."""
        active = values.indices[values.data != 0]
        return cls(np.bincount(active, minlength=values.shape[1]), int(values.shape[0]))

    def __add__(self, other: Activity) -> Activity:
        """That of the embeddings of both."""
        return Activity(self.counts + other.counts, self.texts + other.texts)

    @property
    def mean(self) -> float:
        """How many dimensions of an embedding are not 0."""
        return float(self.counts.sum()) / max(self.texts, 1)

    @property
    def shares(self) -> NDArray[np.float64]:
        """p [d]: the share of the embeddings in which each dimension is not 0."""
        return self.counts / max(self.texts, 1)


def activity_names(roles: Sequence[str]) -> tuple[str, ...]:
    """The metrics of embeddings of these roles.

    >>> activity_names(["query", "document"])
    ('active-dims-query', 'active-dims-document', 'flops', 'sparsity')
    """
    return (*(f"active-dims-{role}" for role in dict.fromkeys(roles)), "flops", "sparsity")


def activity_metrics(found: Mapping[str, Activity], roles: tuple[str, str]) -> dict[str, float]:
    """The metrics by name, of embeddings by role.

    "active-dims-ROLE" is the mean number of dimensions that are not 0; "flops" the products that comparing a text of
    the first role with one of the second takes on average, sum_j p_j q_j with p and q the shares of both roles; and
    "sparsity" the share of zeros among the entries of all embeddings.

    >>> query, document = csr_array([[1.0, 0.0, 2.0, 0.0]]), csr_array([[0.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> activity_metrics({"query": Activity.of(query), "document": Activity.of(document)}, ("query", "document"))
    {'active-dims-query': 2.0, 'active-dims-document': 1.0, 'flops': 0.5, 'sparsity': 0.6666666666666667}
    """
    first, second = (found[role] for role in roles)
    whole = sum(found.values(), start=Activity(np.zeros_like(first.counts), 0))
    return {
        **{f"active-dims-{role}": found[role].mean for role in roles},
        "flops": float(first.shares @ second.shares),
        "sparsity": 1 - whole.mean / len(whole.counts),
    }
