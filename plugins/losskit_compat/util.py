"""Similarities of embeddings as functions of two tensors: what `similarity_fct` takes by default.

The names are those of the incumbent's `util`; each calls the registered similarity.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

from losskit import Output, Similarity, get
from losskit.math import promoted

__all__ = [
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "pytorch_cos_sim",
]


def cos_sim(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of all pairs, [n, m].

    >>> import torch
    >>> cos_sim(torch.eye(2), torch.tensor([[2.0, 0.0]]))
    tensor([[1.],
            [0.]])
    """
    return _matrix("cosine", a, b)


def dot_score(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of all pairs, [n, m]."""
    return _matrix("dot", a, b)


def euclidean_sim(a: Tensor, b: Tensor) -> Tensor:
    """Negative Euclidean distance of all pairs, [n, m]."""
    return _matrix("euclidean", a, b)


def manhattan_sim(a: Tensor, b: Tensor) -> Tensor:
    """Negative Manhattan distance of all pairs, [n, m]."""
    return _matrix("manhattan", a, b)


def pairwise_cos_sim(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of row i with row i, [n]."""
    return _pairwise("cosine", a, b)


def pairwise_dot_score(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of row i with row i, [n]."""
    return _pairwise("dot", a, b)


def pairwise_euclidean_sim(a: Tensor, b: Tensor) -> Tensor:
    """Negative Euclidean distance of row i and row i, [n]."""
    return _pairwise("euclidean", a, b)


def pairwise_manhattan_sim(a: Tensor, b: Tensor) -> Tensor:
    """Negative Manhattan distance of row i and row i, [n]."""
    return _pairwise("manhattan", a, b)


def pairwise_angle_sim(a: Tensor, b: Tensor) -> Tensor:
    """Angle similarity of row i with row i, [n]."""
    return _pairwise("angle", a, b)


pytorch_cos_sim = cos_sim


@cache
def _registered(name: str) -> Similarity:
    similarity: Similarity = get("similarity", name).load()()
    return similarity


def _matrix(name: str, a: Tensor, b: Tensor) -> Tensor:
    return _registered(name)(Output(promoted(a)), Output(promoted(b)))


def _pairwise(name: str, a: Tensor, b: Tensor) -> Tensor:
    return _registered(name).pairwise(Output(promoted(a)), Output(promoted(b)))
