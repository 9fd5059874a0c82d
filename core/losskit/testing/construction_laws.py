"""Laws of construction: what a constructor stores, and what it leaves alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..loss import Loss, plain_value
from .compare import Violation
from .law import LOSSES, NotApplicable, law
from .subject import Subject

__all__ = ["constructor", "model_child", "part_of"]

PARTS = ("regularizer", "similarity", "weighting")
REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def part_of(subject: Subject, loss: Any) -> Any:
    """The component that is looked at, in a loss that holds it."""
    if subject.plain:
        return loss.plain
    return getattr(loss, subject.kind) if subject.kind in PARTS else loss


@law(
    None,
    *LOSSES,
    *PARTS,
    level="interface",
    cause="a constructor that computes with its arguments, renames them, or reaches into the model",
)
def constructor(subject: Subject) -> None:
    """It takes the model first, keeps each argument under its own name, and leaves the model alone."""
    cls = subject.looked_at
    if subject.kind in LOSSES:
        _require_signature(cls, plain=subject.plain)
        _require_model_untouched(subject)
    with _recorded(cls) as calls:
        component = part_of(subject, subject.build())
    given = next((arguments for made, arguments in calls if made is component), None)
    if given is None:
        raise NotApplicable("it is not built by its constructor")
    for name, value in given.items():
        _require_own_default(cls, name, component)
        if name not in ("model", "execution") and not subject.plain:
            _require_stored(component, name, value)


def _require_signature(cls: type, *, plain: bool) -> None:
    parameters = list(inspect.signature(cls).parameters.values())
    if plain:
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise Violation(f"{cls.__name__} takes no model", "the model first", "no arguments")
        return
    if not parameters or parameters[0].name != "model":
        got = parameters[0].name if parameters else "no arguments"
        raise Violation(f"{cls.__name__} does not take the model first", "model", got)
    for each in parameters:
        if each.kind in REST:
            raise Violation(f"{cls.__name__} hides options", "each option by its name", str(each))
    kinds = {each.name: each.kind for each in parameters}
    if kinds.get("execution") is not inspect.Parameter.KEYWORD_ONLY:
        got = "a positional argument" if "execution" in kinds else "none"
        raise Violation(f"{cls.__name__} takes no execution by keyword", "*, execution=None", got)


@contextmanager
def _recorded(cls: type) -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """The objects of a class that are made meanwhile, each with the arguments of its constructor."""
    constructor: Any = cls.__init__  # type: ignore[misc]
    signature, own = inspect.signature(constructor), "__init__" in vars(cls)
    parameters = signature.parameters
    calls: list[tuple[Any, dict[str, Any]]] = []

    @functools.wraps(constructor)
    def recording(self: Any, *arguments: Any, **options: Any) -> None:
        if type(self) is cls:
            bound = signature.bind(self, *arguments, **options)
            bound.apply_defaults()
            named = {name: each for name, each in bound.arguments.items() if parameters[name].kind not in REST}
            calls.append((self, dict(list(named.items())[1:])))
        constructor(self, *arguments, **options)

    cls.__init__ = recording  # type: ignore[misc]
    try:
        yield calls
    finally:
        if own:
            cls.__init__ = constructor  # type: ignore[misc]
        else:
            del cls.__init__  # type: ignore[misc]


_MISSING = object()


def _require_stored(component: Any, name: str, given: Any) -> None:
    stated = component.get_config_dict().get(name, _MISSING) if isinstance(component, Loss) else _MISSING
    if plain_value(given) in (stated, stated.get("name") if isinstance(stated, Mapping) else stated):
        return  # something that stands for it may be kept, as long as the configuration gives it back, or names it
    stored = getattr(component, name, _MISSING)
    if stored is _MISSING:
        raise Violation(f"the argument {name!r} is not kept under its own name", f"an attribute {name}", "none")
    if not _same(given, stored):
        message = f"the argument {name!r} is kept as something else"
        raise Violation(message, _brief(given), _brief(stored))


def _same(given: Any, stored: Any) -> bool:
    """Whether a stored value is what was given, be it in another kind of list or mapping."""
    if stored is given:
        return True
    if isinstance(given, Tensor) or isinstance(stored, Tensor):
        return torch.equal(torch.as_tensor(given).double(), torch.as_tensor(stored).double())
    if isinstance(given, Mapping) and isinstance(stored, Mapping | nn.ModuleDict):
        return list(given) == list(stored) and all(_same(given[key], stored[key]) for key in given)
    if isinstance(given, list | tuple) and isinstance(stored, Sequence | nn.ModuleList):
        return len(given) == len(stored) and all(map(_same, given, stored))
    return bool(stored == given)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__


def _require_own_default(cls: type, name: str, component: Any) -> None:
    default = inspect.signature(cls.__init__).parameters[name].default  # type: ignore[misc]
    if isinstance(default, list | dict | set) and getattr(component, name, None) is default:
        raise Violation(
            f"all objects share the default of {name!r}, which can be changed", "a copy of it", "the default"
        )


def _require_model_untouched(subject: Subject) -> None:
    """The constructor neither runs the model nor changes it."""
    runs: list[object] = []

    def spied(model: nn.Module) -> Any:
        model.register_forward_pre_hook(lambda *_: runs.append(_))
        before = _portrait(model)
        loss = subject.make(model)
        changed = [name for name, each in _portrait(model).items() if before.get(name) != each]
        if changed:
            raise Violation("the constructor changes the model", "the model as it was", f"another {changed[0]}")
        return loss

    replace(subject, make=spied).build()
    if runs:
        raise Violation("the constructor runs the model", "no forward", f"{len(runs)} forwards")


def _portrait(model: nn.Module) -> dict[str, object]:
    """What a constructor could change of a model."""
    found: dict[str, object] = {}
    for path, module in model.named_modules():
        attributes = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        hooks = {name: len(value) for name, value in vars(module).items() if name.endswith("_hooks")}
        found[f"training mode of {path or 'the model'}"] = module.training
        found[f"set of attributes of {path or 'the model'}"] = sorted(attributes)
        found[f"set of hooks of {path or 'the model'}"] = hooks
    for path, parameter in model.named_parameters():
        found[f"parameter {path}"] = (id(parameter), parameter.requires_grad, parameter._version, parameter.data_ptr())
    return found


@law(
    None,
    *LOSSES,
    level="interface",
    cause="a constructor that keeps the model under another name, in a list, or not at all",
)
def model_child(subject: Subject) -> None:
    """The model is the child `model`, found nowhere else, so that a trainer can replace it; its parameters train."""
    loss: Any = subject.build()
    component = part_of(subject, loss)
    model = loss.player if subject.plain else loss.model
    if model is None or component._modules.get("model") is not model:
        raise Violation("the model is no child of the name `model`", "self.model = model", _children(component))
    paths = [path for path, module in component.named_modules(remove_duplicate=False) if module is model]
    others = [path for path in paths if path.rpartition(".")[2] != "model"]
    others += [name for name, value in vars(component).items() if value is model]
    if others:
        raise Violation("the model is kept a second time, where no trainer replaces it", "self.model", others[0])
    owned = {id(parameter) for parameter in component.parameters()}
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in owned]
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if missing or frozen:
        what = "is no parameter of the loss" if missing else "no longer trains"
        raise Violation(f"a parameter of the model {what}", "all of them", (missing or frozen)[0])


def _children(component: nn.Module) -> str:
    return f"children {', '.join(component._modules) or 'none'}"
