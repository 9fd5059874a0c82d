"""The loss stage as laws call it: a loss that is ready, its records as leaves, and the result of all rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import LossError
from ..loss import Loss
from ..output import Output
from .batches import Batch
from .compare import Result, Violation, differentiate
from .subject import Subject, as_leaf

__all__ = ["all_rows", "cast_records", "leaves_of", "prepare", "require_finite", "whole_result"]


def prepare(subject: Subject, batch: Batch | None = None) -> tuple[Loss, list[Output], Tensor | None]:
    """A loss with its draws made, leaves for records, and labels; of the subject's batch, or of another."""
    batch = batch or subject.batch
    loss = subject.build()
    columns = subject.records(loss, batch)
    loss._draw(False, columns)
    return loss, columns, batch.flat_labels


def all_rows(columns: Sequence[Output]) -> slice:
    """All tuples of a batch."""
    return slice(0, columns[0].tuples)


def leaves_of(columns: Sequence[Output], loss: Loss) -> list[Tensor]:
    """What the stage differentiates by: the records, and what the loss owns."""
    owned = dict.fromkeys(loss.parameters()).keys() - set(loss.model.parameters())
    records = [tensor for column in columns for tensor in column.tensors() if tensor.requires_grad]
    return records + [parameter for parameter in loss.parameters() if parameter in owned]


def whole_result(loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> Result:
    """Value and gradients of the stage on all rows."""
    return differentiate(loss.compute(columns, labels, all_rows(columns)), leaves_of(columns, loss))


def cast_records(column: Output, dtype: torch.dtype) -> Output:
    """A record's floating numbers in another type, as leaves."""
    return column.map(lambda tensor: as_leaf(tensor.to(dtype) if tensor.is_floating_point() else tensor))


def require_finite(name: str, loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> None:
    """Raise unless value and gradients are finite; a batch that is refused by name is as good."""
    try:
        found = whole_result(loss, columns, labels)
    except LossError:
        return
    except Violation as violation:
        raise Violation(f"{name}: {violation}", violation.expected, violation.got) from None
    for what, tensors in (("value", [found.value]), ("gradient", found.gradients)):
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise Violation(f"{name}: the {what} is not finite", "finite numbers", "NaN or infinity")
