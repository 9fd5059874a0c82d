"""Queries with lists of labelled documents: reranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from losskit.errors import DataError

from .ranking import mean_ndcg, mean_reciprocal_rank, top
from .scoring import Scorer

__all__ = ["RankedLists"]


@dataclass(frozen=True)
class RankedLists:
    """Does the encoder put the documents of each list in the order of their labels?

    Args:
        queries: n texts.
        documents: n lists of texts.
        labels: n lists of relevances from 0.

    Raises:
        DataError: a label below 0.
    """

    metrics: ClassVar[tuple[str, ...]] = ("ndcg@10", "mrr@10")
    queries: Sequence[str]
    documents: Sequence[Sequence[str]]
    labels: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        lowest = min((value for labels in self.labels for value in labels), default=0)
        if lowest < 0:
            raise DataError("labels of the evaluation lists", expected="numbers from 0", got=f"{lowest:g}")

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Whatever the encoder."""
        return self.metrics

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """Means over the lists that hold something relevant."""
        sizes = [len(each) for each in self.documents]
        queries = [query for query, size in zip(self.queries, sizes, strict=True) for _ in range(size)]
        texts = [text for documents in self.documents for text in documents]
        scores = np.split(scorer.pairs(queries, texts, ("query", "document")), np.cumsum(sizes)[:-1])
        lists = [
            [labels[place] for place in top(line, dict(enumerate(labels)), len(labels))]
            for line, labels in zip(scores, self.labels, strict=True)
        ]
        means = {"ndcg@10": mean_ndcg, "mrr@10": mean_reciprocal_rank}
        return {name: means[name](lists) for name in names}
