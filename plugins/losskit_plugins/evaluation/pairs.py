"""Anchors with their positive, and perhaps negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from losskit.errors import DataError

from .ranking import MEASURES, measure, top
from .scoring import Scorer

__all__ = ["Pairs"]

Judged = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Pairs:
    """Is the positive nearer than its negatives, and is it found among the positives of all rows?

    Args:
        anchors: n texts.
        positives: n lists of texts.
        negatives: n lists of texts, which may be empty.
    """

    metrics: ClassVar[tuple[str, ...]] = ("ndcg@10", "mrr@10", "recall@10", "accuracy")
    roles: ClassVar[tuple[str, str]] = ("query", "document")
    anchors: Sequence[str]
    positives: Sequence[Sequence[str]]
    negatives: Sequence[Sequence[str]]

    @property
    def has_negatives(self) -> bool:
        """Whether every row has one."""
        return bool(self.anchors) and all(self.negatives)

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Accuracy with negatives; without, retrieval among the positives of all rows."""
        return ("accuracy",) if self.has_negatives or not scorer.embeds else self.metrics

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """Each anchor against all positives of the data, each text once; anchors that are equal share theirs.

        Raises:
            DataError: a cross-encoder where there are no negatives.
        """
        if not scorer.embeds and (not self.has_negatives or set(names) != {"accuracy"}):
            raise DataError(
                "evaluation of a cross-encoder on pairs", expected="a negative in every row, and accuracy alone",
                got=", ".join(names), fix="add negatives, or evaluate on lists (query, documents, scores)",
            )  # fmt: skip
        if set(names) <= {"accuracy"} and self.has_negatives:
            return {"accuracy": self._accuracy(scorer)}
        ranked = self._ranked(scorer)
        found = measure([name for name in names if name in MEASURES], self._judged, ranked)
        if "accuracy" in names:
            found["accuracy"] = self._accuracy(scorer) if self.has_negatives else self._first_is_right(ranked)
        return {name: found[name] for name in names}

    @cached_property
    def _judged(self) -> Judged:
        judged: Judged = {}
        for anchor, positives in zip(self.anchors, self.positives, strict=True):
            judged.setdefault(anchor, {}).update(dict.fromkeys(positives, 1))
        return judged

    def _ranked(self, scorer: Scorer) -> dict[str, list[str]]:
        anchors = list(self._judged)
        documents = list(dict.fromkeys(text for texts in self.positives for text in texts))
        place = {text: index for index, text in enumerate(documents)}
        ranked: dict[str, list[str]] = {}
        encoded = scorer.embed(anchors, "query"), scorer.embed(documents, "document")
        for rows, scores in scorer.against(*encoded):
            for anchor, line in zip(anchors[rows], scores, strict=True):
                relevance = {place[text]: 1 for text in self._judged[anchor]}
                ranked[anchor] = [documents[index] for index in top(line, relevance)]
        return ranked

    def _first_is_right(self, ranked: dict[str, list[str]]) -> float:
        return float(np.mean([ranked[anchor][0] in self._judged[anchor] for anchor in self.anchors]))

    def _accuracy(self, scorer: Scorer) -> float:
        """The share of rows whose every positive has a higher score than every negative."""
        texts = [[*positives, *negatives] for positives, negatives in zip(self.positives, self.negatives, strict=True)]
        sizes = [len(each) for each in texts]
        queries = [anchor for anchor, size in zip(self.anchors, sizes, strict=True) for _ in range(size)]
        scores = scorer.pairs(queries, [text for each in texts for text in each], self.roles)
        rows = np.split(scores, np.cumsum(sizes)[:-1])
        right = [row[: len(own)].min() > row[len(own) :].max() for row, own in zip(rows, self.positives, strict=True)]
        return float(np.mean(right))
