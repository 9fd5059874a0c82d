"""Candidates: the documents that an encoder holds nearest to each query, as lists to rerank or to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from losskit import Encoder
from losskit.errors import DataError
from losskit_plugins.evaluation.ranking import top
from losskit_plugins.evaluation.scoring import Scorer

__all__ = ["candidates", "labelled_lists"]


def candidates(
    encoder: Encoder,
    queries: Sequence[str],
    corpus: Sequence[str],
    k: int,
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> list[list[int]]:
    """The places in the corpus of the k documents of the highest similarity to each query, best first.

    Every text is encoded once, in its role. Similarities are held for a block of queries at a time; of equal ones
    the document that stands first in the corpus comes first.

    Args:
        encoder: of a family that embeds.
        queries: n texts.
        corpus: the documents.
        k: how many to find; of a smaller corpus all.
        batch_size: texts per forward.
        progress: show bars.

    Returns:
        n lists.

    Raises:
        DataError: a cross-encoder, which would have to score every query with every document; no documents, or
            k below 1.
    """
    if not corpus:
        raise DataError("the corpus", expected="documents", got="none")
    if k < 1:
        raise DataError("k", expected="1 or more", got=str(k))
    scorer = Scorer(encoder, batch_size, progress)
    if not scorer.embeds:
        raise DataError(
            "candidates from a corpus", expected="an encoder that embeds", got="a cross-encoder",
            fix="find candidates with an encoder that embeds, and rerank those",
        )  # fmt: skip
    documents = scorer.embed(corpus, "document")
    blocks = scorer.against(scorer.embed(queries, "query"), documents)
    return [top(line, {}, k) for _, scores in blocks for line in scores]


def labelled_lists(
    queries: Sequence[str],
    corpus: Sequence[str],
    found: Sequence[Sequence[int]],
    relevant: Sequence[Mapping[int, float]],
    *,
    keep_relevant: bool,
) -> Iterator[dict[str, Any]]:
    """Rows {query, documents, labels} of candidates, labelled with their relevance.

    Args:
        queries: n texts.
        corpus: the documents.
        found: n lists of places in the corpus, best first.
        relevant: n maps of place to relevance; other places have 0.
        keep_relevant: for training: relevant documents that were not found take the places of the last ones that
            are not relevant, so a list grows only where more are relevant than were found. For evaluation False:
            a list holds what was found, whatever that is.

    >>> corpus = ["far", "near", "nearer"]
    >>> list(labelled_lists(["query"], corpus, [[2, 1]], [{0: 1}], keep_relevant=True))
    [{'query': 'query', 'documents': ['nearer', 'far'], 'labels': [0, 1]}]
    """
    for query, places, labels in zip(queries, found, relevant, strict=True):
        chosen = _with_relevant(places, labels) if keep_relevant else places
        yield {
            "query": query,
            "documents": [corpus[place] for place in chosen],
            "labels": [labels.get(place, 0) for place in chosen],
        }


def _with_relevant(places: Sequence[int], labels: Mapping[int, float]) -> list[int]:
    """As many places, relevant ones among them whatever was found, in the order found and then of the labels."""
    missed = [place for place, label in labels.items() if label > 0 and place not in places]
    others = [place for place in places if labels.get(place, 0) <= 0]
    kept = set(others[: max(0, len(others) - len(missed))])
    return [place for place in places if place in kept or labels.get(place, 0) > 0] + missed
