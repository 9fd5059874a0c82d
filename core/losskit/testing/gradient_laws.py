"""The law of gradients: they are those of the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .changes import constants, generator_of, named, numbers, objective, owned, same, shaken
from .compare import Violation
from .law import NotApplicable, law
from .stage import prepare
from .subject import Subject

__all__ = ["gradient"]

TOLERANCE = 1e-3
"""Relative to the gradient's norm: far above what differences err by, far below what a term that is left out makes."""
FLOOR = 1e-8
"""What rounding in float64 makes of a slope of 0."""
STEPS = (1e-5, 1e-6, 1e-4, 1e-3)
"""The first does as a rule. A smaller one avoids kinks; larger ones serve what is computed in float32."""
MANY = 33
"""Rows of the larger batch: one more than a size that pieces often have."""


@law(
    None,
    "loss",
    "wrapper",
    "regularizer",
    "similarity",
    cause="a term is detached or computed without gradients, or a backward of its own is wrong",
)
def gradient(subject: Subject) -> None:
    """The gradient is that of the value: along random directions it is what finite differences give.

    By each tensor of the records, and by what the loss owns; not by what guides and teachers make. Records are moved
    off ties and zeros, and one step of several has to agree, so kinks that a direction passes by do no harm. Of a
    small batch, and of one that is large enough for code that cuts batches into pieces.
    """
    _require_gradient(subject)
    if subject.rows == Subject.rows:  # a smaller example is not to fail by a larger batch
        try:
            _require_gradient(replace(subject, rows=MANY))
        except Violation as found:
            raise Violation(f"with {MANY} rows: {found}", found.expected, found.got) from found


def _require_gradient(subject: Subject) -> None:
    loss, columns, labels = prepare(subject)
    loss.double()
    generator = generator_of(subject)
    columns = [shaken(column, generator) for column in columns]
    groups = {
        f"{what} of {named(subject, columns, index)}": [tensor]
        for index, column in enumerate(columns)
        for what, tensor in numbers(column, constants(loss))
    }
    groups["the parameters of the loss"] = owned(loss)

    def value() -> Tensor:
        return objective(subject, loss, columns, labels)

    found = value()
    if not found.requires_grad:
        raise Violation("the loss is not connected to its inputs", "a value with a gradient", "a constant")
    if found.isfinite().all() and not same(found, value()):
        raise NotApplicable("the value of the same records is another at each call")
    leaves = [tensor for group in groups.values() for tensor in group]
    gradients = iter(torch.autograd.grad(found, leaves, allow_unused=True, materialize_grads=True))
    for name, group in groups.items():
        _require_slope(name, value, group, [next(gradients) for _ in group], generator)


def _require_slope(
    name: str,
    value: Callable[[], Tensor],
    leaves: Sequence[Tensor],
    gradients: Sequence[Tensor],
    generator: torch.Generator,
) -> None:
    """Raise unless the slope along a random direction is that of the gradient, for some step."""
    ways = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in leaves]
    along = sum(float((gradient * way).sum()) for gradient, way in zip(gradients, ways, strict=True))
    norm = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    slopes: list[float] = []
    for step in STEPS:
        ends = [_moved(value, leaves, ways, length) for length in (step, -step)]
        slopes.append((ends[0] - ends[1]) / (2 * step))
        if abs(slopes[-1] - along) <= FLOOR + TOLERANCE * max(norm, abs(slopes[-1])):
            return
    message = f"the gradient by {name} is not that of the value, along a random direction"
    raise Violation(message, f"{slopes[0]:.6g} by finite differences", f"{along:.6g} by the backward")


def _moved(value: Callable[[], Tensor], leaves: Sequence[Tensor], ways: Sequence[Tensor], length: float) -> float:
    """The value with leaves moved along their ways; they are put back."""
    before = [leaf.detach().clone() for leaf in leaves]
    with torch.no_grad():
        for leaf, way in zip(leaves, ways, strict=True):
            leaf.add_(way, alpha=length)
    found = float(value().detach())
    with torch.no_grad():
        for leaf, was in zip(leaves, before, strict=True):
            leaf.copy_(was)
    return found


LAWS = (gradient,)
