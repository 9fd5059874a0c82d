"""Random batches for any format."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..batch import preprocess
from ..card import Format, split_input
from ..loss import Loss
from ..protocols import Features

__all__ = ["CLASSES", "Batch", "random_batch"]

WORDS = [f"word{number}" for number in range(40)]
CLASSES = 3
"""How many classes labels have that are not binary."""
LEVELS = (0.0, 0.5, 0.5, 1.0)
"""Labels are drawn from few values, so that there are ties."""


@dataclass(frozen=True)
class Batch:
    """Texts and labels of a few rows.

    Args:
        columns: per input a list of texts, or of lists of texts.
        inputs: the name of each column, without suffix.
        labels: [rows, ...], or with list columns one tensor per row, or None.
        weights: one per row, or None.
    """

    columns: Sequence[Sequence[Any]]
    inputs: Sequence[str]
    labels: Tensor | Sequence[Tensor] | None = None
    weights: Sequence[float] | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.columns[0])

    @property
    def flat_labels(self) -> Tensor | None:
        """The labels as a loss gets them: those of list columns one after another."""
        if self.labels is None or isinstance(self.labels, Tensor):
            return self.labels
        return torch.cat(list(self.labels))

    def features(self, loss: Loss) -> list[Features]:
        """What `loss.forward` takes."""
        return preprocess(loss, self.columns, inputs=self.inputs, weights=self.weights)

    def take(self, rows: Sequence[int]) -> Batch:
        """Some rows, in that order."""
        labels = self.labels
        if isinstance(labels, Tensor):
            labels = labels[list(rows)]
        elif labels is not None:
            labels = [labels[row] for row in rows]
        return replace(
            self,
            columns=[[column[row] for row in rows] for column in self.columns],
            labels=labels,
            weights=None if self.weights is None else [self.weights[row] for row in rows],
        )


def random_batch(
    form: Format,
    *,
    rows: int = 6,
    negatives: int = 1,
    lists: Sequence[str] = ("documents",),
    weights: bool = False,
    dimension: int = 8,
    seed: int = 0,
) -> Batch:
    """Texts of 1 to 7 words, and labels.

    Args:
        form: the format of the data.
        rows: how many.
        negatives: how many columns an input with `*` gives; one with `+` gives at least one.
        lists: inputs that hold 1 to 4 texts per row.
        weights: whether rows have sample weights.
        dimension: of labels that are embeddings.
        seed: of everything.

    >>> random_batch(Format(["anchor", "positive", "negative*"]), negatives=2).inputs
    ['anchor', 'positive', 'negative', 'negative']
    """
    source = random.Random(seed)
    names = [name for column in form.inputs for name in _expanded(column, negatives)]
    columns = [_column(source, rows, name in lists) for name in names]
    generator = torch.Generator().manual_seed(seed)
    labels = _labels(form.labels, columns, dimension, generator)
    weight = [source.uniform(0.5, 2.0) for _ in range(rows)] if weights else None
    return Batch(columns, names, labels, weight)


def _expanded(column: str, negatives: int) -> list[str]:
    name, suffix = split_input(column)
    count = {"*": negatives, "+": max(1, negatives)}.get(suffix, 1)
    return [name] * count


def _column(source: random.Random, rows: int, listed: bool) -> list[Any]:
    def text() -> str:
        return " ".join(source.choices(WORDS, k=source.randint(1, 7)))

    return [[text() for _ in range(source.randint(1, 4))] if listed else text() for _ in range(rows)]


def _labels(
    kind: str, columns: Sequence[Sequence[Any]], dimension: int, generator: torch.Generator
) -> Tensor | list[Tensor] | None:
    rows = len(columns[0])

    def graded(*shape: int) -> Tensor:
        places = torch.randint(len(LEVELS), shape, generator=generator)
        return torch.tensor(LEVELS, dtype=torch.float64)[places]

    if kind == "none":
        return None
    if kind in ("binary", "class"):
        return torch.arange(rows) % (2 if kind == "binary" else CLASSES)
    if kind == "score":
        return graded(rows)
    if kind == "scores":
        if isinstance(columns[-1][0], str):
            return graded(rows, len(columns) - 1)
        return [graded(len(documents)) for documents in columns[-1]]
    if kind == "margins":
        return torch.randn(rows, len(columns) - 2, generator=generator, dtype=torch.float64)
    if kind == "distribution":
        return torch.rand(rows, CLASSES, generator=generator, dtype=torch.float64).softmax(1)
    return torch.randn(rows, dimension, generator=generator, dtype=torch.float64)
