"""Laws of cost: how memory and work grow, what is read on the host, and what stays."""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..loss import Loss
from ..math import contrastive
from .compare import Violation, total
from .growing import Cost, cost, stage
from .law import IN_LOSSES, NotApplicable, law
from .meters import HostReads, Meter
from .stage import prepare
from .subject import Subject

__all__ = ["growth", "host_sync", "leak"]

SIZES = {"B": (8, 32, 192), "D": (16, 64, 256), "n": (4, 16, 64)}
"""What is grown: from the second size to the third, or where that would take too long from the first to the second."""
ENOUGH_BYTES, ENOUGH_CALLS = 2**18, 2000
"""From what on the next size would take too long: up to 216 times as much."""
FURTHER = (1.5, 4)
"""To how many times the largest size a power must hold: another way of computing may cost more, but only once."""
LARGE_BYTES = 2**28
"""What all pairs would take where a tile is looked for: one of 16 MB with four matrices of its size takes less."""
LARGEST = {"B": 4096, "D": 4096, "n": 512}
MARGIN = 0.35
"""How far a power that is measured may be above that declared: smaller terms still count at these sizes."""
OVERSTATED = 0.5
LINEAR = 1
"""The power allowed to the number of operations that are at least as many as pairs."""
UNDECLARED = 2
"""The power allowed to what no card speaks of, and to work: all pairs."""


@law(
    11,
    *IN_LOSSES,
    cause="a matrix of all pairs, or pairs of pairs, made whole; or a card whose memory was never measured",
)
def growth(subject: Subject) -> None:
    """Memory of forward and backward grows as the card says, and work not faster than with all pairs."""
    stated, measured = _stated(subject), False
    for axis in SIZES:
        found = _grown(subject, axis)
        if not found:
            continue
        measured = True
        least, most = _declared(stated, axis) if stated else (UNDECLARED, UNDECLARED)
        if axis == "B" and subject.kind == "loss" and getattr(subject.build().scorer, "pooled", False):
            most = max(most, 2)  # whose similarity looks at all pairs has its cost
        _require_bounded(subject, axis, found, "work", max(UNDECLARED, most), "all pairs")
        if not (subject.plain and axis == "n"):  # playing a column takes operations for each of the others
            _require_few_calls(axis, found)
        _require_bounded(subject, axis, found, "memory", most, repr(stated) if stated else "no card")
        if stated and least > 1 and subject.family != "multi-vector":  # whose tokens weigh more
            _require_needed(subject, axis, found, least, stated)
    if not measured:
        raise NotApplicable("it has no size that could grow")


def _stated(subject: Subject) -> str:
    """The memory that cards state; of a wrapper with that of the losses inside."""
    cards = [subject.card]
    if subject.kind == "wrapper":
        cards += [getattr(type(loss), "card", None) for _, loss in subject.build().tree()]
    return " + ".join(dict.fromkeys(card.memory for card in cards if card is not None))


def _grown(subject: Subject, axis: str) -> list[Cost]:
    """The costs at two sizes; none where it has no such size."""
    small, medium, large = SIZES[axis]
    found = cost(subject, axis, medium)
    if found is None:
        return []
    if found.memory > ENOUGH_BYTES or found.calls > ENOUGH_CALLS:
        return [*_measured(subject, axis, (small,)), found]
    return [found, *_measured(subject, axis, (large,))]


def _measured(subject: Subject, axis: str, sizes: Sequence[int]) -> list[Cost]:
    return [each for each in (cost(subject, axis, size) for size in sizes) if each is not None]


def _require_few_calls(axis: str, found: Sequence[Cost]) -> None:
    """Raise if each further pair takes an operation of its own."""
    a, b = found[-2:]
    pairs, calls = b.size**2 - a.size**2, b.calls - a.calls
    if calls >= pairs and _power(found, "calls") > LINEAR + MARGIN:
        message = f"each pair of {axis} takes operations of its own, as in a loop of Python over pairs"
        got = f"{b.calls} operations at {axis} = {b.size}, {a.calls} at {a.size}"
        raise Violation(message, f"fewer than {pairs} more", got)


