"""Builds components from names and options: what a recipe says, as objects."""

from __future__ import annotations

import inspect
import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from .errors import LosskitError, RecipeError, brief, did_you_mean
from .hooks import get_or_generate
from .spec import Spec, given_in_code

__all__ = ["annotation_of", "build", "kind_of_annotation", "members"]


def build(
    expression: str | Mapping[str, Any],
    model: Any = None,
    *,
    kind: str = "loss",
    execution: Any = None,
    trust_remote_code: bool = False,
) -> Any:
    """Build a component, and all that its options name, with every option checked.

    Args:
        expression: a reference, or a mapping of `name` and options. Where an option takes a component, a
            reference or such a mapping builds it, on the same model; objects are taken as they are. An encoder
            that several losses name by one expression, under one option, is built once.
        model: the encoder that losses are built on.
        kind: what the expression names; "loss" means wrappers as well.
        execution: for the outermost loss: an `Execution`, its name, or a mapping of `name` and options.
        trust_remote_code: let encoders run code that their model folders bring; no expression can say so.

    Raises:
        NotFoundError, AmbiguousError: a reference that names nothing, or several components.
        PluginError: a component that cannot be loaded.
        RecipeError: an unknown, missing or wrong option, by its path.

    >>> build({"name": "cosent", "scale": 30}).scale
    30.0
    """
    return _build(expression, kind, kind, _Context(model, execution, trust_remote_code))


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class _Context:
    model: Any
    execution: Any = None
    trust_remote_code: bool = False
    encoders: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Those built so far, by option and expression: several losses then read one guide, held and run once."""


def _build(expression: Any, kind: str, path: str, context: _Context) -> Any:
    name, options = _split(expression, path)
    spec = get_or_generate(kind, name)
    cls = spec.load()
    parameters = {name: item for name, item in inspect.signature(cls).parameters.items() if item.kind not in _VARIADIC}
    given = _given(spec, set(parameters), path, context)
    parameters = {name: item for name, item in parameters.items() if name not in given_in_code(spec.kind)}
    _check_names(options, parameters, spec.name, path)
    inner = replace(context, execution=None)
    for option, value in options.items():
        annotation, place = annotation_of(cls, parameters[option]), f"{path}.{option}"
        # Prompts are texts that a recipe may spell like code, so that they name no components.
        if _takes_components(annotation) and (spec.kind, option) != ("encoder", "prompts"):
            value = _resolved(value, annotation, place, inner)
        # Whether an object will do, the constructor knows better than its annotation.
        given[option] = _checked(value, annotation, place) if _is_plain(value) else value
    try:
        return cls(**given)
    except LosskitError:
        raise
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path} ({spec.name})", got=brief(error)) from error


def _given(spec: Spec, parameters: set[str], path: str, context: _Context) -> dict[str, Any]:
    """The arguments that no expression brings."""
    given: dict[str, Any] = {}
    if spec.kind != "encoder" and "model" in parameters:
        given["model"] = context.model
    if spec.kind == "encoder" and context.trust_remote_code:
        if "trust_remote_code" not in parameters:
            raise RecipeError(f"{path}: trust_remote_code", expected="an encoder that can", got=spec.name)
        given["trust_remote_code"] = True
    if context.execution is not None:
        if "execution" not in parameters:
            raise RecipeError(path, got=f"an execution, which {spec.name} does not take", fix="leave it out")
        from .execution import from_config

        given["execution"] = from_config(context.execution)
    return given


def _split(expression: Any, path: str) -> tuple[str, dict[str, Any]]:
    options = {"name": expression} if isinstance(expression, str) else expression
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise RecipeError(path, expected="a name, or a mapping with 'name'", got=repr(expression))
    return options["name"], {key: value for key, value in options.items() if key != "name"}


def _check_names(options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], name: str, path: str) -> None:
    listed = f"an option of {name} ({', '.join(parameters) or 'it has none'})"
    for option in options:
        if option not in parameters:
            fix = did_you_mean(option, parameters) or "remove it"
            raise RecipeError(f"{path}.{option}", expected=listed, got="an unknown one", fix=fix)
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise RecipeError(f"{path}.{option}", expected="a value", got="none", fix=f"{name} needs it")


# Annotations


def _kinds() -> dict[Any, str]:
    """Which kind of component each annotation stands for."""
    from . import loss, protocols

    return {
        loss.Loss: "loss",
        protocols.LossProtocol: "loss",
        protocols.Encoder: "encoder",
        protocols.Regularizer: "regularizer",
        protocols.Weighting: "weighting",
        protocols.Similarity: "similarity",
    }


def annotation_of(cls: type, parameter: inspect.Parameter) -> Any:
    """The type of a parameter; what only type checkers import is taken from losskit, or is anything."""
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    constructor: Any = cls.__init__  # type: ignore[misc]
    names = ChainMap(inspect.unwrap(constructor).__globals__, {item.__name__: item for item in _kinds()})
    try:
        return eval(annotation, {}, names)
    except (NameError, TypeError):
        return Any


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _takes_components(annotation: Any) -> bool:
    return kind_of_annotation(annotation) is not None or any(map(_takes_components, get_args(annotation)))


def kind_of_annotation(annotation: Any) -> str | None:
    """Which kind of component an annotation stands for, if any."""
    bases = annotation.__mro__ if isinstance(annotation, type) else ()
    return next((kind for base, kind in _kinds().items() if base in bases), None)


def _resolved(value: Any, annotation: Any, path: str, context: _Context) -> Any:
    """A value with the components that it names in the places of such annotations built."""
    options = members(annotation)
    named = isinstance(value, str) or (isinstance(value, Mapping) and "name" in value)
    for kind in filter(None, map(kind_of_annotation, options)):
        if named and not (isinstance(value, str) and str in options):
            return _build_once(value, path, context) if kind == "encoder" else _build(value, kind, path, context)
    for member in options:
        origin, item = get_origin(member), (get_args(member) or (Any,))
        if isinstance(value, Mapping) and _is(origin, Mapping):
            return {key: _resolved(each, item[-1], f"{path}.{key}", context) for key, each in value.items()}
        if isinstance(value, list | tuple) and _is(origin, Sequence):
            items = [_resolved(each, item[0], f"{path}.{index}", context) for index, each in enumerate(value)]
            return tuple(items) if origin is tuple else items
    return value


def _build_once(expression: Any, path: str, context: _Context) -> Any:
    """The encoder of an expression: the same for every option of one name."""
    name, options = _split(expression, path)
    key = path.rpartition(".")[2], json.dumps([name, options], sort_keys=True, default=repr)
    if key not in context.encoders:
        context.encoders[key] = _build(expression, "encoder", path, context)
    return context.encoders[key]


def _is(origin: Any, container: type) -> bool:
    return isinstance(origin, type) and issubclass(origin, container)


def _checked(value: Any, annotation: Any, path: str) -> Any:
    """A value of a recipe as its annotation has it, by the rules of strict JSON.

    Lists fill tuples and texts fill paths, but no text becomes a number.
    """
    from pydantic import ConfigDict, PydanticSchemaGenerationError, ValidationError, create_model

    if annotation is Any:
        return value
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        checker: Any = create_model("Option", __config__=config, value=(annotation, ...))
    except PydanticSchemaGenerationError:
        return value  # an annotation that pydantic has no schema for leaves the check to the constructor
    try:
        return checker.model_validate_json(json.dumps({"value": value})).value
    except ValidationError as error:
        errors = error.errors()
        if len(errors) == 1:
            path, value = ".".join([path, *map(str, errors[0]["loc"][1:])]), errors[0]["input"]
        # Of a class or a function among the alternatives pydantic can only say that JSON has no such thing.
        told = [item for item in errors if item["type"] not in ("needs_python_object", "callable_type")] or errors
        expected = " or ".join(dict.fromkeys(_wanted(item["msg"]) for item in told))
        raise RecipeError(path, expected=expected, got=repr(value)) from error


def _wanted(message: str) -> str:
    """What pydantic asks for.

    >>> _wanted("Input should be a valid number")
    'a valid number'
    """
    return message.removeprefix("Input should be ")


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
