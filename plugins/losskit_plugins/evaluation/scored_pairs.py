"""Pairs of texts with a score: does similarity order them as the scores do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import spearmanr

from losskit.errors import DataError

from .scoring import Scorer

__all__ = ["ScoredPairs"]


@dataclass(frozen=True)
class ScoredPairs:
    """Rank correlation of similarity and score.

    Args:
        first: n texts.
        second: n texts.
        scores: n of them, higher for nearer.

    Raises:
        DataError: all scores are equal.
    """

    metrics: ClassVar[tuple[str, ...]] = ("spearman",)
    roles: ClassVar[tuple[str, str]] = ("text", "text")
    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]

    def __post_init__(self) -> None:
        if len(set(self.scores)) < 2:
            raise DataError("scores of the evaluation data", expected="different ones", got="one value")

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Whatever the encoder."""
        return self.metrics

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """Spearman's rank correlation; 0 where the encoder gives all pairs one score."""
        found = scorer.pairs(self.first, self.second, self.roles)
        return {"spearman": 0.0 if np.ptp(found) == 0 else float(spearmanr(found, self.scores).statistic)}
