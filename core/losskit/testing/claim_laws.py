"""Claims of cards beside what components do, in both directions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..card import Card
from ..clock import Clock
from ..loss import Loss
from ..output import Output
from .changes import generator_of, objective, same, trials, with_other
from .compare import Violation, total
from .law import IN_LOSSES, NotApplicable, law
from .stage import all_rows, prepare
from .subject import Subject

__all__ = ["fixed_dimension", "needs", "reads", "stochastic"]

DRAWINGS = 8
"""That all of them agree by chance is likely only where there is next to nothing to draw from."""
LAYERS = 4
"""Of records that have any, in excess of the first."""


def _claimed(subject: Subject) -> Card:
    if subject.card is None:
        raise NotApplicable("it has no card that could claim anything")
    return subject.card


@law(
    None,
    *IN_LOSSES,
    cause="the card's field `stochastic` was not kept up with `draw`, or torch's own generator is used",
)
def stochastic(subject: Subject) -> None:
    """A loss gives other values of the same records at other steps and seeds just if its card says so."""
    card = _claimed(subject)
    found = list(_drawn_values(subject))
    varies = not all(same(found[0][0], value) for value, _ in found)
    parts = [part for _, part in subject.build().tree()]
    if varies and not (card.stochastic or any(part._has_card and part.card.stochastic for part in parts)):
        message = "the value depends on random numbers, though the card has stochastic=False"
        raise Violation(message, "one value", "several")
    if varies or not card.stochastic:
        return
    draws = any(type(part).draw is not Loss.draw for part in parts)
    if subject.equals is not None or (draws and len({drawn for _, drawn in found}) == 1):
        raise NotApplicable("with these options and data there is nothing to draw")
    message = f"the card has stochastic=True, but {DRAWINGS} drawings from other seeds give one value"
    raise Violation(message, "several values", "one")


def _drawn_values(subject: Subject) -> Iterator[tuple[Tensor, str]]:
    """The value at several times, each with seeds of its own, and what was drawn for it."""
    columns = [_with_layers(column) for column in subject.records(subject.build())]
    before = random.getstate()
    try:
        for number in range(DRAWINGS):
            loss = subject.build()
            loss.set_clock(Clock(seed=number, step=number, progress=0.5))
            if subject.family == "cross-encoder":  # whose pairs are drawn before they are scored
                columns = subject.records(loss)
            loss._draw(True, columns)
            random.seed(number)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                value = total(loss.compute(columns, subject.batch.flat_labels, all_rows(columns))).detach()
            scored = columns[0].embedding if subject.family == "cross-encoder" else None
            yield value, repr([scored, *(part.drawn for _, part in loss.tree())])
    finally:
        random.setstate(before)


def _with_layers(column: Output) -> Output:
    """The record of a deeper encoder, lest there be only one layer to draw."""
    if not column.layers:
        return column
    first, last = column.layers[0], column.layers[-1]
    return replace(column, layers=tuple(torch.lerp(first, last, place / LAYERS) for place in range(LAYERS + 1)))


@law(
    None,
    "loss",
    "wrapper",
    "regularizer",
    "similarity",
    cause="a layer, draw or buffer has the encoder's width, and the card's field `fixed_dimension` does not say so",
)
def fixed_dimension(subject: Subject) -> None:
    """After a forward on whole embeddings a loss works on embeddings cut to half, unless its card says it does not."""
    card = _claimed(subject)
    if subject.family == "cross-encoder":
        raise NotApplicable("scores have no width")
    loss, columns, labels = prepare(subject)
    says = loss.fixed_dimension if subject.kind in ("loss", "wrapper") else card.fixed_dimension
    loss.set_clock(Clock(step=1, progress=0.5))
    total(loss(subject.batch.features(loss), subject.batch.flat_labels))  # state may take its width from the first
    whole = {name for _, part in loss.tree() for name in part.frozen}
    form = subject.form or (loss.formats[0] if loss.formats else None)
    if labels is not None and form is not None and form.labels == "embedding":
        labels = _halved(labels)
    try:
        objective(subject, loss, [_cut(column, whole) for column in columns], labels)
    except Exception as error:
        if not says:
            message = "embeddings cut to half their width are refused, though the card has fixed_dimension=False"
            raise Violation(message, "a value", f"{type(error).__name__}: {error}") from error
        return
    held = [*loss.owned_state().values(), *(part.drawn for _, part in loss.tree() if isinstance(part.drawn, Tensor))]
    if says and not any(loss.encoder.dimension in tensor.shape for tensor in held):
        message = "the card has fixed_dimension=True, but embeddings cut to half their width work, and nothing has it"
        raise Violation(message, "parameters, buffers or draws of that width", "a value and none")


def _cut(record: Output, whole: set[str]) -> Output:
    """The record with half of the width, as Matryoshka cuts it: but for what frozen encoders made."""
    parts = {
        name: _cut(part, whole) if isinstance(part, Output) and name not in whole else part
        for name, part in record.parts.items()
    }
    return replace(record.map_embedding(_halved), layers=tuple(map(_halved, record.layers)), parts=parts)


def _halved(embedding: Tensor) -> Tensor:
    return embedding[..., : embedding.shape[-1] // 2]


@law(
    None,
    "loss",
    "wrapper",
    cause="the card's field `needs` names what is no longer read",
    plain="a plain module cannot ask for anything",
)
def needs(subject: Subject) -> None:
    """What a loss asks encoders for beyond embeddings is read: other numbers there change the value."""
    loss, columns, labels = prepare(subject)
    asked = [need for need in loss.needs if not need.endswith("?")]
    if not asked or subject.equals is not None:
        raise NotApplicable("with these options it needs nothing beyond embeddings")
    for need in asked:
        if not _changes(subject, loss, columns, labels, need):
            message = f"the card needs {need!r}, but other numbers there do not change the value"
            raise Violation(message, "another value", "the same")


@law(None, "loss", "wrapper", cause="`reads` and the encoders in `frozen` or `towers` have different names or columns")
def reads(subject: Subject) -> None:
    """What each further encoder makes of the columns that it reads changes the value, and each of them reads some."""
    loss, columns, labels = prepare(subject)
    names = dict.fromkeys(name for _, part in loss.tree() for name in (*part.frozen, *part.towers))
    if not names:
        raise NotApplicable("it has no encoders beside the one that is trained")
    for name in names:
        read = [index for index, column in enumerate(columns) if name in column.parts]
        if not read:
            raise Violation(f"the encoder {name!r} reads no column", f"reads={{{name!r}: ...}}", f"reads={loss.reads}")
        for index in read:
            if not _changes(subject, loss, columns, labels, name, only=index):
                message = f"what the encoder {name!r} makes of column {index + 1} does not change the value"
                raise Violation(message, "another value", "the same")


def _changes(
    subject: Subject,
    loss: Loss,
    columns: Sequence[Output],
    labels: Tensor | None,
    name: str,
    only: int | None = None,
) -> bool:
    """Whether other values of what goes by a name, in all columns or one, change the value of some trial."""
    generator = generator_of(subject)
    for trial in trials(columns, generator):
        changed = [
            with_other(column, name, generator) if only in (None, index) else column
            for index, column in enumerate(trial)
        ]
        if not same(objective(subject, loss, trial, labels), objective(subject, loss, changed, labels)):
            return True
    return False


LAWS = (stochastic, fixed_dimension, needs, reads)
