"""`Collator`: rows to what a loss's forward takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Loss
from losskit.batch import preprocess
from losskit.errors import DataError

from .columns import Match, match

__all__ = ["Collator"]

INTEGERS = ("binary", "class")


class Collator:
    """Checks the values of a batch, tokenises its columns and makes its labels a tensor, on the CPU.

    It can be pickled, so it works in the workers of a DataLoader.

    Args:
        loss: whose encoder tokenises.
        matched: which column is which input; None: by the names in the loss's card, from the first batch on.
        prompts: put before the texts, by the card's input or by role.
    """

    def __init__(self, loss: Loss, matched: Match | None = None, *, prompts: Mapping[str, str] | None = None) -> None:
        self.loss = loss
        self.matched = matched
        self.prompts = dict(prompts or {})

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch.

        Args:
            rows: each by the data's column names.

        Returns:
            `inputs`, one Features per column (for a cross-encoder one of pairs), and `labels`: [n] integers for
            binary and class, [n] floats for score, [N] floats for all scores of the lists one after another,
            [n, ...] for vectors; None without.

        Raises:
            DataError: columns that do not fit, or a value that is missing, of the wrong type or not finite.
        """
        if self.matched is None:
            self.matched = match(list(rows[0]), self.loss.formats, loss=type(self.loss).__name__, sample=rows[:1])
        found = self.matched
        checked = [found.row(row, f"row {index} of a batch") for index, row in enumerate(rows, start=1)]
        columns = [[row[column.data] for row in checked] for column in found.columns]
        weights = None if found.weight is None else [row[found.weight] for row in checked]
        inputs = preprocess(self.loss, columns, inputs=found.inputs, prompts=self.prompts, weights=weights)
        labels = _labels(found, checked)
        if not self.loss.execution.gather:  # else other processes' rows count too
            self.loss.check_idle(len(rows), len(columns), labels, inputs[-1].get("lists"))
        return {"inputs": inputs, "labels": labels}


def _labels(found: Match, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
    label = found.label
    if label is None:
        return None
    try:
        values = [label.final(row[label.data]) for row in rows]
    except ValueError as error:
        raise DataError(f"{found.where}, column {label.data!r}", expected=str(error), got="another value") from None
    if label.kind == "scores":
        values = [score for scores in values for score in scores]
    try:
        return torch.tensor(values, dtype=torch.int64 if label.kind in INTEGERS else torch.float32)
    except (ValueError, TypeError):
        shapes = dict.fromkeys(str(list(torch.tensor(value).shape)) for value in values)
        raise DataError(
            f"{found.where}, column {label.data!r}",
            expected=f"{label.kind} of one length in a batch",
            got=f"shapes {' and '.join(shapes)}",
        ) from None
