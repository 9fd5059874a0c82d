"""Laws of numbers: precision, layout, what is no number, options at their ends, and the size of the batch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..building import annotation_of, members
from ..loss import Loss
from ..output import Output
from .compare import Result, Violation, differentiate, require_equal, total
from .law import IN_LOSSES, NotApplicable, law
from .stage import all_rows, cast_records, leaves_of, prepare, require_finite, whole_result
from .subject import Subject, as_leaf

__all__ = ["batch_size", "extreme_options", "float32", "layout", "nan"]

FLOAT32_TOLERANCE = 1e-3
"""Between gradients of float32 and float64: 10^4 roundings, as scores of some hundreds in an exponent bring them."""
SEEDS = 3
"""How many batches are tried until float64's gradient is steady at one: nearly equal numbers may change places."""
ROUNDING, ROUNDINGS = 1e-6, 4
"""How far records are moved to see whether it is: ten roundings of float32, several times."""
MAGNITUDES = (1.0, 30.0)
"""Factors of records: inner products of the second overflow an exponential in float32 and not yet in float64."""
SATURATED = 1e-5
"""Of the usual gradient: what is smaller may be lost where a probability is nearly 1."""
FACTORS = (1e3, 1e-3, 0.0)
REPEATS = (4, 16)
PROPORTIONAL = 0.75
"""The power of the batch size at which a value counts as growing with it: a mean has 0, its logarithm up to 0.5."""


@law(
    None,
    *IN_LOSSES,
    cause="an exponential or a square that overflows, or a difference of nearly equal numbers",
)
def float32(subject: Subject) -> None:
    """Records in float32 give the gradient of float64 on the same rounded records."""
    if not any(_is_like_float64(replace(subject, seed=subject.seed + more)) for more in range(SEEDS)):
        raise NotApplicable("its gradient in float64 moves as much when records are rounded")


def _is_like_float64(subject: Subject) -> bool:
    """Whether it is; False where nothing can be said, since float64's own gradient is not steady there."""
    usual = 0.0
    for factor in MAGNITUDES:
        loss, columns, labels = prepare(subject)
        singles = [
            cast_records(column.map_embedding(partial(torch.mul, other=factor)), torch.float32) for column in columns
        ]
        expected = whole_result(loss, [cast_records(column, torch.float64) for column in singles], labels)
        got = whole_result(loss.float(), singles, labels)
        what = f"float32 beside float64, records times {factor:g}"
        if expected.value.isfinite() and not got.value.isfinite():
            raise Violation(f"{what}: the value is not finite", f"{float(expected.value):.6g}", float(got.value))
        usual = usual or _largest(expected)
        if _largest(expected, got) <= SATURATED * usual:
            continue
        try:
            require_equal(what, expected, replace(got, value=expected.value), FLOAT32_TOLERANCE)
        except Violation:
            if _is_steady(subject, singles, expected):
                raise
            return False
    return True


def _is_steady(subject: Subject, columns: Sequence[Output], expected: Result) -> bool:
    """Whether float64's gradient stays within the tolerance where records are moved as rounding moves them."""
    loss, _, labels = prepare(subject)
    moved = [whole_result(loss, _moved(columns, seed), labels) for seed in range(ROUNDINGS)]
    return max(_largest(expected, each) for each in moved) <= FLOAT32_TOLERANCE * _largest(expected)


