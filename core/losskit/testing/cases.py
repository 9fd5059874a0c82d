"""From a component to the subjects that it is checked on: options, encoder families and formats."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from torch import nn

from .. import registry
from ..building import annotation_of, build, kind_of_annotation, members
from ..card import Format
from ..errors import LosskitError, RecipeError, brief
from ..loss import Loss
from ..protocols import Encoder, Regularizer, Similarity, Weighting
from ..spec import given_in_code, load_target
from ..validation.findings import Violation
from ..validation.target import Target
from ..wrapper import Wrapper
from .plain import filled_in, plain_subjects
from .subject import Subject
from .tiny import options_for

__all__ = ["Made", "UndescribedError", "cases", "component", "kind_of"]

TOY = "losskit.testing.toys:ToyEncoder"
EMBEDDING = ("multiple-negatives-ranking", "cosent")
INNER: Mapping[str, tuple[str, ...]] = {
    "dense": EMBEDDING,
    "sparse": EMBEDDING,
    "multi-vector": EMBEDDING,
    "cross-encoder": ("binary-cross-entropy", "lambda"),
}
"""What wrappers are tried around, by family: a loss that is a mean over rows, and one that is not."""
TOGETHER = {
    "dense": ("multiple-negatives-ranking", "multiple-negatives-symmetric-ranking"),
    "cross-encoder": ("binary-cross-entropy", "score-mse"),
}
"""Two losses on the same data, where one option takes several."""
ANY: Mapping[str, Any] = {"regularizer": "l1", "similarity": "cosine", "weighting": "no-weighting"}
SIMPLE: Mapping[Any, Any] = {bool: False, int: 3, float: 0.5}
"""What required options of simple types are given."""


class UndescribedError(RecipeError):
    """A loss without a card was given without the data that it takes."""


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

    def __call__(self, model: Any = None, **options: Any) -> Any:
        """The component, with further options; a loss on a model."""
        return build({"name": self.reference, **self.options, **options}, model, kind=self.kind)


@dataclass(frozen=True)
class Tiny:
    """Makes the first registered encoder of a family that a tiny transformer without dropout serves, in float64.

    Args:
        family: of the encoder.
    """

    family: str

    def __call__(self) -> Any:
        """The encoder."""
        for spec in registry.find(kind="encoder", encoder=self.family, status="ok"):
            cls: Any = spec.load()
            options = options_for(cls, dropout=0.0)
            if options:
                return cls(**options).double()
        raise Violation(f"no {self.family} encoder is registered", "one on a transformer", "none")


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
        UndescribedError: nothing says which data it takes.
    """
    cls, kind = component(target)
    card = getattr(cls, "card", None)
    if kind == "loss" and card is None and not target.formats:
        raise UndescribedError(
            target.reference,
            expected="--inputs, and --labels where it takes some, for no card says which data it takes",
            got="none",
            fix="--inputs anchor,positive,negative* --labels none",
        )
    families = tuple(target.encoders) or (tuple(card.encoders) if card is not None else ()) or ("dense",)
    stated = [dict(each) for each in getattr(cls, "cases", ())] or [{}]
    given = {**stated[0], **target.options}
    if kind in ("loss", "wrapper") and not issubclass(cls, Loss):
        if not issubclass(cls, nn.Module):
            raise Violation(f"{cls.__name__} is no {kind}", "an nn.Module", "a class of another kind")
        known = {**given, **dict.fromkeys(filled_in(cls))}
        options = {**_required(cls, kind, families[0], "", known), **given}
        formats = tuple(target.formats) or (tuple(card.formats) if card is not None else ())
        plain = plain_subjects(cls, options, formats, families, kind=kind, seed=seed)
        plain[0].build()
        return plain
    made = Made(target.spec.qualified if target.registered else target.spec.target, kind, given)
    first = Subject(made, kind, component=cls, seed=seed)
    further = [{**each, **target.options} for each in stated[1:]]
    if kind == "encoder":
        first = replace(first, make=replace(made, options={**options_for(cls), **given}))
        return [first, *(_varied(first, each) for each in further)]
    found = [each for family in families for each in _of_family(replace(first, family=family), made, target)]
    first = found[0]
    for change in (*_choices(cls, kind, given), *further):
        found += _built(_varied(first, change))
    if issubclass(cls, Wrapper) and cls.identity is not None:
        inner = Made(INNER[first.family][0], "loss")
        found += _built(replace(_varied(first, cls.identity), equals=inner, note="identity"))
    if issubclass(cls, Loss) and cls.uses_weights:
        found.append(replace(first, weights=True))
    return found


