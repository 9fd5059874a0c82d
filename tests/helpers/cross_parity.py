"""Parity of losses on scores: logits in, value and gradient of the logits out, in both libraries.

    from functools import partial
    from cross_parity import lists, require_cross_equal

    require_cross_equal(partial(original.LambdaLoss, k=2), partial(LambdaLoss, k=2), lists([1, 0, 2], [0, 1]))

A loss is given as what makes it of a model. The texts of a batch are numbers, and the model is a table of logits:
query "3" and document "5" have the logit in row 3, column 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from losskit.testing import Result, differentiate, require_equal
from losskit.testing.compare import TOLERANCE

FLOAT32 = 1e-5


@dataclass(frozen=True)
class Batch:
    """Columns of numbers as texts, the labels, and the logits [queries, documents] or [queries, documents, classes]."""

    columns: tuple[list[Any], ...]
    labels: Tensor | list[Tensor] | None
    logits: Tensor


def draw_logits(*shape: int, spread: float = 2.0) -> Tensor:
    """Random logits in float64, the same each time."""
    generator = torch.Generator().manual_seed(sum(shape))
    return spread * torch.randn(*shape, generator=generator, dtype=torch.float64)


def lists(*labels: Sequence[float], logits: Tensor | None = None) -> Batch:
    """A query for each list of labels, with as many documents."""
    longest = max(map(len, labels))
    documents = [[str(place) for place in range(len(row))] for row in labels]
    tensors = [torch.tensor(row, dtype=torch.float64) for row in labels]
    drawn = draw_logits(len(labels), longest) if logits is None else logits
    return Batch((_numbers(len(labels)), documents), tensors, drawn)


def pairs(labels: Tensor | Sequence[float], *, classes: int = 1, logits: Tensor | None = None) -> Batch:
    """A query with one document for each label."""
    rows = len(labels)
    shape = (rows, rows) if classes == 1 else (rows, rows, classes)
    drawn = draw_logits(*shape) if logits is None else logits
    return Batch((_numbers(rows), _numbers(rows)), _labels(labels), drawn)


def tuples(
    rows: int, negatives: int = 0, labels: Tensor | Sequence[Any] | None = None, *, logits: Tensor | None = None
) -> Batch:
    """Query, positive and negatives, all documents of the batch different: row i of column k holds k * rows + i."""
    columns = [[str(place * rows + row) for row in range(rows)] for place in range(1 + negatives)]
    drawn = draw_logits(rows, rows * (1 + negatives)) if logits is None else logits
    return Batch((_numbers(rows), *columns), None if labels is None else _labels(labels), drawn)


class Table(nn.Module):
    """A cross-encoder that looks its logits up. `asked` keeps the pairs of each forward."""

    family, similarity, dimension, normalized = "cross-encoder", "", None, False
    device = torch.device("cpu")
    num_labels = 1

    def __init__(self, logits: Tensor) -> None:
        nn.Module.__init__(self)
        self.logits = nn.Parameter(logits.clone())
        self.num_labels = 1 if logits.ndim == 2 else logits.shape[2]
        self.asked: list[list[list[int]]] = []

    def preprocess(self, texts, *, role="text", prompt=None, task=None):
        """The numbers of n pairs."""
        return {"numbers": torch.tensor([[int(query), int(document)] for query, document in texts])}

    def forward(self, features, **_):
        """The logits of n pairs, [n, classes]."""
        queries, documents = features["numbers"].unbind(1)
        self.asked.append(features["numbers"].tolist())
        found = self.logits[queries, documents]
        return {"scores": found[:, None] if found.ndim == 1 else found}


@cache
def incumbent_table() -> type[Table]:
    """The table as a subclass of the incumbent's CrossEncoder, which some of its losses insist on."""
    library = pytest.importorskip("sentence_transformers")

    class IncumbentTable(Table, library.CrossEncoder):
        """Nothing of a CrossEncoder but its type."""

    return IncumbentTable


@contextmanager
def in_double() -> Iterator[None]:
    """The incumbent's listwise losses cast to float32; in here they compute in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(Tensor, "float", Tensor.double):
            yield
    finally:
        torch.set_default_dtype(before)


def theirs_on(make: Callable[[Any], Any], batch: Batch, *, double: bool = True) -> Result:
    """The incumbent's loss of a batch with the gradient of the logits; `double`: wholly in float64."""
    with in_double() if double else nullcontext():
        return _run(make, incumbent_table()(batch.logits), batch)


def ours_on(make: Callable[[Any], Any], batch: Batch) -> Result:
    """Our loss of a batch with the gradient of the logits."""
    return _run(make, Table(batch.logits), batch)


def require_cross_equal(
    theirs: Callable[[Any], Any], ours: Callable[[Any], Any], batch: Batch, *, tolerance: float = TOLERANCE
) -> None:
    """Both give the same value and the same gradient in float64, and as the original computes it, to 1e-5.

    Args:
        theirs: makes the incumbent's loss of a model.
        ours: makes ours.
        batch: of `lists`, `pairs` or `tuples`.
        tolerance: of the comparison in float64.
    """
    expected, got = theirs_on(theirs, batch), ours_on(ours, batch)
    require_equal("in float64", expected, got, tolerance)
    require_equal("as the original computes", theirs_on(theirs, batch, double=False), got, max(tolerance, FLOAT32))


def require_cross_as_near(theirs: Callable[[Any], Any], ours: Callable[[Any], Any], batch: Batch) -> None:
    """In float32 ours is no farther from the truth in float64 than 1.5 times the original, or 1e-5."""
    truth = ours_on(ours, replace(batch, logits=batch.logits.float().double())).gradients[0]
    labels = (
        batch.labels.float() if isinstance(batch.labels, Tensor) and batch.labels.is_floating_point() else batch.labels
    )
    single = replace(batch, labels=labels, logits=batch.logits.float())
    errors = []
    for found in (theirs_on(theirs, single, double=False), ours_on(ours, single)):
        errors.append(float((found.gradients[0] - truth).abs().max() / truth.abs().max()))
    assert errors[1] <= max(1.5 * errors[0], FLOAT32), errors


def _run(make: Callable[[Any], Any], model: Table, batch: Batch) -> Result:
    columns = [list(column) for column in batch.columns]  # the incumbent's cached loss appends to them
    return differentiate(make(model)(columns, batch.labels), [model.logits])


def _labels(labels: Tensor | Sequence[Any]) -> Tensor:
    """In float64 unless they are classes."""
    labels = torch.as_tensor(labels)
    return labels.double() if labels.is_floating_point() else labels


def _numbers(count: int) -> list[str]:
    return [str(row) for row in range(count)]
