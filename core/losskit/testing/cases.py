"""From a component to the subjects that it is checked on: options, encoder families and formats."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from torch import nn

from ..building import annotation_of, build, kind_of_annotation, members
from ..card import Format
from ..errors import LosskitError, RecipeError, brief
from ..loss import Loss
from ..protocols import Encoder, Regularizer, Similarity, Weighting
from ..spec import given_in_code, load_target
from ..validation.findings import Violation
from ..validation.target import Target
from ..wrapper import Wrapper
from .plain import plain_subjects
from .subject import Subject
from .tiny import options_for

__all__ = ["Made", "cases", "component", "kind_of"]

TOY = "losskit.testing.toys:ToyEncoder"
INNER = ("multiple-negatives-ranking", "cosent", "binary-cross-entropy")
"""What wrappers are tried around: a contrastive loss, one that compares all rows, and one for cross-encoders."""


@dataclass(frozen=True)
class Made:
    """Makes a component from options, as a recipe does; names and values only, so that other processes can.

    Args:
        reference: of the component.
        kind: of the component.
        options: of its constructor.
    """

    reference: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: Any = None) -> Any:
        """The component; a loss on a model."""
        return build({"name": self.reference, **self.options}, model, kind=self.kind)


def component(target: Target) -> tuple[type, str]:
    """The class of a target, imported, and its kind.

    Raises:
        Violation: it is no class, or of no kind.
        PluginError: it is registered, and does not load.
    """
    cls = target.spec.load() if target.registered else load_target(target.spec.target)
    if not isinstance(cls, type):
        raise Violation("the target is no class", "a class", type(cls).__name__)
    return cls, target.kind or kind_of(cls)


def kind_of(cls: type) -> str:
    """What kind of component a class is, by what it is built on and what it can do.

    Raises:
        Violation: it is none.

    >>> from losskit import Loss
    >>> kind_of(Loss), kind_of(nn.CrossEntropyLoss)
    ('loss', 'loss')
    """
    if issubclass(cls, Loss):
        return "wrapper" if issubclass(cls, Wrapper) else "loss"
    names = set(dir(cls))
    if {"preprocess", "encode"} <= names:
        return "encoder"
    if "pairwise" in names:
        return "similarity"
    call: Any = getattr(cls, "forward", None) or cls.__call__
    taken = list(inspect.signature(call).parameters)[1:]
    if taken[:2] == ["queries", "documents"]:
        return "regularizer"
    if taken[:1] == ["gain"]:
        return "weighting"
    if issubclass(cls, nn.Module):
        return "loss"
    kinds = ", ".join(each.__name__ for each in (Encoder, Similarity, Regularizer, Weighting))
    raise Violation(
        f"{cls.__name__} is no kind of component", f"a loss (an nn.Module), or what one of {kinds} asks for", "neither"
    )


def cases(target: Target, seed: int = 0) -> list[Subject]:
    """The subjects of a target: each encoder family with each format, and each choice of options once.

    Raises:
        Violation: it cannot be built.
    """
    cls, kind = component(target)
    card = getattr(cls, "card", None)
    families = tuple(target.encoders) or (tuple(card.encoders) if card is not None else ()) or ("dense",)
    formats = tuple(target.formats) or (tuple(card.formats) if card is not None else ())
    stated = [dict(each) for each in getattr(cls, "cases", ())] or [{}]
    options = [{**_required(cls, kind, {**each, **target.options}), **each, **target.options} for each in stated]
    if kind in ("loss", "wrapper") and not issubclass(cls, Loss):
        return plain_subjects(cls, options[0], formats, families, kind=kind, seed=seed)
    reference = target.spec.qualified if target.registered else target.spec.target
    made = [Made(reference, kind, each) for each in options]
    first = Subject(made[0], kind, component=cls, seed=seed)
    if kind == "encoder":
        return [first, *(replace(first, make=each, note=_told(each.options)) for each in made[1:])]
    found = [each for family in families for each in _of_family(replace(first, family=family), made[0], formats)]
    varied: list[tuple[Made, Mapping[str, Any]]]
    varied = [(Made(reference, kind, {**options[0], **change}), change) for change in _choices(cls, kind, options[0])]
    varied += [(each, each.options) for each in made[1:]]
    for make, change in varied:
        found += _built(replace(found[0], make=make, note=_told(change)))
    if issubclass(cls, Wrapper) and cls.identity is not None:
        make = Made(reference, kind, {**options[0], **cls.identity})
        found += _built(replace(found[0], make=make, equals=Made(INNER[0], "loss"), note="identity"))
    if issubclass(cls, Loss) and cls.uses_weights:
        found.append(replace(found[0], weights=True))
    return found


def _of_family(first: Subject, made: Made, formats: Sequence[Format]) -> list[Subject]:
    """A subject for each format on one encoder family; wrappers around each inner loss that they take."""
    found: list[Subject] = []
    refused = ""
    for change in [{"loss": name} for name in INNER] if made.options.get("loss") == INNER[0] else [{}]:
        subject = replace(first, make=replace(made, options={**made.options, **change}), note=change.get("loss", ""))
        try:
            forms = formats or (subject.build().formats if first.kind in ("loss", "wrapper") else ())
            tried = [replace(subject, form=form) for form in forms] or [subject]
            for each in tried:
                each.build()
            found += tried
        except Exception as error:  # noqa: BLE001 - a stranger's component may raise anything
            refused = brief(error)
    if not found:
        raise Violation(f"it cannot be built on a {first.family} encoder: {refused}", "a component", "an error")
    return found


def _built(subject: Subject) -> list[Subject]:
    """The subject, or nothing where its choice of options is refused."""
    try:
        subject.build()
    except LosskitError:
        return []
    return [subject]


def _told(options: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in options.items())


# Options


def _parameters(cls: type, kind: str) -> Iterator[tuple[inspect.Parameter, Any]]:
    """The options of a class with their annotations."""
    for name, parameter in inspect.signature(cls).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not variadic and name not in given_in_code(kind):
            yield parameter, annotation_of(cls, parameter)


def _required(cls: type, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for what has no default, by annotation."""
    if kind == "encoder":
        return options_for(cls)
    found = {}
    for parameter, annotation in _parameters(cls, kind):
        if parameter.default is parameter.empty and parameter.name not in given:
            values = list(_values(annotation))
            if not values:
                raise RecipeError(
                    f"{cls.__name__}.{parameter.name}",
                    expected=f"a value of type {annotation}",
                    got="none",
                    fix=f"write {parameter.name}=VALUE, or give the class an attribute cases = [{{...}}]",
                )
            found[parameter.name] = values[0]
    return found


