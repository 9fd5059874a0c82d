"""Values and gradients, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..loss import Value
from ..validation.findings import Violation

__all__ = ["TOLERANCE", "Result", "Violation", "differentiate", "require_close", "require_equal", "total"]

TOLERANCE = 1e-10
"""The relative error, by the largest entry, at which two results in float64 count as equal."""
SINGLE = 1e-5
"""The same for a loss that computes in float32 even of records in float64: about a hundred roundings."""


@dataclass(frozen=True)
class Result:
    """A scalar and its gradients, which are zero where nothing flows; and how far it may be off by rounding."""

    value: Tensor
    gradients: tuple[Tensor, ...]
    rounding: float = 0.0


def total(value: Value) -> Tensor:
    """The objective: a scalar, or the sum of its components."""
    return torch.stack(list(value.values())).sum() if isinstance(value, dict) else value


def differentiate(value: Value, inputs: Sequence[Tensor]) -> Result:
    """The objective with its gradients by some tensors.

    Raises:
        Violation: nothing flows to any of them.
    """
    objective = total(value)
    if not objective.requires_grad:
        raise Violation("the loss is not connected to its inputs", "a value with a gradient", "a constant")
    found = torch.autograd.grad(objective, list(inputs), allow_unused=True)
    if all(gradient is None for gradient in found):
        raise Violation("no gradient reaches the inputs", "a gradient", "none")
    pairs = zip(inputs, found, strict=True)
    gradients = tuple(torch.zeros_like(x) if gradient is None else gradient for x, gradient in pairs)
    return Result(objective.detach(), gradients, SINGLE if objective.dtype == torch.float32 else 0.0)


def require_equal(what: str, expected: Result, got: Result, tolerance: float = TOLERANCE) -> None:
    """Raise unless value and gradient agree.

    Raises:
        Violation: they do not; says what was compared.
    """
    tolerance = max(tolerance, expected.rounding, got.rounding)
    require_close(f"{what}: the value differs", expected.value, got.value, tolerance)
    a, b = _flat(expected.gradients), _flat(got.gradients)
    if a.shape != b.shape:
        raise Violation(f"{what}: the gradient has another size", a.numel(), b.numel())
    require_close(f"{what}: the gradient differs", a, b, tolerance)


def require_close(message: str, expected: Tensor, got: Tensor, tolerance: float) -> None:
    """Raise unless two tensors of one shape are finite and agree, relative to the largest entry."""
    if not (expected.isfinite().all() and got.isfinite().all()):
        raise Violation(f"{message}, for it is not finite", _shown(expected), _shown(got))
    if not expected.numel():
        return
    largest = float(torch.maximum(expected.abs().max(), got.abs().max()))
    error = float((expected - got).abs().max())
    if error > tolerance * largest:
        relative = f"relative error {error / largest:.1e}, more than {tolerance:.0e}"
        raise Violation(f"{message}: {relative}", _shown(expected), _shown(got))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors]) if tensors else torch.zeros(0)


def _shown(tensor: Tensor) -> str:
    return f"{float(tensor):.12g}" if tensor.numel() == 1 else f"norm {float(tensor.norm()):.12g}"