def _moved(columns: Sequence[Output], seed: int) -> list[Output]:
    """Records in float64, as far from those given as rounding may bring them."""
    generator = torch.Generator().manual_seed(seed)

    def move(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return as_leaf(tensor.detach() * (1 + ROUNDING * noise))

    return [column.map(move) for column in columns]


def _largest(expected: Result, got: Result | None = None) -> float:
    """The largest entry of a gradient, or of how far two gradients are apart."""
    others = [torch.zeros(())] * len(expected.gradients) if got is None else got.gradients
    return max(float((a - b).abs().max()) for a, b in zip(expected.gradients, others, strict=True) if a.numel())


@law(
    None,
    *IN_LOSSES,
    cause="view() of what need not be contiguous, or as_strided",
)
def layout(subject: Subject) -> None:
    """How records and labels lie in memory changes nothing."""
    for name, lay in LAYOUTS.items():
        loss, columns, labels = prepare(subject)
        expected = whole_result(loss, columns, labels)
        leaves = leaves_of(columns, loss)
        laid = [column.map(lay) for column in columns]
        value = loss.compute(laid, None if labels is None else lay(labels), all_rows(laid))
        require_equal(name, expected, differentiate(value, leaves))
    loss, columns, labels = prepare(subject)
    if labels is not None:
        expected = whole_result(loss, columns, labels[:1].expand_as(labels).clone())
        got = whole_result(loss, columns, labels[:1].expand_as(labels))
        if expected.value.isfinite():  # else another law says what is wrong
            require_equal("labels that are one, expanded", expected, got)


def _across(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous().transpose(0, 1) if tensor.ndim > 1 else tensor


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed in memory": _across,
    "every second place in memory": lambda t: torch.stack([t, t], -1)[..., 0],
    "behind other rows in memory": lambda t: torch.cat([t, t])[len(t) :],
}


@law(
    None,
    *IN_LOSSES,
    cause="nan_to_num, or a comparison that is False for NaN and leaves its row out",
)
def nan(subject: Subject) -> None:
    """NaN at a place that the value depends on gives no finite value, or an error."""
    loss, columns, labels = prepare(subject)
    result = whole_result(loss, columns, labels)
    places = iter(result.gradients)
    for place, column in enumerate(columns):
        for tensor in column.tensors():
            if not tensor.requires_grad:
                continue
            steepest = next(places).abs().flatten()
            if steepest.any():
                spoilt = _spoilt(columns, tensor, int(steepest.argmax()))
                _require_no_number(f"NaN in column {place}", loss, spoilt, labels)


def _spoilt(columns: Sequence[Output], chosen: Tensor, place: int) -> list[Output]:
    bad = chosen.detach().clone()
    bad.view(-1)[place] = math.nan
    return [column.map(lambda t: bad.requires_grad_() if t is chosen else t) for column in columns]


def _require_no_number(name: str, loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> None:
    with suppress(ValueError):  # refused, which is as good
        value = total(loss.compute(columns, labels, all_rows(columns))).detach()
        if value.isfinite():
            raise Violation(f"{name}: the value is a number", "NaN or an error", f"{float(value):.6g}")


@law(
    None,
    *IN_LOSSES,
    cause="an exponential of large scores, a division by an option, or a term that is left out where its weight is 0",
)
def extreme_options(subject: Subject) -> None:
    """Options that are numbers, a thousand times as large or as small or 0: finite and connected, or refused."""
    options = list(_numbers(subject))
    if not options:
        raise NotApplicable("it has no options that are numbers")
    for name, usual in options:
        for value in (usual * factor for factor in FACTORS):
            changed = replace(subject, make=partial(subject.make, **{name: value}))
            try:
                prepared = prepare(changed)
            except ValueError:
                continue  # refused
            require_finite(f"{name}={value:g}", *prepared)


def _numbers(subject: Subject) -> Iterator[tuple[str, float]]:
    """Options of type float with their values; 1 stands for what is 0 or follows from others."""
    taken = inspect.signature(subject.make).parameters
    given = {**getattr(subject.make, "options", {}), **{name: each.default for name, each in taken.items()}}
    for name, parameter in inspect.signature(subject.looked_at).parameters.items():
        if float in members(annotation_of(subject.looked_at, parameter)) and _takes(subject, name):
            usual = given.get(name, parameter.default)
            yield name, float(usual) if isinstance(usual, int | float) and usual else 1.0


def _takes(subject: Subject, option: str) -> bool:
    """Whether what makes the component can be given an option."""
    taken = inspect.signature(subject.make).parameters
    return option in taken or any(each.kind is each.VAR_KEYWORD for each in taken.values())


@law(
    None,
    "loss",
    "wrapper",
    "regularizer",
    cause="a sum where a mean is meant, or a mean that is divided by the number of rows once more",
)
def batch_size(subject: Subject) -> None:
    """With each row repeated, the loss does not grow, or fall, in proportion to the batch."""
    subject = _averaged(subject)
    sizes = [subject.rows * times for times in REPEATS]
    found = [_repeated(subject, times) for times in REPEATS]
    for at in ([abs(float(each.value)) for each in found], [_sum(each) for each in found]):
        if not all(at):
            return
        power = math.log(at[1] / at[0]) / math.log(sizes[1] / sizes[0])
        if abs(power) < PROPORTIONAL:
            return
    values = [f"{float(result.value):.6g} for {size}" for result, size in zip(found, sizes, strict=True)]
    raise Violation(
        f"value and gradient change as the power {power:.2f} of the number of rows",
        f"a power between -{PROPORTIONAL} and {PROPORTIONAL}",
        " rows, ".join(values),
    )


def _averaged(subject: Subject) -> Subject:
    """With the mean where an option `reduction` asks for the sum: of a class that has both, the mean is judged."""
    if "reduction" not in inspect.signature(subject.looked_at).parameters:
        return subject
    if getattr(subject.build(), "reduction", None) != "sum" or not _takes(subject, "reduction"):
        return subject
    averaged = replace(subject, make=partial(subject.make, reduction="mean"))
    try:
        averaged.build()
    except ValueError:
        return subject  # it has the sum alone
    return averaged


def _repeated(subject: Subject, times: int) -> Result:
    return whole_result(*prepare(subject, subject.batch.take(list(range(subject.rows)) * times)))


def _sum(result: Result) -> float:
    return sum(float(gradient.abs().sum()) for gradient in result.gradients)


LAWS = (float32, layout, nan, extreme_options, batch_size)
