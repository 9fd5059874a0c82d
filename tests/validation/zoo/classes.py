"""Losses on single texts with a class: one keeps every law, the others miss one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output


class ClassPairs(Loss):
    """Wants texts of a class nearer than texts of two classes.

    Args:
        model: an encoder that embeds.
        scale: factor of the similarities.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text"], labels="class")],
        encoders=["dense"],
        row_wise=False,
        memory="B^2",
        formula="mean over pairs of one class of softplus(-scale s) + mean over the others of softplus(scale s)",
    )

    def __init__(self, model: Any = None, scale: float = 2.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The loss of all texts."""
        assert labels is not None
        scores = self.scale * self.matrix(columns[0], columns[0])
        classes = labels.flatten()
        same = classes[:, None] == classes
        others = torch.ones_like(same).triu(1)
        softplus = torch.nn.functional.softplus
        return self.mean(softplus(-scores), same & others) + self.mean(softplus(scores), ~same & others)

    def mean(self, values: Tensor, where: Tensor) -> Tensor:
        """Of the values where the mask is true; 0 where it never is."""
        return values.where(where, 0.0).sum() / where.sum().clamp(min=1)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """One text has nothing to be compared with."""
        return "" if rows > 1 else "one text has nothing to be compared with"


class MeanOfNothing(ClassPairs):
    """Wants texts of a class nearer than texts of two classes: divides by how many pairs of a kind there are."""

    def mean(self, values: Tensor, where: Tensor) -> Tensor:
        return values.where(where, 0.0).sum() / where.sum()


class SumsPairs(ClassPairs):
    """Wants texts of a class nearer than texts of two classes: sums over pairs."""

    def mean(self, values: Tensor, where: Tensor) -> Tensor:
        return values.where(where, 0.0).sum()


class FirstOfClass(ClassPairs):
    """Wants texts of a class nearer than texts of two classes: those of the batch's first class alone."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        assert labels is not None
        return super().compute(columns, (labels == labels.flatten()[0]).long(), rows)
