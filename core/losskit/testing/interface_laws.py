"""Laws of the interface: what a component must be able to do, and what it gives back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..loss import Loss
from ..protocols import Regularizer, Similarity, Weighting
from ..score_loss import ScoreLoss
from .compare import Result, Violation, require_equal
from .construction_laws import constructor, model_child, part_of
from .example_laws import examples
from .forward_laws import forward
from .law import LOSSES, law
from .refusal_laws import options, refusals
from .stage import all_rows, prepare
from .subject import Subject

__all__ = ["LAWS", "copies", "protocol", "returns"]

PROTOCOLS: dict[str, type] = {"regularizer": Regularizer, "similarity": Similarity, "weighting": Weighting}
WAYS = ("compute", "score", "per_query", "per_document")
"""The methods one of which says what the loss is; one of scores has all of them."""
CALLED_WITH = {"forward": 2}
"""Methods that all callers call with fewer arguments than the base class takes, and with how many."""


@law(
    None,
    *LOSSES,
    *PROTOCOLS,
    level="interface",
    cause="a method that is missing, or that takes fewer arguments than it is called with",
)
def protocol(subject: Subject) -> None:
    """The methods of its kind are there and take what they are called with."""
    if subject.kind in PROTOCOLS:
        _require_methods(subject.looked_at, PROTOCOLS[subject.kind])
    elif subject.plain:
        _require_call(part_of(subject, subject.build()), "forward", "(features, labels)", 2)
    else:
        _require_written(subject.looked_at)
        for cls, name, base in _overridden(subject.looked_at):
            _require_override(cls, name, base)


def _require_methods(cls: type, asked: type) -> None:
    for name, method in vars(asked).items():
        if inspect.isfunction(method) and (name == "__call__" or not name.startswith("_")):
            parameters = list(inspect.signature(method).parameters)
            called = "forward" if name == "__call__" and issubclass(cls, nn.Module) else name
            _require_call(cls, called, f"({', '.join(parameters[1:])})", len(parameters))


def _require_call(owner: Any, name: str, arguments: str, count: int) -> None:
    """A method of an object, or of a class with `self` among them, takes so many positional arguments."""
    cls = owner if isinstance(owner, type) else type(owner)
    method = getattr(owner, name, None)
    if not callable(method) or getattr(method, "__func__", method) is nn.Module.forward:
        raise Violation(f"{cls.__name__} has no method {name}", f"{name}{arguments}", "none")
    signature = inspect.signature(method)
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise Violation(f"{cls.__name__}.{name}: {error}", f"{name}{arguments}", f"{name}{signature}") from None


def _require_written(cls: type) -> None:
    if not issubclass(cls, Loss):
        raise Violation(f"{cls.__name__} is no losskit.Loss", "a losskit.Loss or a plain module", "neither")
    ways = WAYS if issubclass(cls, ScoreLoss) else WAYS[:1]
    base = ScoreLoss if issubclass(cls, ScoreLoss) else Loss
    if all(getattr(cls, name) is getattr(base, name) for name in ways):
        raise Violation(f"{cls.__name__} does not say what the loss is", f"a method {' or '.join(ways)}", "none")


def _overridden(cls: type) -> Iterator[tuple[type, str, Any]]:
    """Public attributes that others define although the base classes of losskit do, with those of the base."""
    lineage = cls.__mro__
    for place, each in enumerate(lineage):
        above = [base for base in lineage[place + 1 :] if base.__module__.startswith("losskit.")]
        for name in vars(each) if not each.__module__.startswith("losskit.") else ():
            base = next((vars(base)[name] for base in above if name in vars(base)), None)
            if base is not None and not name.startswith("_"):
                yield each, name, base


def _require_override(cls: type, name: str, base: Any) -> None:
    own = vars(cls)[name]
    if isinstance(base, property) and inspect.isfunction(own):
        raise Violation(f"{cls.__name__}.{name} is a method", "a property, or a value", "a method")
    if inspect.isfunction(base):
        if isinstance(own, staticmethod | classmethod | property):
            raise Violation(f"{cls.__name__}.{name} is no method", "a method", type(own).__name__)
        parameters = list(inspect.signature(base).parameters)
        count = 1 + CALLED_WITH.get(name, len(parameters) - 1)
        _require_call(cls, name, f"({', '.join(parameters[1:])})", count)


@law(
    None,
    *LOSSES,
    "regularizer",
    level="interface",
    cause="a missing mean(), a detached or rounded term, or a tensor made on another device",
)
def returns(subject: Subject) -> None:
    """The value is a floating scalar, or a dict of such by name, that asks for gradients where the records do."""
    loss, columns, labels = prepare(subject)
    value = loss.compute(columns, labels, all_rows(columns))
    _require_value("the loss stage", value, connected=True)
    _require_value("a forward", loss(subject.batch.features(loss), subject.batch.flat_labels), connected=True)
    with torch.no_grad():
        again = loss(subject.batch.features(loss), subject.batch.flat_labels)
    _require_value("a forward without gradients", again, connected=False)
    if isinstance(value, dict) and (not isinstance(again, dict) or list(again) != list(value)):
        got = list(again) if isinstance(again, dict) else "a scalar"
        raise Violation("without gradients it has other components", list(value), got)


def _require_value(what: str, value: Any, *, connected: bool) -> None:
    named = value if isinstance(value, dict) else {"the loss": value}
    if not named:
        raise Violation(f"{what} gives nothing", "a scalar, or a dict of scalars", "an empty dict")
    for name, each in named.items():
        if not isinstance(name, str):
            raise Violation(f"{what} gives a component that has no name", "texts as keys", repr(name))
        if not isinstance(each, Tensor) or each.ndim:
            got = f"shape {list(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
            raise Violation(f"{what} gives no scalar as {name}", "a tensor without axes", got)
        if not each.is_floating_point():
            raise Violation(f"{what} gives no real number as {name}", "a floating type", each.dtype)
        if each.device.type != "cpu":
            raise Violation(f"{what} gives {name} on another device than its records", "cpu", each.device)
        if connected and not each.requires_grad:
            raise Violation(f"{what}: {name} is not connected to the records", "a gradient", "a constant")


@law(
    None,
    *LOSSES,
    *PROTOCOLS,
    level="interface",
    cause="a closure, bound method or lock that deepcopy cannot copy, or copies with the object it came from",
)
def copies(subject: Subject) -> None:
    """A deep copy gives the same, and neither of the two notices what happens to the other."""
    expected = forward(subject, subject.build())
    loss = subject.build()
    copied, spoiled = copy.deepcopy(loss), copy.deepcopy(loss)
    _disturb(spoiled, subject.seed)
    require_equal("a deep copy", expected, forward(subject, copied))
    require_equal("the original, after a change of its copy", expected, forward(subject, loss))
    if subject.plain:
        return  # its model plays records, whichever copy holds it
    changed = forward(subject, spoiled)
    if _nonzero(expected) and torch.equal(changed.value, expected.value) and _equal(changed, expected):
        raise Violation("a copy goes on reading the model of its original", "another value", float(changed.value))


def _disturb(loss: Loss, seed: int) -> None:
    """Other parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loss.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(parameter + noise)


def _nonzero(result: Result) -> bool:
    return any(bool(gradient.any()) for gradient in result.gradients)


def _equal(one: Result, other: Result) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.gradients, other.gradients, strict=True))


LAWS = (protocol, constructor, model_child, options, returns, refusals, copies, examples)