def _values(annotation: Any) -> Iterator[Any]:
    """Values that an annotation allows and that fit the toys, the simplest first."""
    for member in members(annotation):
        kind, origin = kind_of_annotation(member), get_origin(member)
        arguments = get_args(member)
        if kind == "loss":
            yield INNER[0]
        elif kind == "encoder":
            yield {"name": TOY, "seed": 5}
        elif kind is not None:
            yield {"regularizer": "l1", "similarity": "cosine", "weighting": "no-weighting"}[kind]
        elif origin is Literal:
            yield arguments[0]
        elif member in (bool, int, float):
            yield {bool: False, int: 3, float: 0.5}[member]
        elif isinstance(origin, type) and issubclass(origin, Mapping) and kind_of_annotation(arguments[-1]) == "loss":
            yield {"first": INNER[0], "second": INNER[1]}
        elif isinstance(origin, type) and issubclass(origin, Sequence) and int in arguments:
            yield [8, 4]
        elif isinstance(origin, type) and issubclass(origin, Sequence) and float in arguments:
            yield [1.0, 0.5]


def _choices(cls: type, kind: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each other choice of an option that has a few."""
    for parameter, annotation in _parameters(cls, kind):
        now = options.get(parameter.name, parameter.default)
        choices = [item for member in members(annotation) for item in _alternatives(member)]
        yield from ({parameter.name: value} for value in choices if value != now)


def _alternatives(member: Any) -> tuple[Any, ...]:
    if get_origin(member) is Literal:
        return tuple(item for item in get_args(member) if not isinstance(item, NoneType))
    return (False, True) if member is bool else ()
