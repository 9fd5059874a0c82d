"""Laws of use: inputs, labels and sample weights that a loss asks for matter, each at its own row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..card import split_input
from ..errors import LossError
from ..further import columns_read
from ..loss import Loss
from ..output import Output
from .changes import (
    TRIALS,
    constants,
    generator_of,
    named,
    numbers,
    objective,
    places,
    require_rows,
    same,
    trials,
    with_items,
    with_weight,
)
from .compare import Violation
from .law import NotApplicable, law
from .stage import prepare
from .subject import Subject

__all__ = ["inputs_used", "labels_used", "weights_used"]


@law(
    None,
    "loss",
    "wrapper",
    "regularizer",
    "similarity",
    cause="columns are picked by a fixed place, such as the first negative alone, or detached",
)
def inputs_used(subject: Subject) -> None:
    """Every column that is encoded for the loss changes its value, and gets a gradient: each further negative too."""
    require_rows(subject)
    subject = _with_negatives(subject)
    loss, columns, labels = prepare(subject)
    generator = generator_of(subject)
    first, *random = trials(columns, generator)
    reached = [_reached(subject, loss, trial, labels) for trial in (first, *random)]
    for index in _read(subject, loss, len(columns)):
        for place, items in places(columns[index]).items():
            if any(gradients[index][items].any() for gradients in reached):
                continue
            which = f"text {place + 1} of the lists of " if columns[index].lists else ""
            name = which + named(subject, columns, index)
            if not _matters(subject, loss, random, labels, index, items):
                raise Violation(f"{name} does not change the value", "another value", "the same")
            raise Violation(f"no gradient reaches {name}, which changes the value", "a gradient", "zeros")


def _with_negatives(subject: Subject) -> Subject:
    """The subject with two columns of an input that may have any number."""
    form = subject.form or next(iter(subject.build().formats))
    starred = split_input(form.inputs[-1])[1] in ("*", "+")
    return replace(subject, negatives=max(2, subject.negatives)) if starred else subject


def _read(subject: Subject, loss: Loss, columns: int) -> list[int]:
    """The places of columns that a trained encoder reads for the loss; regularizers need not ask for queries."""
    if subject.kind == "regularizer":
        return [1]
    names = ["model", *(name for _, part in loss.tree() for name in part.towers)]
    return sorted({index for name in names for index in columns_read([loss], name, columns)})


def _reached(subject: Subject, loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> list[Tensor]:
    """Which items of each column get a gradient."""
    value = objective(subject, loss, columns, labels)
    without = constants(loss)
    leaves = [[tensor for _, tensor in numbers(column, without)] for column in columns]
    flat = [tensor for group in leaves for tensor in group]
    if not value.requires_grad:
        raise Violation("the loss is not connected to its inputs", "a value with a gradient", "a constant")
    found = iter(torch.autograd.grad(value, flat, allow_unused=True, materialize_grads=True))
    items = [column.items for column in columns]
    return [
        torch.stack([next(found).reshape(count, -1).ne(0).any(1) for _ in group] or [torch.zeros(count).bool()]).any(0)
        for count, group in zip(items, leaves, strict=True)
    ]


def _matters(
    subject: Subject,
    loss: Loss,
    trials: Sequence[Sequence[Output]],
    labels: Tensor | None,
    index: int,
    items: Sequence[int],
) -> bool:
    """Whether other numbers of some items of a column change the value of some trial."""
    for trial, other in zip(trials, [*trials[1:], trials[0]], strict=True):
        changed = list(trial)
        changed[index] = with_items(trial[index], other[index], items)
        if not same(objective(subject, loss, trial, labels), objective(subject, loss, changed, labels)):
            return True
    return False


@law(
    None,
    "loss",
    "wrapper",
    cause="labels are not read, or of shape [n] are broadcast against scores of shape [n, 1], to all pairs of rows",
)
def labels_used(subject: Subject) -> None:
    """Labels matter, and belong to their rows: exchanged between rows, or among a row's documents, they change it."""
    require_rows(subject)
    loss, columns, labels = prepare(subject)
    if labels is None:
        raise NotApplicable("its data have no labels")
    generator = generator_of(subject)
    tried = list(trials(columns, generator, TRIALS - 1))
    for what, exchanged in _exchanged(labels):
        if not any(_differs(subject, loss, trial, labels, other) for trial in tried for other in exchanged):
            zeros = any(_differs(subject, loss, trial, labels, torch.zeros_like(labels)) for trial in tried)
            message = f"labels exchanged between {what} do not change the value"
            message += "" if zeros else ", nor do labels of 0"
            raise Violation(message, "another value", "the same")


def _exchanged(labels: Tensor) -> Iterator[tuple[str, list[Tensor]]]:
    """Other orders of labels, a few lest classes only change their names."""
    rows = len(labels)
    swapped = [1, 0, *range(2, rows)]
    yield "rows", [labels.roll(1, 0), labels.roll(2, 0), labels.flip(0), labels[swapped]]
    if labels.ndim == 2 and labels.shape[1] > 1:
        yield "the columns of a row", [labels.roll(1, 1), labels.flip(1)]


def _differs(subject: Subject, loss: Loss, columns: Sequence[Output], labels: Tensor, other: Tensor) -> bool:
    """Whether other labels give another value, or are refused."""
    try:
        loss.check_idle(columns[0].tuples, len(columns), other, columns[-1].lists)
        return not same(
            objective(subject, loss, columns, labels).detach(), objective(subject, loss, columns, other).detach()
        )
    except LossError:
        return True


@law(
    None,
    "loss",
    "wrapper",
    cause="weights are left out of a mean, or divide it too",
    plain="sample weights do not reach a plain module",
)
def weights_used(subject: Subject) -> None:
    """Sample weights count as factors of their rows' losses, and 1 as none; a loss without them refuses them."""
    require_rows(subject)
    loss, columns, labels = prepare(replace(subject, weights=False))
    if not loss.takes_weights:
        weighted = replace(subject, weights=True).batch
        try:
            loss(weighted.features(loss), weighted.flat_labels)
        except LossError:
            return
        raise Violation("sample weights are taken by a loss that says it cannot use them", "a LossError", "a value")
    generator = generator_of(subject)
    a, b = (torch.rand(columns[0].tuples, generator=generator, dtype=torch.float64) for _ in range(2))

    def weighted_by(weight: Tensor) -> Tensor:
        return objective(subject, loss, [with_weight(columns[0], weight), *columns[1:]], labels).detach()

    plain, ones = objective(subject, loss, columns, labels).detach(), weighted_by(torch.ones_like(a))
    if not same(plain, ones):
        raise Violation("sample weights of 1 change the value", f"{float(plain):.12g}", f"{float(ones):.12g}")
    if same(weighted_by(a), weighted_by(a.roll(1))) and same(weighted_by(a), weighted_by(a.flip(0))):
        raise Violation("sample weights exchanged between rows do not change the value", "another value", "the same")
    apart, together = weighted_by(a) + weighted_by(b), weighted_by(a + b) + weighted_by(torch.zeros_like(a))
    if not same(apart, together):
        message = "the value is not linear in the sample weights: that of the sum of two is not the sum of theirs"
        raise Violation(message, f"{float(apart):.12g}", f"{float(together):.12g}")


LAWS = (inputs_used, labels_used, weights_used)
