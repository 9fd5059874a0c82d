"""Queries with lists of labelled documents: reranking."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from losskit.errors import DataError

from .ranking import LARGEST_LABEL, exponential_gain, mean_ndcg, mean_reciprocal_rank, top
from .scoring import Scorer

__all__ = ["RankedLists"]


@dataclass(frozen=True)
class RankedLists:
    """Does the encoder put the documents of each list in the order of their labels?

    The gain of a document is its label in "ndcg@10", as in retrieval, and 2^label - 1 in "ndcg-exp@10", as in learning
    to rank with graded labels.

    Args:
        queries: n texts.
        documents: n lists of texts, or of rows of features.
        labels: n lists of relevances from 0.

    Raises:
        DataError: a label that is below 0 or not finite, or not one for each document.
    """

    metrics: ClassVar[tuple[str, ...]] = ("ndcg@10", "mrr@10", "ndcg-exp@10")
    roles: ClassVar[tuple[str, str]] = ("query", "document")
    queries: Sequence[str]
    documents: Sequence[Sequence[Any]]
    labels: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        counts = [len(self.queries), len(self.documents), len(self.labels)]
        if len(set(counts)) > 1:
            expected = "as many queries as lists of documents and lists of labels"
            raise DataError("the evaluation lists", expected=expected, got=f"{counts}")
        for place, (documents, labels) in enumerate(zip(self.documents, self.labels, strict=True), start=1):
            if len(documents) != len(labels):
                expected = f"{len(documents)} labels, one for each document"
                raise DataError(f"evaluation list {place}", expected=expected, got=str(len(labels)))
        wrong = next((value for labels in self.labels for value in labels if not 0 <= value < math.inf), None)
        if wrong is not None:
            raise DataError("labels of the evaluation lists", expected="finite numbers from 0", got=f"{wrong:g}")

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Whatever the encoder; the exponential gain only where it is asked for."""
        return ("ndcg@10", "mrr@10")

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """Means over the lists that hold something relevant; others are left out, as no order of theirs is better.

        Raises:
            DataError: no such list, or a label whose exponential gain is asked for and too large.
        """
        if "ndcg-exp@10" in names:
            self._check_largest()
        sizes = [len(each) for each in self.documents]
        queries = [query for query, size in zip(self.queries, sizes, strict=True) for _ in range(size)]
        texts = [text for documents in self.documents for text in documents]
        scores = np.split(scorer.pairs(queries, texts, self.roles), np.cumsum(sizes)[:-1])
        lists = [
            [labels[place] for place in top(line, dict(enumerate(labels)), len(labels))]
            for line, labels in zip(scores, self.labels, strict=True)
        ]
        means: dict[str, Callable[[Sequence[Sequence[float]]], float]] = {
            "ndcg@10": mean_ndcg,
            "mrr@10": mean_reciprocal_rank,
            "ndcg-exp@10": partial(mean_ndcg, gain=exponential_gain),
        }
        return {name: means[name](lists) for name in names}

    def _check_largest(self) -> None:
        largest = max((value for labels in self.labels for value in labels), default=0)
        if largest > LARGEST_LABEL:
            raise DataError(
                "labels for ndcg-exp@10", expected=f"numbers up to {LARGEST_LABEL}", got=f"{largest:g}",
                fix="take ndcg@10, whose gain is the label",
            )  # fmt: skip
