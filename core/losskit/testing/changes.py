"""Records changed on purpose, and what a loss makes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..loss import Loss
from ..math.lists import tuple_index
from ..output import Output, Tokens
from .compare import total
from .law import NotApplicable
from .stage import all_rows
from .subject import Subject, as_leaf

__all__ = [
    "constants",
    "generator_of",
    "named",
    "numbers",
    "objective",
    "others",
    "owned",
    "places",
    "require_rows",
    "same",
    "shaken",
    "trials",
    "tuples_of",
    "with_items",
    "with_other",
    "with_weight",
]

ROUNDING = 1e-10
"""Relative: values that differ by less are the same, summed in another order."""
ROWS = 4
"""With fewer rows, rows that are exchanged or left out may well make no difference."""
TRIALS = 4
"""Random records; with a margin some may lie where nothing changes the loss."""
POSITIONS = 4
"""How many of the first texts of each list are looked at by themselves."""


def generator_of(subject: Subject) -> torch.Generator:
    """A generator that gives the same numbers each time."""
    return torch.Generator().manual_seed(subject.seed)


def require_rows(subject: Subject) -> None:
    """Say that a law does not apply where there are too few rows to exchange.

    Raises:
        NotApplicable: there are.
    """
    if subject.rows < ROWS:
        raise NotApplicable(f"it takes {ROWS} rows or more")


def objective(subject: Subject, loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> Tensor:
    """The value of the loss stage; what it draws from torch's own generator is the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        return total(loss.compute(columns, labels, all_rows(columns)))


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two values are equal up to rounding.

    >>> same(torch.tensor(1.0), torch.tensor(1.0)), same(torch.tensor(1.0), torch.tensor(1.001))
    (True, False)
    """
    return bool((a - b).abs() <= ROUNDING * torch.maximum(a.abs(), b.abs()))


def others(column: Output, generator: torch.Generator) -> Output:
    """A record of other numbers of the same form: random, and not negative where those were not."""

    def drawn(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        made = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        return as_leaf(made.abs() if (tensor >= 0).all() else made)

    return column.map(drawn)


def trials(columns: Sequence[Output], generator: torch.Generator, count: int = TRIALS) -> Iterator[list[Output]]:
    """The records, then random ones in their stead."""
    yield list(columns)
    for _ in range(count):
        yield [others(column, generator) for column in columns]


def shaken(column: Output, generator: torch.Generator) -> Output:
    """The record near by where no two numbers are the same and none is 0, for kinks lie at ties and zeros."""

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return as_leaf(tensor.detach() + 0.05 + 0.1 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))

    return column.map(moved)


def with_items(column: Output, other: Output, items: Sequence[int]) -> Output:
    """The record with some items of another."""
    index = torch.tensor(items)
    return column.map(lambda own, new: own.detach().index_copy(0, index, new.detach().index_select(0, index)), other)


def with_other(column: Output, name: str, generator: torch.Generator) -> Output:
    """The record with other values of its layers, or of a part."""
    if name == "layers":
        return replace(column, layers=shaken(Output(None, layers=column.layers), generator).layers)
    part = column.parts.get(name)
    if part is None:
        return column
    if isinstance(part, Output):
        new: Any = others(part, generator)
    elif isinstance(part, Tokens):
        new = _other_tokens(part, generator)
    else:
        new = others(Output(part), generator).embedding
    return replace(column, parts={**column.parts, name: new})


def _other_tokens(tokens: Tokens, generator: torch.Generator) -> Tokens:
    """Tokens of other places and other rows, of which every second row has one less."""
    values = tokens.values[:, torch.randperm(tokens.values.shape[1], generator=generator)].roll(1, 0)
    last = tokens.mask & (tokens.mask.cumsum(1) == tokens.mask.sum(1, keepdim=True))
    last[::2] = False
    mask = tokens.mask & ~last
    return replace(tokens, values=values.where(mask, tokens.fill), mask=mask)


def places(column: Output) -> dict[int, list[int]]:
    """The items that stand first, second, ... in the lists of a record; without lists all stand first.

    >>> places(Output(torch.zeros(3, 2), lists=(2, 1)))
    {0: [0, 2], 1: [1]}
    """
    if column.lists is None:
        return {0: list(range(column.items))}
    starts = accumulate(column.lists[:-1], initial=0)
    found: dict[int, list[int]] = {}
    for start, count in zip(starts, column.lists, strict=True):
        for place in range(min(count, POSITIONS)):
            found.setdefault(place, []).append(start + place)
    return dict(sorted(found.items()))


def tuples_of(column: Output) -> Tensor:
    """The number of the tuple of each item."""
    if column.lists is None:
        return torch.arange(column.items)
    return tuple_index(column.lists, column.items, torch.device("cpu"))


def with_weight(column: Output, weight: Tensor) -> Output:
    """The first column with sample weights, one per tuple."""
    return replace(column, parts={**column.parts, "weight": weight[tuples_of(column)]})


def owned(loss: Loss) -> list[Tensor]:
    """The parameters of the loss stage: those that are trained and of no encoder."""
    encoders = [loss.model, *(tower for _, part in loss.tree() for tower in part.towers.values())]
    foreign = {id(parameter) for encoder in encoders for parameter in encoder.parameters()}
    return [each for each in loss.parameters() if each.requires_grad and id(each) not in foreign]


def numbers(record: Output, without: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """The floating numbers of a record, with what they are, but for some parts."""
    if record.embedding is not None:
        yield "the embedding", record.embedding
    yield from ((f"layer {place}", layer) for place, layer in enumerate(record.layers))
    for name, part in record.parts.items():
        if name in without:
            continue
        if isinstance(part, Output):
            yield from ((f"{what} by {name!r}", tensor) for what, tensor in numbers(part, without))
            continue
        tensor = part.values if isinstance(part, Tokens) else part
        if tensor.is_floating_point():
            yield f"part {name!r}", tensor


def constants(loss: Loss) -> set[str]:
    """The parts of records that no gradient flows to: sample weights, and what frozen encoders make."""
    return {"weight", *(name for _, part in loss.tree() for name in part.frozen)}


def named(subject: Subject, columns: Sequence[Output], index: int) -> str:
    """A column as messages name it."""
    names = subject.batch.inputs
    return f"column {index + 1} ({names[index]})" if len(columns) == len(names) else "the scored pairs"