def _require_bounded(subject: Subject, axis: str, found: Sequence[Cost], what: str, most: int, declared: str) -> None:
    """Raise if a cost grows too fast and still does at further sizes; where a tile is declared, beyond any tile."""
    tiled = what == "memory" and "tile" in declared
    for times in FURTHER if tiled else FURTHER[:1]:
        if _power(found, what) <= most + MARGIN:
            return
        found = [found[-1], *_measured(subject, axis, (int(found[-1].size * times),))]
    if tiled and _power(found, what) > most + MARGIN:
        large = min(LARGEST[axis], int(found[-1].size * math.sqrt(LARGE_BYTES / found[-1].memory)))
        found = _measured(subject, axis, (large // 2, large))
    power, (a, b) = _power(found, what), found[-2:]
    if power > most + MARGIN and not (tiled and b.memory <= contrastive.TILE_BYTES):
        raise Violation(
            f"{what} grows faster with {axis} than it may",
            f"{declared}, here a power of {axis} up to {most}",
            f"a power of {power:.2f}: {_shown(a, what)} at {axis} = {a.size}, {_shown(b, what)} at {b.size}",
        )


def _require_needed(subject: Subject, axis: str, found: Sequence[Cost], least: int, stated: str) -> None:
    """Raise if memory grows more slowly than the card says, at larger sizes too: at small ones other terms count."""
    if found[0].size != SIZES[axis][0]:
        found = [*_measured(subject, axis, SIZES[axis][:1]), *found]
    else:
        found = [*found, *_measured(subject, axis, SIZES[axis][2:])]
    if _last_power(found) < least - OVERSTATED:
        found = [*found, *_measured(subject, axis, (4 * found[-1].size,))]
    power = _last_power(found)
    if power < least - OVERSTATED:
        raise Violation(
            f"memory grows more slowly with {axis} than the card says",
            f"{stated!r}, here a power of {least} of {axis}",
            f"a power of {power:.2f}",
        )


def _last_power(found: Sequence[Cost]) -> float:
    """By the last two differences, for what does not grow would lower the power."""
    a, b, c = found[-3:]
    slopes = [(y.memory - x.memory) / (y.size - x.size) for x, y in ((a, b), (b, c))]
    return 1 + math.log(max(slopes[1], 1) / max(slopes[0], 1), (c.size + b.size) / (b.size + a.size))


def _power(found: Sequence[Cost], what: str) -> float:
    a, b = found[-2:]
    return math.log(max(getattr(b, what), 1) / max(getattr(a, what), 1), b.size / a.size)


def _shown(cost: Cost, what: str) -> str:
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


@law(
    10,
    *IN_LOSSES,
    cause="an if, float(), item() or tolist() on a tensor, or a mask as an index; torch.where needs none of them",
)
def host_sync(subject: Subject) -> None:
    """`compute` and its backward read no value of records, labels or parameters on the host."""
    loss, columns, labels = prepare(subject)
    run = stage(loss, columns, labels)
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
    *IN_LOSSES,
    cause="tensors appended to a list or kept in a cache; a memory is a registered buffer of fixed size",
)
def leak(subject: Subject) -> None:
    """As many bytes are kept after 6 steps as after 2, beside registered buffers."""
    loss, columns, labels = prepare(subject)
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
        raise Violation("what is kept grows with the steps", f"{kept[0]} bytes as after 2", f"{kept[1]} after 6")


LEAK_STEPS = (2, 4)


def _kept(meter: Meter, loss: Loss) -> int:
    return meter.alive - sum(buffer.untyped_storage().nbytes() for buffer in loss.buffers())


LAWS = (growth, host_sync, leak)
