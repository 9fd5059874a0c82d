"""Laws of cost: how memory and work grow, what is read on the host, and what stays."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..card import split_input
from ..loss import Loss
from ..math import contrastive, over_tiles
from ..output import Output
from .batches import WORDS
from .compare import Violation, total
from .law import NotApplicable, law
from .meters import HostReads, Meter
from .stage_laws import _leaves, _prepared, _rows
from .subject import Subject, as_leaf

__all__ = ["growth", "host_sync", "leak"]

SIZES = {"B": (4, 16, 64, 256), "D": (16, 64, 256), "n": (4, 16, 64)}
"""What is grown, fourfold each time: rows, the width of embeddings, and documents or negatives of a row."""
FEW = 4
"""How many rows there are where something else grows."""
ENOUGH_BYTES, ENOUGH_CALLS = 4 * 2**20, 2000
"""What ends the growing: the next size could take 64 times as much."""
TILE_BYTES = 64 * 2**10
"""A smaller tile, so that what is bounded by one shows it at small sizes."""
MARGIN = 0.35
"""How far a power that is measured may be above that declared: smaller terms still count at these sizes."""
OVERSTATED = 0.5
LINEAR = 1
"""The power allowed to the number of operations that are at least as many as pairs."""
UNDECLARED = 2
"""The power allowed to what no card speaks of, and to work: all pairs."""
GROWING = ("B", "D", "n")


@law(
    11,
    "loss",
    "wrapper",
    "similarity",
    "regularizer",
    "weighting",
    cause="a matrix of all pairs, or pairs of pairs, made whole; or a card whose memory was never measured",
)
def growth(subject: Subject) -> None:
    """Memory of forward and backward grows as the card says, and work not faster than with all pairs."""
    card, measured = subject.card, False
    for axis in GROWING:
        found = _grown(subject, axis)
        if len(found) < 2:
            continue
        measured = True
        least, most = (UNDECLARED, UNDECLARED) if card is None else _declared(card.memory, axis)
        if axis == "B" and subject.kind == "loss" and getattr(subject.build().scorer, "pooled", False):
            most = max(most, 2)  # whose similarity looks at all pairs has its cost
        _require_bounded("work", axis, found, max(UNDECLARED, most), "all pairs")
        if not (subject.plain and axis == "n"):  # playing a column takes operations for each of the others
            _require_few_calls(axis, found)
        if axis == "B" and card is not None and "tile" in card.memory and _power(found, "memory") > most + MARGIN:
            found += _grown(subject, axis, (4 * found[-1].size,))  # its tile may be larger than those of losskit.math
        _require_bounded("memory", axis, found, most, "no card" if card is None else f"{card.memory!r}")
        if card is not None and least > 1 and len(found) > 2 and subject.family != "multi-vector":  # tokens weigh more
            if _last_power(found) < least - OVERSTATED:
                found += _grown(subject, axis, (4 * found[-1].size,))  # so far other terms may be larger
            _require_needed(axis, found, least, card.memory)
    if not measured:
        raise NotApplicable("it has no size that could grow")


@dataclass(frozen=True)
class _Cost:
    """What a forward and backward took.

    Args:
        size: of what grows.
        memory: the peak, in bytes, beyond what was there before.
        work: numbers gone through.
        calls: operations, however large.
    """

    size: int
    memory: int
    work: int
    calls: int


def _grown(subject: Subject, axis: str, sizes: Sequence[int] = ()) -> list[_Cost]:
    found: list[_Cost] = []
    for size in sizes or SIZES[axis]:
        run = _MADE.get(subject.kind, _of_loss)(subject, axis, size)
        if run is None:
            return []
        with _small_tiles(), Meter() as meter:
            run()
        found.append(_Cost(size, meter.peak, meter.work, meter.calls))
        if meter.peak > ENOUGH_BYTES or meter.calls > ENOUGH_CALLS:
            break
    return found


def _require_few_calls(axis: str, found: Sequence[_Cost]) -> None:
    """Raise if each further pair takes an operation of its own."""
    a, b = found[-2:]
    pairs, calls = b.size**2 - a.size**2, b.calls - a.calls
    if calls >= pairs and _power(found, "calls") > LINEAR + MARGIN:
        message = f"each pair of {axis} takes operations of its own, as in a loop of Python over pairs"
        got = f"{b.calls} operations at {axis} = {b.size}, {a.calls} at {a.size}"
        raise Violation(message, f"fewer than {pairs} more", got)


def _require_bounded(what: str, axis: str, found: Sequence[_Cost], most: int, declared: str) -> None:
    power = _power(found, what)
    if power > most + MARGIN:
        a, b = found[-2:]
        raise Violation(
            f"{what} grows faster with {axis} than it may",
            f"{declared}, here a power of {axis} up to {most}",
            f"a power of {power:.2f}: {_shown(a, what)} at {axis} = {a.size}, {_shown(b, what)} at {b.size}",
        )


def _require_needed(axis: str, found: Sequence[_Cost], least: int, declared: str) -> None:
    power = _last_power(found)
    if power < least - OVERSTATED:
        raise Violation(
            f"memory grows more slowly with {axis} than the card says",
            f"{declared!r}, here a power of {least} of {axis}",
            f"a power of {power:.2f}",
        )


def _last_power(found: Sequence[_Cost]) -> float:
    """By the last two differences, for what does not grow would lower the power."""
    a, b, c = (cost.memory for cost in found[-3:])
    return math.log(max(c - b, 1) / max(b - a, 1), found[-1].size / found[-2].size)


def _power(found: Sequence[_Cost], what: str) -> float:
    a, b = found[-2:]
    return math.log(max(getattr(b, what), 1) / max(getattr(a, what), 1), b.size / a.size)


def _shown(cost: _Cost, what: str) -> str:
    return f"{cost.memory / 1000:.0f} kB" if what == "memory" else f"{cost.work} numbers"


def _declared(memory: str, axis: str) -> tuple[int, int]:
    """The power of an axis in a card's `memory`: the least and the most of its alternatives, 1 being what inputs take.

    >>> _declared("D^2 or tile", "D"), _declared("n + tile", "B")
    ((1, 2), (1, 1))
    """
    found = [
        max(_power_in(term, axis, memory) for term in alternative.split(" + ")) for alternative in memory.split(" or ")
    ]
    return max(1, min(found)), max(1, *found)


def _power_in(term: str, axis: str, memory: str) -> int:
    factors = [_FACTOR.fullmatch(factor) for factor in term.split()]
    if not factors or None in factors:
        raise Violation("the card's memory cannot be read", "as 'B', 'n^2 + tile', 'B V', 'D^2 or tile'", repr(memory))
    powers = {match["name"]: int(match["power"] or 1) for match in factors if match is not None}
    return powers.get(axis, 0) + (powers.get("V", 0) if axis == "D" else 0)


_FACTOR = re.compile(r"(?P<name>1|tile|[BDVn])(\^(?P<power>\d))?")


@contextmanager
def _small_tiles() -> Iterator[None]:
    before = contrastive.TILE_BYTES
    contrastive.TILE_BYTES = TILE_BYTES
    try:
        yield
    finally:
        contrastive.TILE_BYTES = before


Run = Callable[[], object]


def _of_loss(subject: Subject, axis: str, size: int) -> Run | None:
    """A forward and backward at a size, with what they start from already made."""
    if axis == "B":
        return _stage(*_prepared(replace(subject, rows=size)))
    few = replace(subject, rows=FEW)
    if axis == "D":
        return _widened(few, size)
    form = subject.form or subject.build().formats[0]
    last, suffix = split_input(form.inputs[-1])
    if suffix in ("*", "+"):
        return _stage(*_prepared(replace(few, negatives=size)))
    return _lengthened(few, size) if last in subject.lists else None


def _stage(loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> Run:
    leaves = _leaves(columns, loss)

    def run() -> None:
        value = total(loss.compute(columns, labels, _rows(columns)))
        if value.requires_grad:
            torch.autograd.grad(value, leaves, allow_unused=True)

    return run


def _widened(subject: Subject, width: int) -> Run | None:
    """With embeddings repeated to a width; of what has a width of its own nothing is known."""
    loss, columns, labels = _prepared(subject)
    narrow = None if subject.family == "cross-encoder" or loss.fixed_dimension else loss.encoder.dimension
    if narrow is None:
        return None

    def wide(tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or tensor.shape[-1] != narrow:
            return tensor
        return tensor.detach().repeat(*[1] * (tensor.ndim - 1), width // narrow).requires_grad_(tensor.requires_grad)

    run = _stage(loss, [column.map(wide) for column in columns], None if labels is None else wide(labels))
    try:
        run()
    except (RuntimeError, ValueError):
        return None  # parameters of a width that the card does not declare: another law says so
    return run


def _lengthened(subject: Subject, documents: int) -> Run:
    """With as many documents in each list of the last column."""
    batch = subject.batch
    generator = torch.Generator().manual_seed(subject.seed)
    texts = [WORDS[place % len(WORDS)] for place in range(documents)]
    labels = batch.labels
    if isinstance(labels, list):
        labels = [torch.randint(3, (documents,), generator=generator).double() / 2 for _ in labels]
    longer = replace(batch, columns=[*batch.columns[:-1], [texts] * batch.rows], labels=labels)
    loss = subject.build()
    columns = subject.records(loss, longer)
    loss._draw(False, columns)
    return _stage(loss, columns, longer.flat_labels)


def _of_similarity(subject: Subject, axis: str, size: int) -> Run | None:
    """All pairs in tiles, as a contrastive loss has them."""
    if axis == "n":
        return None
    few = replace(subject, rows=size if axis == "B" else FEW)
    loss = few.build()
    a, b = few.records(loss)
    if axis == "D":
        a, b = (c.map_embedding(lambda t: as_leaf(t.detach().repeat(*[1] * (t.ndim - 1), size // 8))) for c in (a, b))

    def run() -> None:
        value = over_tiles(a, b, lambda scores, _: scores.sin().sum(), similarity=loss.scorer)
        assert isinstance(value, Tensor)
        value.backward()

    return run


def _of_weighting(subject: Subject, axis: str, size: int) -> Run | None:
    """The weights of a few lists."""
    if axis != "n":
        return None
    true = torch.arange(size, dtype=torch.float64).remainder(3).expand(FEW, size).clone()
    discount = torch.arange(2, size + 2, dtype=torch.float64).log2()[None]
    weighting, gain = subject.make(), true.exp2() - 1
    return lambda: weighting(gain, discount, true)


_MADE: dict[str, Callable[[Subject, str, int], Run | None]] = {
    "similarity": _of_similarity,
    "weighting": _of_weighting,
}


@law(
    10,
    "loss",
    "wrapper",
    "similarity",
    "regularizer",
    "weighting",
    cause="an if, float(), item() or tolist() on a tensor, or a mask as an index; torch.where needs none of them",
)
def host_sync(subject: Subject) -> None:
    """`compute` and its backward read no value of records, labels or parameters on the host."""
    loss, columns, labels = _prepared(subject)
    run = _stage(loss, columns, labels)
    away = [tensor for column in columns for tensor in column.tensors()]
    away += [*loss.parameters(), *loss.buffers(), *([] if labels is None else [labels])]
    with HostReads(away, subject.place[0]) as reads:
        run()
    if reads.found:
        places = [f"{what} in {Path(file).name}:{line}" for (file, line), what in reads.found.items()]
        violation = Violation("a value is read on the host", "none", "; ".join(places))
        raise violation.with_traceback(reads.first)


@law(
    None,
    "loss",
    "wrapper",
    "similarity",
    "regularizer",
    "weighting",
    cause="tensors appended to a list or kept in a cache; a memory is a registered buffer of fixed size",
)
def leak(subject: Subject) -> None:
    """As many bytes are kept after 20 steps as after 3, beside registered buffers."""
    loss, columns, labels = _prepared(subject)
    kept = []
    with Meter() as meter:
        for steps in LEAK_STEPS:
            for _ in range(steps):
                value = total(loss._stage(columns, labels))
                if value.requires_grad:
                    value.backward()
                del value
            kept.append(_kept(meter, loss))
    if kept[1] > kept[0]:
        gc.collect()  # cycles are found late, but they are found
        kept[1] = _kept(meter, loss)
    if kept[1] > kept[0]:
        raise Violation("what is kept grows with the steps", f"{kept[0]} bytes as after 3", f"{kept[1]} after 20")


LEAK_STEPS = (3, 17)


def _kept(meter: Meter, loss: Loss) -> int:
    return meter.alive - sum(buffer.untyped_storage().nbytes() for buffer in loss.buffers())


LAWS = (growth, host_sync, leak)
