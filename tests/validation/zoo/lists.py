"""Losses on lists of scores: some keep every law, the others miss one each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.math import masked_log_softmax, masked_mean, masked_softmax


class ListSoftmax(ScoreLoss):
    """Brings the softmax of a list's scores to that of its labels.

    Args:
        model: any encoder.
        similarity: for encoders that embed.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["query", "documents"], labels="scores", outputs=1)],
        encoders=["cross-encoder"],
        memory="n",
        formula="mean over queries of -sum_j softmax(y)_j log softmax(s)_j",
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, similarity=similarity, scale=scale, execution=execution)

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each list."""
        there = torch.ones_like(scores, dtype=torch.bool) if where is None else where
        return self.of_lists(scores, labels.to(scores.dtype), there)

    def of_lists(self, scores: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        """The loss of each padded list."""
        return -(masked_softmax(labels, where) * masked_log_softmax(scores, where)).sum(1)


class SoftmaxOverPadding(ListSoftmax):
    """Brings the softmax of a list's scores to that of its labels: padding takes part."""

    def of_lists(self, scores: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        scores, labels = scores.where(where, 0.0), labels.where(where, 0.0)
        return -(masked_softmax(labels, where) * scores.log_softmax(1)).sum(1)


class ReadsPadding(ListSoftmax):
    """Brings the softmax of a list's scores to that of its labels: reads scores where there is no document."""

    def of_lists(self, scores: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        return super().of_lists(scores, labels, where) + scores.square().mean(1) / 100


class SquaredErrors(ScoreLoss):
    """Brings each score to its label.

    Args:
        model: any encoder.
        similarity: for encoders that embed.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["query", "documents"], labels="scores", outputs=1)],
        encoders=["dense", "cross-encoder"],
        memory="n",
        formula="mean over documents of (s - y)^2",
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, similarity=similarity, scale=scale, execution=execution)

    def per_document(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each document."""
        return (scores - labels.to(scores.dtype)).square()


class CountsQueries(SquaredErrors):
    """Brings each score to its label: the mean is over documents, and slices count by queries."""

    def denominator(self, columns: Any, labels: Tensor | None, rows: slice) -> Any:
        return rows.stop - rows.start


class PairwiseLogistic(ScoreLoss):
    """Wants a document with a higher label to have a higher score.

    Args:
        model: any encoder.
        similarity: for encoders that embed.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["query", "documents"], labels="scores", outputs=1)],
        encoders=["cross-encoder"],
        memory="n^2",
        formula="mean over queries of mean over y_j > y_k of log(1 + exp(s_k - s_j))",
    )

    def __init__(
        self,
        model: Any = None,
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, similarity=similarity, scale=scale, execution=execution)

    def score(self, scores: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        """The mean over lists."""
        higher = labels[:, :, None] > labels[:, None, :]
        pairs = higher & where[:, :, None] & where[:, None, :]
        differences = scores[:, None, :] - scores[:, :, None]
        return masked_mean(self.cost(differences).flatten(1), pairs.flatten(1), dim=1).mean()

    def cost(self, differences: Tensor) -> Tensor:
        """Of pairs, by how much the document that should be lower is ahead."""
        return torch.nn.functional.softplus(differences)


class ExponentialCost(PairwiseLogistic):
    """Wants a document with a higher label to have a higher score: at a cost that overflows."""

    def cost(self, differences: Tensor) -> Tensor:
        return differences.exp().log1p()


class LowerIsBetter(PairwiseLogistic):
    """Wants a document with a higher label to have a lower score."""

    def cost(self, differences: Tensor) -> Tensor:
        return super().cost(-differences)
