"""Retrieval: every query against the whole corpus of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from losskit.errors import DataError
from losskit_plugins.data.beir import Collection

from .ranking import MEASURES, measure, top
from .scoring import Scorer

__all__ = ["Retrieval"]


@dataclass(frozen=True)
class Retrieval:
    """nDCG, reciprocal rank and recall over the ten nearest documents of each query."""

    metrics: ClassVar[tuple[str, ...]] = tuple(MEASURES)
    roles: ClassVar[tuple[str, str]] = ("query", "document")
    collection: Collection

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Whatever the encoder."""
        return self.metrics

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """Corpus and queries are encoded once, each in its role.

        Raises:
            DataError: a cross-encoder, which would have to score every query with every document.
        """
        found = self.collection
        if not scorer.embeds:
            raise DataError(
                "retrieval from a corpus", expected="an encoder that embeds", got="a cross-encoder",
                fix="evaluate it on lists (query, documents, scores)",
            )  # fmt: skip
        documents, queries = list(found.corpus), list(found.queries)
        place = {name: index for index, name in enumerate(documents)}
        corpus = scorer.embed(list(found.corpus.values()), "document")
        ranked: dict[str, list[str]] = {}
        for rows, scores in scorer.against(scorer.embed(list(found.queries.values()), "query"), corpus):
            for query, line in zip(queries[rows], scores, strict=True):
                relevance = {place[name]: value for name, value in found.qrels[query].items()}
                ranked[query] = [documents[index] for index in top(line, relevance)]
        return measure(names, found.qrels, ranked)
