"""Texts with a class: is the nearest other text of the same one?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from losskit.errors import DataError

from .scoring import Scorer

__all__ = ["ClassedTexts"]


@dataclass(frozen=True)
class ClassedTexts:
    """Leave-one-out classification by the nearest neighbour.

    Args:
        texts: n texts.
        classes: n names.

    Raises:
        DataError: fewer than two classes, or none with two texts.
    """

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    roles: ClassVar[tuple[str, str]] = ("text", "text")
    texts: Sequence[str]
    classes: Sequence[str]

    def __post_init__(self) -> None:
        sizes = Counter(self.classes)
        if len(sizes) < 2 or max(sizes.values()) < 2:
            raise DataError(
                "classes of the evaluation data",
                expected="two or more, with two texts in one of them",
                got=f"{len(sizes)}, the largest with {max(sizes.values(), default=0)}",
            )

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """Whatever the encoder."""
        return self.metrics

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """The share of texts whose nearest other text has their class; equally near ones must all have it.

        Raises:
            DataError: a cross-encoder, which embeds no text.
        """
        if not scorer.embeds:
            raise DataError("evaluation of a cross-encoder on classes", expected="an encoder that embeds texts")
        embedded = scorer.embed(self.texts, "text")
        classes = np.asarray(self.classes)
        right = 0
        for rows, scores in scorer.against(embedded, embedded):
            own = np.arange(rows.start, rows.stop)
            scores[np.arange(len(own)), own] = -np.inf
            others = classes[None] != classes[own, None]
            right += int((~(others & (scores == scores.max(axis=1, keepdims=True))).any(axis=1)).sum())
        return {"accuracy": right / len(self.texts)}
