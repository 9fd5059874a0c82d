"""Laws of state: what a call may leave behind, and what it may depend on beside its arguments."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..clock import Clock
from ..loss import Loss
from ..wrapper import Wrapper
from .batches import Batch
from .compare import Result, Violation, differentiate, require_equal, total
from .forward_laws import forward
from .law import IN_LOSSES, law
from .stage import all_rows, cast_records, leaves_of, prepare, whole_result
from .subject import Subject

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["default_dtype", "instances", "kept_graphs", "repeatable"]

DEFAULTS = ((torch.float32, torch.float64), (torch.float64, torch.float32))
"""Types of records, and for each a default type that is another."""
EXACT = 1e-14
"""The relative error at which the same operations on the same numbers count as equal."""


@law(
    None,
    *IN_LOSSES,
    cause="an attribute, module or default argument that compute changes; what remembers belongs into observe",
)
def repeatable(subject: Subject) -> None:
    """A second call gives what the first gave, also after another batch, given the same clock and the same memory."""
    loss, columns, labels = prepare(subject)
    once, again = (whole_result(loss, columns, labels) for _ in range(2))
    require_equal("the loss stage on the same records, again", once, again)
    loss = subject.build()
    before = {key: tensor.clone() for key, tensor in loss.owned_state().items()}
    expected = _first_step(subject, loss)
    for what, batches in (("a second call", ()), ("a call after another batch", (_other(subject),))):
        for batch in batches:
            _first_step(subject, loss, batch)
        _forget(loss, before)
        require_equal(what, expected, _first_step(subject, loss))


def _first_step(subject: Subject, loss: Loss, batch: Batch | None = None) -> Result:
    """The first forward of a step, for draws differ between the forwards of one."""
    loss.set_clock(Clock(step=0))
    return forward(subject, loss, batch)


def _other(subject: Subject) -> Batch:
    """Other texts and labels, in fewer rows."""
    return replace(subject, seed=subject.seed + 1, rows=max(2, subject.rows - 2)).batch


def _forget(loss: Loss, state: dict[str, Tensor]) -> None:
    """Take back what `observe` may change; the rest must be as it was by itself."""
    if any(type(part).observe not in (Loss.observe, Wrapper.observe) for _, part in loss.tree()):
        loss.load_owned_state(state)


@law(
    None,
    *IN_LOSSES,
    cause="a list, dict or module on the class, in the module or as a default argument",
)
def instances(subject: Subject) -> None:
    """Objects of the same options share no state: another one's calls change nothing, before or between."""
    loss, other = subject.build(), subject.build()
    expected = forward(subject, subject.build())
    value = _value(subject, loss, subject.batch)
    total(_value(subject, other, _other(subject))).backward()
    got = differentiate(value, [p for p in loss.parameters() if p.requires_grad])
    require_equal("the backward, after a step of another object", expected, got)
    require_equal("a new object, after a step of another one", expected, forward(subject, subject.build()))
    _require_apart(loss, other)


def _value(subject: Subject, loss: Loss, batch: Batch) -> Any:
    loss.set_clock(Clock(step=1, progress=0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        return loss(batch.features(loss), batch.flat_labels)


def _require_apart(loss: Loss, other: Loss) -> None:
    of_other = {tensor.untyped_storage().data_ptr() for tensor in other.owned_state().values() if tensor.numel()}
    shared = [
        name
        for name, tensor in loss.owned_state().items()
        if tensor.numel() and tensor.untyped_storage().data_ptr() in of_other
    ]
    if shared:
        raise Violation("two objects own the same tensors", "tensors of its own for each", ", ".join(shared))


@law(
    None,
    *IN_LOSSES,
    cause="a tensor that is kept without detach(), as an attribute or in a list",
)
def kept_graphs(subject: Subject) -> None:
    """Nothing of a finished step's graph stays alive."""
    loss, columns, labels = prepare(subject)
    graphs = _finished_step(loss, columns, labels)
    if any(graph() is not None for graph in graphs):
        gc.collect()  # cycles are found late, but they are found
    kept = [f"that of column {place}" for place, graph in enumerate(graphs) if graph() is not None]
    if kept:
        raise Violation("the graph of a finished step is kept, or a record with its graph", "nothing", ", ".join(kept))


class _Trace:
    """Lives as long as the graph that it is put into."""


class _Traced(torch.autograd.Function):
    """The identity."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, trace: _Trace) -> Tensor:
        ctx.trace = trace
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None


def _finished_step(loss: Loss, columns: Sequence[Any], labels: Tensor | None) -> list[weakref.ReferenceType[_Trace]]:
    """Run forward and backward, and give what shows whether the graph above each column is still there."""
    traces = [_Trace() for _ in columns]

    def marked(trace: _Trace, tensor: Tensor) -> Tensor:
        made: Tensor = _Traced.apply(tensor, trace) if tensor.requires_grad else tensor  # type: ignore[no-untyped-call]
        return made

    inputs = [column.map(partial(marked, trace)) for column, trace in zip(columns, traces, strict=True)]
    value = total(loss._stage(inputs, labels))
    if value.requires_grad:
        value.backward()
    return [weakref.ref(trace) for trace in traces]


@law(
    None,
    *IN_LOSSES,
    cause="torch.tensor, zeros, ones or linspace without the dtype and the device of the records",
)
def default_dtype(subject: Subject) -> None:
    """Neither the default dtype nor the default device changes anything."""
    for dtype, default in DEFAULTS:
        usual, expected = _of(subject, dtype, dtype)
        other, got = _of(subject, dtype, default)
        what = f"records in {dtype} under the default {default}"
        if usual != other:
            raise Violation(f"{what}: the value has another type", usual, other)
        require_equal(what, expected, got, EXACT)
    if subject.plain:
        return  # what it makes on the default device it may move, or only index with
    loss, columns, labels = prepare(subject)
    expected = whole_result(loss, columns, labels)
    with torch.device("meta"):
        loss._draw(False, columns)
        value = total(loss.compute(columns, labels, all_rows(columns)))
        if value.device.type != "cpu":
            raise Violation("under another default device the value stands there", "cpu", value.device)
        require_equal("under another default device", expected, differentiate(value, leaves_of(columns, loss)))


def _of(subject: Subject, dtype: torch.dtype, default: torch.dtype) -> tuple[torch.dtype, Result]:
    """The type of the value, and the result, with records, parameters and real labels of a type."""
    loss, columns, labels = prepare(subject)
    if dtype == torch.float32:
        loss.float()
        labels = labels.float() if labels is not None and labels.is_floating_point() else labels
    columns = [cast_records(column, dtype) for column in columns]
    with _default(default):
        value = total(loss.compute(columns, labels, all_rows(columns)))
        return value.dtype, differentiate(value, leaves_of(columns, loss))


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


LAWS = (repeatable, instances, kept_graphs, default_dtype)
