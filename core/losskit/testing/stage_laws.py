"""Laws of the loss stage: `compute` as a pure function of records."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..output import Output
from ..score_loss import ScoreLoss
from .compare import Result, Violation, differentiate, require_equal, total
from .law import IN_LOSSES, NotApplicable, law
from .stage import all_rows, cast_records, leaves_of, prepare, require_finite, whole_result
from .subject import Subject, as_leaf

__all__ = ["additivity", "compiles", "degenerate", "half_precision", "masking", "meta"]

HALF_TOLERANCE = 0.02


@law(
    2,
    "loss",
    "wrapper",
    "similarity",
    plain="a plain module has no rows that it could be called on",
    cause="the first rows are read for any rows, or the mean is over something that `denominator` does not count",
)
def additivity(subject: Subject) -> None:
    """The mean over slices of `rows`, weighted by `denominator`, is the whole."""
    loss, columns, labels = prepare(subject)
    if not loss.row_wise:
        raise NotApplicable("it is not row-wise")
    expected = whole_result(loss, columns, labels)
    rows = columns[0].tuples
    for size in (1, 2, rows - 1):
        slices = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
        values = [_components(loss.compute(columns, labels, part)) for part in slices]
        weights = [loss.denominator(columns, labels, part) for part in slices]
        joined = [_mean(key, values, weights) for key in values[0]]
        got = differentiate(torch.stack(joined).sum(), leaves_of(columns, loss))
        require_equal(f"slices of {size} rows", expected, got)


def _components(value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return value if isinstance(value, dict) else {"": value}


def _mean(key: str, values: Sequence[dict[str, Tensor]], weights: Sequence[Any]) -> Tensor:
    shares = [_share(weight, key) for weight in weights]
    terms: list[Tensor] = [value[key] * share for value, share in zip(values, shares, strict=True)]
    return torch.stack(terms).sum().div(sum(shares))


def _share(weight: Any, key: str) -> Any:
    """A component's denominator: its own, or that of the component whose part it is."""
    while isinstance(weight, dict) and key not in weight:
        key = key.rpartition("/")[0]
    return weight[key] if isinstance(weight, dict) else weight


@law(
    5,
    *IN_LOSSES,
    cause="a mean, maximum or sum over all places, without the mask",
)
def masking(subject: Subject) -> None:
    """What stands at masked positions of records, or of scored lists, changes nothing."""
    loss, columns, labels = prepare(subject)
    if any(column.mask is not None for column in columns):
        changed = [replace(column, embedding=_with_garbage(column)) for column in columns]
        require_equal(
            "other values of masked tokens", whole_result(loss, columns, labels), whole_result(loss, changed, labels)
        )
    elif isinstance(loss, ScoreLoss):
        _require_masked_scores_unread(loss, margins=(subject.form or loss.formats[0]).labels == "margins")
    else:
        raise NotApplicable("nothing is masked")


def _with_garbage(column: Output) -> Tensor:
    assert column.embedding is not None
    assert column.mask is not None
    return as_leaf(column.embedding.masked_fill(~column.mask[..., None], 123.0))


def _require_masked_scores_unread(loss: ScoreLoss, *, margins: bool) -> None:
    where = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    generator = torch.Generator().manual_seed(0)
    scores, labels = (torch.rand(3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labelled = slice(1 if margins else 0, None)  # a positive has no margin

    def filled(fill: float) -> Result:
        leaf = as_leaf(scores.masked_fill(~where, fill))
        return differentiate(loss.score(leaf, labels.masked_fill(~where, fill)[:, labelled], where), [leaf])

    expected = filled(0.0)
    require_equal("other values at masked places", expected, filled(50.0))
    if expected.gradients[0][~where].any():
        raise Violation("a gradient reaches masked scores", "zeros", expected.gradients[0].tolist())


@law(
    7,
    *IN_LOSSES,
    cause="a division by a length or count that may be 0, a root at 0, or an exponential of what is large",
)
def degenerate(subject: Subject) -> None:
    """Zero, identical, huge and tiny records, equal labels and a single row: finite and connected, or a clear error."""
    for name, change in (DEGENERATE | (PLAIN if subject.plain else {})).items():
        loss, columns, labels = prepare(subject)
        changed = [_changed(column, change) for column in columns]
        require_finite(name, loss, changed, labels)
    loss, columns, labels = prepare(subject)
    if labels is not None:
        require_finite("equal labels", loss, columns, torch.zeros_like(labels))
    require_finite("one row", *prepare(subject, subject.batch.take([0])))


DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "zero records": torch.zeros_like,
    "identical records": lambda t: t[:1].expand_as(t).clone(),
    "huge records": lambda t: t * 1e70,  # the square of an inner product is still a number
    "tiny records": lambda t: t * 1e-100,
    "a zero among others": lambda t: t.index_fill(0, torch.tensor([0]), 0.0),
}
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {"huge records": lambda t: t * 1e4}
"""A plain module may compute in float32, as far as a square of inner products is a number there too."""


def _changed(column: Output, change: Callable[[Tensor], Tensor]) -> Output:
    return column.map_embedding(lambda embedding: as_leaf(change(embedding.detach())))


@law(
    8,
    *IN_LOSSES,
    cause="a sum, square or exponential in the precision of the records",
)
def half_precision(subject: Subject) -> None:
    """Records in bfloat16 and float16 give the gradient of float64 on the same rounded records, within 2 %."""
    for dtype in (torch.bfloat16, torch.float16):
        loss, columns, labels = prepare(subject)
        halves = [cast_records(column, dtype) for column in columns]
        doubles = [cast_records(column, torch.float64) for column in halves]
        with torch.random.fork_rng(devices=[]):  # whoever draws from the global generator draws the same
            torch.manual_seed(subject.seed)
            expected = whole_result(loss, doubles, labels)
            torch.manual_seed(subject.seed)
            got = whole_result(loss.float(), halves, labels)
        value = replace(got, value=expected.value)
        require_equal(f"records in {dtype}", expected, value, HALF_TOLERANCE)


@law(
    10,
    *IN_LOSSES,
    cause="a tensor made without the device of the records, or one that is no buffer",
)
def meta(subject: Subject) -> None:
    """`compute` and its backward run on the meta device: they read nothing on the host."""
    loss, columns, labels = prepare(subject)
    loss.to("meta")
    away = [column.map(lambda t: t.detach().to("meta").requires_grad_(t.requires_grad)) for column in columns]
    value = total(loss.compute(away, None if labels is None else labels.to("meta"), all_rows(away)))
    if value.device.type != "meta":
        raise Violation("the loss leaves the device of its records", "meta", value.device)
    value.backward()


@law(
    10,
    *IN_LOSSES,
    level="full",
    cause="a branch on a value, or a call that cannot be traced",
    plain="trainers compile the model, and call a plain loss as it is",
)
def compiles(subject: Subject) -> None:
    """`compute` is one graph for torch.compile, and gives the same."""
    loss, columns, labels = prepare(subject)
    expected = whole_result(loss, columns, labels)
    tensors = [tensor for column in columns for tensor in column.tensors()]

    def stage(*flat: Tensor) -> Tensor:
        rest = iter(flat)
        again = [column.map(lambda _: next(rest)) for column in columns]
        return total(loss.compute(again, labels, all_rows(columns)))

    torch.compiler.reset()
    compiled = torch.compile(stage, backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tracing an autograd.Function gives torch's own
        got = differentiate(compiled(*tensors), leaves_of(columns, loss))
    require_equal("compiled", expected, got)


LAWS = (additivity, masking, degenerate, half_precision, meta, compiles)
