"""Ranking metrics: the best documents of each query, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import ir_measures
import numpy as np
from numpy.typing import NDArray

from losskit.errors import DataError

__all__ = [
    "LARGEST_LABEL",
    "MEASURES",
    "TOP",
    "exponential_gain",
    "mean_ndcg",
    "mean_reciprocal_rank",
    "measure",
    "top",
]

TOP = 10
MEASURES = {
    "ndcg@10": ir_measures.nDCG @ TOP,
    "mrr@10": ir_measures.RR @ TOP,
    "recall@10": ir_measures.R @ TOP,
}


LARGEST_LABEL = 1000
"""The highest label whose exponential gain a float holds, also ten of them."""


def top(scores: NDArray[np.float32], relevance: Mapping[int, float], count: int = TOP) -> list[int]:
    """The places of the highest scores, best first.

    Of equal scores the less relevant comes first, then the one that stands first; so the result is determined, and
    an encoder that gives everything one score gains nothing by the order of the documents.

    Args:
        scores: [documents].
        relevance: of some places; others have 0.
        count: how many.

    >>> top(np.array([0.5, 0.9, 0.5, 0.5], np.float32), {0: 1}, count=3)
    [1, 2, 3]
    """
    count = min(count, len(scores))
    if not count:
        return []
    places = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    worth = np.array([relevance.get(int(place), 0) for place in places])
    order = np.lexsort((places, worth, -scores[places]))
    return [int(place) for place in places[order][:count]]


def measure(
    names: Sequence[str], judged: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Means over the judged queries, by `ir_measures`.

    Args:
        names: of `MEASURES`.
        judged: query id to document id to relevance.
        ranked: query id to document ids, best first.
    """
    if not names:
        return {}
    run = {
        query: {document: float(len(documents) - place) for place, document in enumerate(documents)}
        for query, documents in ranked.items()
    }
    found = ir_measures.calc_aggregate([MEASURES[name] for name in names], judged, run)
    return {name: float(found[MEASURES[name]]) for name in names}


def exponential_gain(relevance: float) -> float:
    """2^relevance - 1: the gain of graded labels in learning to rank.

    >>> exponential_gain(3.0)
    7.0
    """
    return math.exp2(relevance) - 1


def mean_ndcg(
    lists: Sequence[Sequence[float]], count: int = TOP, gain: Callable[[float], float] = lambda relevance: relevance
) -> float:
    """Mean over lists of sum_r gain(rel_r) / log2(r + 1), over the first `count`, divided by its highest value.

    Unlike `measure` it takes relevances that are no integers. Lists without anything relevant are left out.

    Args:
        lists: per query the relevances as ranked, best first.
        count: how deep.
        gain: of a relevance.

    >>> round(mean_ndcg([[0.0, 1.0]]), 4)
    0.6309
    """

    def dcg(relevances: Sequence[float]) -> float:
        return sum(gain(value) / math.log2(rank + 1) for rank, value in enumerate(relevances[:count], start=1))

    return float(np.mean([dcg(each) / dcg(sorted(each, reverse=True)) for each in _relevant(lists)]))


def mean_reciprocal_rank(lists: Sequence[Sequence[float]], count: int = TOP) -> float:
    """Mean over lists of 1 / the rank of the first relevant document, 0 where none is among the first `count`.

    Lists without anything relevant are left out.

    >>> mean_reciprocal_rank([[0.0, 1.0], [2.0, 0.0]])
    0.75
    """
    ranks = [next((rank for rank, value in enumerate(each, start=1) if value > 0), 0) for each in _relevant(lists)]
    return float(np.mean([1 / rank if 0 < rank <= count else 0.0 for rank in ranks]))


def _relevant(lists: Sequence[Sequence[float]]) -> Iterator[Sequence[float]]:
    found = [each for each in lists if max(each, default=0) > 0]
    if not found:
        raise DataError("evaluation lists", expected="a document with a label above 0", got="none")
    yield from found
