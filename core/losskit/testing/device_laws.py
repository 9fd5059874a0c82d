"""Laws of an accelerator: what a loss gives there, and that it does not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..features import move
from ..loss import Loss
from ..output import Output
from ..validation.findings import Skipped, Violation
from .compare import Result, differentiate, require_equal
from .forward_laws import forward
from .law import IN_LOSSES, Law, law
from .stage import all_rows, cast_records, leaves_of, prepare, whole_result
from .stage_laws import HALF_TOLERANCE
from .subject import Subject, as_leaf

__all__ = ["gpu_half", "gpu_parity", "gpu_sync"]

PARITY = 1e-8
"""The relative error in float64 of sums that an accelerator adds up in another order."""


def accelerator() -> torch.device:
    """The CUDA device.

    Raises:
        Skipped: there is none.
    """
    if not torch.cuda.is_available():
        raise Skipped("this machine has no CUDA device")
    return torch.device("cuda")


@law(
    None,
    *IN_LOSSES,
    level="gpu",
    cause="tensors made on a fixed device, or an operation that is another on an accelerator",
)
def gpu_parity(subject: Subject) -> None:
    """Value and gradient on a CUDA device are those on the CPU."""
    require_parity(subject, accelerator())


@law(
    8,
    *IN_LOSSES,
    level="gpu",
    cause="sums or exponentials in half precision, which the operations of an accelerator do not widen",
)
def gpu_half(subject: Subject) -> None:
    """Half-precision records on a CUDA device give the gradient of float64 on the same rounded records, within 2 %."""
    require_half(subject, accelerator())


@law(
    10,
    *IN_LOSSES,
    level="gpu",
    cause="item(), tolist(), a condition on a tensor, or a shape that depends on values, such as of nonzero",
)
def gpu_sync(subject: Subject) -> None:
    """`compute` and its backward never wait for the CUDA device; copies to it may."""
    require_no_waiting(subject, accelerator(), torch.cuda.set_sync_debug_mode)


def require_parity(subject: Subject, device: torch.device) -> None:
    """Raise unless a forward on a device gives what it gives on the CPU."""
    expected = forward(subject, subject.build())
    loss = subject.build().to(device)
    features = [move(each, device) for each in subject.batch.features(loss)]
    labels = subject.batch.flat_labels
    batch = replace(subject.batch, labels=None if labels is None else labels.to(device))
    got = forward(subject, loss, batch, features)
    if got.value.device.type != device.type:
        raise Violation("the loss leaves the device of its records", device.type, got.value.device.type)
    require_equal(f"on {device.type} beside the CPU", expected, _on_cpu(got), PARITY)


def require_half(subject: Subject, device: torch.device) -> None:
    """Raise unless half-precision records on a device give the gradient of the same records in float64."""
    for dtype in (torch.bfloat16, torch.float16):
        loss, columns, labels = prepare(subject)
        halves = [cast_records(column, dtype) for column in columns]
        expected = whole_result(loss, [cast_records(column, torch.float64) for column in halves], labels)
        loss.float()
        got = _on_cpu(whole_result(*_away(loss, halves, labels, device)))
        require_equal(
            f"records in {dtype} on {device.type}", expected, replace(got, value=expected.value), HALF_TOLERANCE
        )


def require_no_waiting(subject: Subject, device: torch.device, set_mode: Callable[[str], None]) -> None:
    """Raise what `set_mode("error")` raises at operations on tensors of a device alone.

    Args:
        subject: a component with records.
        device: of the records.
        set_mode: makes operations raise that wait for the device, as `torch.cuda.set_sync_debug_mode` does.
    """
    loss, columns, labels = _away(*prepare(subject), device)
    whole_result(loss, columns, labels)  # once before: libraries and kernels are loaded at first use, which waits
    leaves = leaves_of(columns, loss)
    with _Waiting(device, set_mode):
        differentiate(loss.compute(columns, labels, all_rows(columns)), leaves)


class _Waiting(TorchDispatchMode):
    """Sets the mode "error" within each operation whose tensors all lie on a device."""

    def __init__(self, device: torch.device, set_mode: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.set_mode = device, set_mode

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not tensors or any(tensor.device.type != self.device.type for tensor in tensors):
            return func(*args, **kwargs)  # a copy to the device, which waits for nothing that runs there
        self.set_mode("error")
        try:
            return func(*args, **kwargs)
        finally:
            self.set_mode("default")


def _away(
    loss: Loss, columns: Sequence[Output], labels: Tensor | None, device: torch.device
) -> tuple[Loss, list[Output], Tensor | None]:
    """The loss stage on another device."""
    there = [column.map(lambda tensor: _leaf_on(tensor, device)) for column in columns]
    return loss.to(device), there, None if labels is None else labels.to(device)


def _leaf_on(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.detach().to(device)
    return as_leaf(moved) if tensor.requires_grad else moved


def _on_cpu(result: Result) -> Result:
    return Result(result.value.cpu(), tuple(each.cpu() for each in result.gradients))


LAWS: tuple[Law, ...] = (gpu_parity, gpu_half, gpu_sync)