def _of_family(first: Subject, made: Made, target: Target) -> list[Subject]:
    """A subject for each format on one encoder family; wrappers around each inner loss that they take."""
    cls = first.looked_at
    found: list[Subject] = []
    refused = ""
    for inner in INNER[first.family] if first.kind == "wrapper" else ("",):
        options = {**_required(cls, first.kind, first.family, inner, made.options), **made.options}
        subject = replace(first, make=replace(made, options=options), note=inner)
        for encoder in (None, Tiny(first.family)):  # what no toy can serve is tried on a transformer
            try:
                found += _of_formats(replace(subject, encoder=encoder), target.formats)
                break
            except Exception as error:  # noqa: BLE001 - a stranger's component may raise anything
                refused = refused or brief(error)
    if not found:
        raise Violation(f"it cannot be built on a {first.family} encoder: {refused}", "a component", "an error")
    return found


def _of_formats(subject: Subject, formats: Sequence[Format]) -> list[Subject]:
    """The subject with each format, each built once."""
    losses = subject.kind in ("loss", "wrapper")
    forms = formats or (subject.build().formats if losses else ())
    found = [replace(subject, form=form) for form in forms] or [subject]
    for each in found:
        each.build()
    return found


def _varied(subject: Subject, change: Mapping[str, Any]) -> Subject:
    """The subject with other options."""
    made = subject.make
    assert isinstance(made, Made)
    note = ",".join(f"{name}={value}" for name, value in change.items())
    return replace(subject, make=replace(made, options={**made.options, **change}), note=note)


def _built(subject: Subject) -> list[Subject]:
    """The subject, or nothing where its choice of options is refused, or asks for other data."""
    try:
        loss = subject.build()
        loss(subject.batch.features(loss), subject.batch.flat_labels)
    except LosskitError:
        return []
    return [subject]


# Options


def _parameters(cls: type, kind: str) -> Iterator[tuple[inspect.Parameter, Any]]:
    """The options of a class with their annotations."""
    for name, parameter in inspect.signature(cls).parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not variadic and name not in given_in_code(kind):
            yield parameter, annotation_of(cls, parameter)


def _required(cls: type, kind: str, family: str, inner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for what has no default, by annotation."""
    found = {}
    for parameter, annotation in _parameters(cls, kind):
        if parameter.default is parameter.empty and parameter.name not in given:
            values = [value for member in members(annotation) for value in _values(member, family, inner)]
            if not values:
                raise Violation(
                    f"the option {parameter.name} has no default, and no value can be made up for it",
                    f"{parameter.name}=VALUE on the command line, or an attribute cases = [{{...}}] of the class",
                    f"the annotation {parameter.annotation}",
                )
            found[parameter.name] = values[0]
    return found


def _values(member: Any, family: str, inner: str) -> Iterator[Any]:
    """A value that an annotation without alternatives allows, and that fits the toys; or none."""
    kind, origin, arguments = kind_of_annotation(member), get_origin(member), get_args(member)
    container = origin if isinstance(origin, type) else object
    if kind == "loss":
        yield inner or INNER[family][0]
    elif kind is not None:
        yield {"encoder": {"name": TOY, "seed": 5}, **ANY}[kind]
    elif origin is Literal:
        yield arguments[0]
    elif member in SIMPLE:
        yield SIMPLE[member]
    elif issubclass(container, Mapping) and kind_of_annotation(arguments[-1]) == "loss":
        yield dict(zip(("first", "second"), TOGETHER.get(family, TOGETHER["dense"]), strict=True))
    elif issubclass(container, Sequence) and int in arguments:
        yield [8, 4]
    elif issubclass(container, Sequence) and float in arguments:
        yield [1.0, 0.5]


def _choices(cls: type, kind: str, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each other choice of an option that has a few."""
    for parameter, annotation in _parameters(cls, kind):
        now = given.get(parameter.name, parameter.default)
        choices = [item for member in members(annotation) for item in _alternatives(member)]
        yield from ({parameter.name: value} for value in choices if value != now)


def _alternatives(member: Any) -> tuple[Any, ...]:
    if get_origin(member) is Literal:
        return tuple(item for item in get_args(member) if not isinstance(item, NoneType))
    return (False, True) if member is bool else ()
