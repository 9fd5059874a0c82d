"""Wrappers around any loss: one keeps every law, the others miss one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from losskit import Card, Execution, Loss, Output, Wrapper
from losskit.loss import Value
from losskit.wrapper import prefixed


class Scaled(Wrapper):
    """Multiplies a loss by a number.

    Args:
        model: the encoder.
        loss: any loss.
        factor: of the loss.
        execution: how records come about.
    """

    card = Card(encoders=["dense"], formula="factor loss")

    def __init__(self, model: Any, loss: Loss, factor: float = 0.5, *, execution: Execution | None = None) -> None:
        super().__init__(model, loss, execution=execution)
        self.factor = factor

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The inner loss times the factor, under its own names."""
        value = self.loss.compute(columns, labels, rows)
        return {key: self.factor * each for key, each in prefixed("scaled", value).items()}

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """That of the inner loss."""
        inner = super().denominator(columns, labels, rows)
        return prefixed("scaled", inner) if isinstance(inner, dict) else inner


class ClaimsRowWise(Scaled):
    """Multiplies a loss by a number: cuts the batch into rows whatever the loss is."""

    @property
    def row_wise(self) -> bool:
        return True


class DetachesFirst(Scaled):
    """Multiplies a loss by a number: the first column learns nothing."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        return super().compute([columns[0].map(Tensor.detach), *columns[1:]], labels, rows)


class DropsNegatives(Scaled):
    """Multiplies a loss by a number: hands on two columns."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        return super().compute(columns[:2], labels, rows)


class ScalesRecords(Scaled):
    """Multiplies a loss by a number, and the records of the caller too."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        scaled = [column.map_embedding(lambda each: each.data.mul_(2) * 0 + each) for column in columns]
        return super().compute(scaled, labels, rows)
