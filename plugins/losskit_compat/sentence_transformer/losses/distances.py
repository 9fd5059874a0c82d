"""The incumbent's distances: of rows for pairs and triplets, within a batch for mined triplets."""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from ...util import (
    cos_sim,
    euclidean_sim,
    pairwise_cos_sim,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)

__all__ = ["BatchHardTripletLossDistanceFunction", "SiameseDistanceMetric", "TripletDistanceMetric"]


class SiameseDistanceMetric(Enum):
    """Distances of row i and row i, each a function of two tensors [n, d].

    >>> import torch
    >>> SiameseDistanceMetric.EUCLIDEAN(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([5.])
    """

    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    COSINE_DISTANCE = "cosine"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distances [n]."""
        return _distance(self.value, a, b)


class TripletDistanceMetric(Enum):
    """Distances of row i and row i, each a function of two tensors [n, d]."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distances [n]."""
        return _distance(self.value, a, b)


class BatchHardTripletLossDistanceFunction:
    """Distances within one tensor [n, d]: [n, n]."""

    @staticmethod
    def cosine_distance(embeddings: Tensor) -> Tensor:
        """One minus the cosine."""
        return 1 - cos_sim(embeddings, embeddings)

    @staticmethod
    def euclidean_distance(embeddings: Tensor, squared: bool = False) -> Tensor:
        """The Euclidean distance, or its square."""
        distances = -euclidean_sim(embeddings, embeddings)
        return distances.square() if squared else distances

    eucledian_distance = euclidean_distance


def _distance(name: str, a: Tensor, b: Tensor) -> Tensor:
    if name == "cosine":
        return 1 - pairwise_cos_sim(a, b)
    return -(pairwise_euclidean_sim if name == "euclidean" else pairwise_manhattan_sim)(a, b)
