"""Regularizers, similarities and weightings: one of each keeps every law, the others miss one each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from losskit import Card, Output
from losskit.math import normalize, promoted


def embeddings(record: Output) -> Tensor:
    """Those of a record, in float32 at least."""
    assert record.embedding is not None
    return promoted(record.embedding)


class MeanSquare(nn.Module):
    """Asks that embeddings be short.

    Args:
        wanted: the square of their length.
    """

    card = Card(encoders=["dense"], row_wise=False, memory="B V", formula="mean_i | |e_i|^2 / d - wanted |")

    def __init__(self, wanted: float = 0.1) -> None:
        super().__init__()
        self.wanted = wanted

    def forward(self, queries: Output | None, documents: Output) -> Tensor:
        """The penalty on the documents, and on queries if there are any."""
        value = self.penalty(embeddings(documents))
        return value if queries is None else value + self.penalty(embeddings(queries))

    def penalty(self, vectors: Tensor) -> Tensor:
        """On some embeddings."""
        return (vectors.square().mean(1) - self.wanted).abs().mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"wanted": self.wanted}


class SumsSquares(MeanSquare):
    """Asks that embeddings be short: all together."""

    def penalty(self, vectors: Tensor) -> Tensor:
        return super().penalty(vectors) * len(vectors)


class RootOfSquares(MeanSquare):
    """Asks that embeddings be short: takes a root that has no slope at 0."""

    def penalty(self, vectors: Tensor) -> Tensor:
        return (vectors.square().sum(1).sqrt() - self.wanted).abs().mean()


class ForgetsWanted(MeanSquare):
    """Asks that embeddings be short: its configuration has another length.

    Args:
        wanted: the square of their length.
    """

    def __init__(self, wanted: float = 0.2) -> None:
        super().__init__(wanted)

    def get_config_dict(self) -> dict[str, Any]:
        return {"wanted": 0.1}


class Correlation:
    """The cosine of the angle between two vectors less their means."""

    card = Card(encoders=["dense"], memory="tile", formula="cos(a - mean(a), b - mean(b))")

    def transform(self, record: Output) -> Tensor:
        """Unit vectors of mean 0."""
        vectors = embeddings(record)
        return normalize(vectors - vectors.mean(1, keepdim=True))

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs."""
        return self.transform(a) @ self.transform(b).T

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i."""
        return (self.transform(a) * self.transform(b)).sum(1)


class OtherDiagonal(Correlation):
    """The cosine of the angle between two vectors less their means; of pairs, as they are."""

    def pairwise(self, a: Output, b: Output) -> Tensor:
        return (normalize(embeddings(a)) * normalize(embeddings(b))).sum(1)


class OtherTransform(Correlation):
    """The cosine of the angle between two vectors less their means: its transform forgets the means."""

    def transform(self, record: Output) -> Tensor:
        return normalize(embeddings(record))

    def __call__(self, a: Output, b: Output) -> Tensor:
        return Correlation.transform(self, a) @ Correlation.transform(self, b).T

    def pairwise(self, a: Output, b: Output) -> Tensor:
        return (Correlation.transform(self, a) * Correlation.transform(self, b)).sum(1)


class CentersBatch(Correlation):
    """The cosine of the angle between two vectors less the mean of the vectors beside them."""

    def transform(self, record: Output) -> Tensor:
        vectors = embeddings(record)
        return normalize(vectors - vectors.mean(0))


class DividesByNorm(Correlation):
    """The cosine of the angle between two vectors less their means: divides by lengths that may be 0."""

    def transform(self, record: Output) -> Tensor:
        vectors = embeddings(record)
        vectors = vectors - vectors.mean(1, keepdim=True)
        return vectors / vectors.norm(dim=1, keepdim=True)


class GainSums:
    """Weighs a pair by the gains of both documents."""

    card = Card(memory="n^2", formula="w_ij = G_i + G_j")

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each pair."""
        return gain[:, :, None] + gain[:, None, :]


class GainDifferences(GainSums):
    """Weighs a pair by the gain of the first document less that of the second, which may be below 0."""

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        return gain[:, :, None] - gain[:, None, :]


class SharesOfBatch(GainSums):
    """Weighs a pair by the gains of both documents, as shares of the highest of any list."""

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        return super().__call__(gain / gain.max().clamp(min=1e-9), discount, true_sorted)


class OnProcessor(GainSums):
    """Weighs a pair by the gains of both documents, and by a number that stays on the processor."""

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        return super().__call__(gain, discount, true_sorted) * torch.ones(gain.shape[1])
