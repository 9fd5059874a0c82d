"""Recipes: what `losskit train` is told, read from YAML files, maps and `key=value` overrides.

A recipe is strict: an unknown key is refused with its path, and the filled-in recipe reads back as the same one.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from .card import KINDS
from .errors import RecipeError, did_you_mean
from .registry import current, is_target
from .requirements import unmet
from .source import UnreadableError
from .yaml12 import dump_yaml, parse_yaml

__all__ = [
    "ContrastiveTensionPairs",
    "Data",
    "DeleteWords",
    "EvalSource",
    "LabelColumn",
    "Recipe",
    "Source",
    "TrainSource",
    "Training",
    "read_recipe",
]

COMPONENTS = ("encoder", "loss", "execution")
"""The sections that hold component expressions."""

TWINS = {
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "warmup": "warmup_steps",
    "log_every": "logging_steps",
    "eval_every": "eval_steps",
    "save_every": "save_steps",
}
"""Short names of the training section, and which of `transformers.TrainingArguments` each stands for."""


# What a recipe holds


def _expression(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = dict(value)
        named = isinstance(value.get("name"), str) and value["name"]
    else:
        named = isinstance(value, str) and value
    if not named:
        raise ValueError("a component's name, or a map with its 'name' and options")
    return value


def _column(value: Any) -> Any:
    names = value if isinstance(value, list) else [value]
    if isinstance(value, Mapping | LabelColumn) or (names and all(isinstance(name, str) and name for name in names)):
        return value
    raise ValueError("a column's name, or a list of names")


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _span(value: Any) -> Any:
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
        raise ValueError("two different numbers")
    return value


Expression = Annotated[str | dict[str, Any], BeforeValidator(_expression)]
Span = Annotated[list[float], BeforeValidator(_span)]
FilePath = Annotated[str, BeforeValidator(_path), Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class LabelColumn(_Section):
    """The label's column, and from which range to which its numbers are scaled."""

    column: str = Field(description="the data's name of the label")
    from_: Span | None = Field(default=None, alias="from", description="the range in the data")
    to: Span = Field(default=[0.0, 1.0], description="the range that the loss gets")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.from_ is None and "to" in self.model_fields_set:
            raise ValueError("'from' beside 'to'")
        return self


class Source(_Section):
    """Where rows come from, and what their columns are called."""

    path: FilePath = Field(description="a file, or a folder in BEIR layout")
    format: Literal["jsonl", "json", "csv", "tsv", "parquet", "svmlight", "beir"] | None = Field(
        None, description="None: by the suffix, also under .gz"
    )
    split: str | None = Field(default=None, description="which judgements of a BEIR folder")
    columns: dict[str, Annotated[str | list[str] | LabelColumn, BeforeValidator(_column)]] = Field(
        default_factory=dict, description="the card's inputs, `label` and `weight` -> the data's names"
    )
    limit: int | None = Field(default=None, ge=1, description="read so many rows at most")


class DeleteWords(_Section):
    """Pairs (text_1: a text with words left out, text_2: the text), made anew in every epoch."""

    name: Literal["delete-words"]
    column: str = Field(default="text", min_length=1, description="the data's column of texts")
    ratio: float = Field(default=0.6, gt=0, lt=1, description="the share of words left out, never all of them")


class ContrastiveTensionPairs(_Section):
    """Pairs (text_1, text_2, label: 1 for a text with itself, 0 for it with another), made anew in every epoch."""

    name: Literal["contrastive-tension-pairs"]
    column: str = Field(default="text", min_length=1, description="the data's column of texts")
    ratio: int = Field(default=8, ge=2, description="one pair in so many is a text with itself")


def _transform(value: Any) -> Any:
    """A name stands for the transform with its defaults."""
    value = {"name": value} if isinstance(value, str) else value
    names = ("delete-words", "contrastive-tension-pairs")
    if isinstance(value, Mapping) and value.get("name") not in names:
        raise ValueError(f"{' or '.join(names)}, or a map with that 'name' and options")
    return value


Transform = Annotated[
    Annotated[DeleteWords | ContrastiveTensionPairs, Field(discriminator="name")], BeforeValidator(_transform)
]


class TrainSource(Source):
    """Rows to train on."""

    transform: Transform | None = Field(
        default=None, description="single texts to the pairs that a loss learns from; `columns` are then those of pairs"
    )


class EvalSource(Source):
    """Rows to evaluate on."""

    metrics: list[str] | None = Field(default=None, description="metrics or groups of them; None: what the data allow")


class Data(_Section):
    """Training rows, and rows to evaluate on before, during and after."""

    train: TrainSource = Field(description="training rows")
    eval: EvalSource | None = Field(default=None, description="evaluation rows")


class Training(_Section):
    """How to train: short names, and any of `transformers.TrainingArguments` by its own name."""

    model_config = ConfigDict(extra="allow")

    epochs: float = Field(default=1, gt=0)
    steps: int | None = Field(default=None, ge=1, description="optimizer steps, instead of epochs")
    batch_size: int = Field(default=64, ge=1, description="rows per step of all devices together, before accumulation")
    learning_rate: float = Field(default=2e-5, ge=0)
    warmup: float = Field(default=0.1, ge=0, description="below 1 a share of all steps, else a number of steps")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    batch_sampler: Literal["auto", "no-duplicates", "classes", "random"] = Field(
        default="auto",
        description="auto: without duplicate texts where other rows serve as negatives, "
        "with several texts of a class where texts are compared by their classes",
    )
    samples_per_class: int = Field(default=4, ge=2, description="texts of a class in a batch, with the sampler classes")
    log_every: int = Field(default=10, ge=1, description="steps")
    eval_every: int | None = Field(default=None, ge=1, description="steps; None: before and after only")
    save_every: int | None = Field(default=None, ge=1, description="steps; None: once per epoch")

    @property
    def arguments_given(self) -> dict[str, Any]:
        """What was given by the names of `transformers.TrainingArguments`."""
        return dict(self.model_extra or {})

    def arguments(self, known: Collection[str], devices: int = 1) -> dict[str, Any]:
        """Keyword arguments for `transformers.TrainingArguments`.

        Args:
            known: the names it takes.
            devices: how many share a batch.

        Raises:
            RecipeError: a name that neither it nor we know, or a batch that the devices cannot share evenly.

        >>> Training(epochs=2, bf16=True).arguments({"bf16", "num_train_epochs"})["num_train_epochs"]
        2.0
        """
        given = self.arguments_given
        for name in given:
            if name == "output_dir":
                raise RecipeError("training.output_dir: unknown", fix="write `output` at the top of the recipe")
            if name not in known:
                raise _unknown(["training", name], {*type(self).model_fields, *known})
        ours = {name: value for name, value in self._ours().items() if value is not None}
        if "batch_size" in ours:
            ours["batch_size"], rest = divmod(self.batch_size, devices)
            if rest:
                raise RecipeError("training.batch_size", expected=f"a multiple of {devices}", got=str(self.batch_size))
        if self.warmup >= 1:
            ours["warmup"] = int(self.warmup)
        for name in ("batch_sampler", "samples_per_class"):  # of losskit's Trainer, not of transformers
            ours.pop(name)
        return {TWINS.get(name, name): value for name, value in ours.items()} | given

    def _ours(self) -> dict[str, Any]:
        """The fields whose twin was not given instead."""
        names = [name for name in type(self).model_fields if TWINS.get(name) not in self.arguments_given]
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="before")
    @classmethod
    def _not_twice(cls, given: Any) -> Any:
        for short, long in TWINS.items():
            if isinstance(given, Mapping) and short in given and long in given:
                raise RecipeError(
                    f"training.{short} and training.{long}", expected="one of them, for they are one thing", got="both"
                )
        return given

    @model_serializer(mode="plain")
    def _without_replaced(self) -> dict[str, Any]:
        return self._ours() | self.arguments_given


class Recipe(_Section):
    """Everything that a training run is told."""

    encoder: Expression = Field(description="what is trained: {name: dense, model: FOLDER or NAME, ...}")
    data: Data = Field(description="what it is trained and evaluated on")
    loss: Expression = Field(description="a loss, alone or under wrappers: {name: cosent, scale: 20}")
    execution: Expression | None = Field(
        None, description="{name: direct or grad-cache, ...}; None: chosen for the data"
    )
    training: Training = Field(default=Training(), description="how to train")
    output: FilePath = Field(description="the folder that the trained model is written to")
    plugins: list[str] = Field(default_factory=list, description="distributions it needs, as PEP 508 requirements")

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.training.seed

    @classmethod
    def schema(cls) -> dict[str, Any]:  # type: ignore[override]
        """The JSON schema of a recipe."""
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cls.model_json_schema()}

    def to_dict(self) -> dict[str, Any]:
        """The filled-in recipe as plain maps, lists, strings and numbers."""
        return self.model_dump(mode="json", by_alias=True)

    def to_yaml(self) -> str:
        """The filled-in recipe; reading it gives an equal one."""
        return dump_yaml(self.to_dict())


# Reading


def read_recipe(
    sources: Sequence[str | os.PathLike[str] | Mapping[str, Any]],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    allowed_targets: Collection[str] = (),
) -> Recipe:
    """One recipe from several sources.

    Args:
        sources: YAML files or maps, merged left to right: maps deeply, any other value replaced.
        overrides: `key.sub=value` with a YAML value, or {"key.sub": value}; merged last.
        allowed_targets: `module:Class`, `file.py:Class` and `file.py` that files may name; elsewhere they always may.

    Raises:
        RecipeError: with the path of what is wrong.

    >>> base = {"encoder": {"name": "dense", "model": "m"}, "data": {"train": {"path": "a.csv"}}, "loss": "cosent"}
    >>> recipe = read_recipe([base], ["output=run", "training.learning_rate=2e-5", "loss.scale=10"])
    >>> recipe.loss, recipe.training.learning_rate
    ({'name': 'cosent', 'scale': 10}, 2e-05)
    """
    merged: dict[str, Any] = {}
    for source in sources:
        if isinstance(source, Mapping):
            merged = _merged(merged, source)
        else:
            document = read_document(Path(source))
            _refuse_code(document, Path(source), allowed_targets)
            merged = _merged(merged, document)
    merged = _overridden(merged, overrides)
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise _refusal(error, merged) from None
    _require(recipe.plugins)
    return recipe


def read_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Options of one component from `key=value` and `key.sub=value`, in YAML.

    Raises:
        RecipeError: one of them is none.

    >>> read_options(["margin=2e-1", "loss=cosent", "loss.scale=10"])
    {'margin': 0.2, 'loss': {'name': 'cosent', 'scale': 10}}
    """
    return _overridden({}, overrides)


def _overridden(base: dict[str, Any], overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_override, overrides)
    for key, value in pairs:
        base = _with_override(base, key, value)
    return base


def read_document(path: Path) -> Mapping[str, Any]:
    """What a recipe file says, unchecked.

    Raises:
        RecipeError: it is missing, unreadable, or no YAML of sections.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"recipe {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}", expected="a readable YAML file", got=str(error)) from None
    document = parse_yaml(text, str(path))
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise RecipeError(f"recipe {path}", expected="a map of sections", got=type(document).__name__)
    return document


def _merged(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in new.items():
        old = both.get(key)
        deep = isinstance(value, Mapping)
        both[key] = _merged(old if isinstance(old, Mapping) else {}, value) if deep else value
    return both


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {text!r}", expected="key=value or key.sub=value")
    return key, parse_yaml(value, f"override {key}")


def _with_override(base: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    keys = key.split(".")
    if not all(keys):
        raise RecipeError(f"override {key!r}", expected="key=value or key.sub=value")
    nested = value
    for depth in range(len(keys) - 1, -1, -1):
        nested = {keys[depth]: nested}
    return _merged(_opened(base, keys), nested)


def _opened(base: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The recipe with everything on the way to a key as a map: a component's name becomes {name: ...}."""
    opened = dict(base)
    here, path = opened, []
    for key in keys[:-1]:
        path.append(key)
        inner = here.get(key)
        if isinstance(inner, str) and path[0] in COMPONENTS:
            inner = {"name": inner}
        if inner is not None and not isinstance(inner, Mapping):
            raise RecipeError(f"override {'.'.join(keys)}", expected=f"{'.'.join(path)} to be a map", got=repr(inner))
        here[key] = dict(inner or {})
        here = here[key]
    return opened


# Refusing

_TARGET = re.compile(r".+\.py|.+:[^\W\d][\w.]*", re.DOTALL)


def _refuse_code(document: Mapping[str, Any], file: Path, allowed: Collection[str]) -> None:
    """A file names registered components only; what it names would otherwise be imported, and so run."""
    for section in COMPONENTS:
        for path, text in _strings(document.get(section), section):
            reference = _without_kind(text.strip())
            named = path == section or path.endswith(".name")
            code = is_target(reference) if named else _TARGET.fullmatch(reference)
            # A file that is allowed allows every class in it.
            file_alone = reference.rpartition(":")[0] if ".py:" in reference else reference
            if code and not {text, reference, file_alone} & set(allowed):
                raise RecipeError(
                    f"{path} in {file}",
                    expected="a registered component",
                    got=repr(text),
                    fix=f"if you trust that code, give --plugin {shlex.quote(reference)}",
                )


def _without_kind(reference: str) -> str:
    """What stands behind `kind:`, which may be a name or code."""
    head, _, rest = reference.partition(":")
    return _without_kind(rest) if head in KINDS and rest else reference


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string below, with its path; the trained encoder's prompts are texts, and name nothing."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if f"{path}.{key}" != "encoder.prompts":
                yield from _strings(each, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _strings(each, f"{path}.{index}")


def _require(plugins: Sequence[str]) -> None:
    for index, text in enumerate(plugins):
        try:
            missing = unmet([text], current().installed)
        except UnreadableError:
            raise RecipeError(f"plugins.{index}", expected="a distribution, as 'name>=1.0'", got=repr(text)) from None
        for item in missing:  # which leaves out an address that a stranger's recipe may tell to install from
            wanted, got = item.requirement, item.installed or "not installed"
            raise RecipeError(f"plugins.{index}", expected=wanted, got=got, fix=f"pip install '{wanted}'")


def _refusal(error: ValidationError, recipe: Mapping[str, Any]) -> RecipeError:
    """The most telling of pydantic's findings: an unknown key, else the one that lies deepest."""
    found = [(_keys(each["loc"], recipe, each["type"] == "missing"), each) for each in error.errors()]
    keys, worst = min(found, key=_urgency)
    place = ".".join(keys) or "recipe"
    if worst["type"] == "extra_forbidden":
        return _unknown(keys, _names(keys[:-1]))
    if worst["type"] == "missing":
        return RecipeError(f"{place}: missing; {_description(keys)}")
    refusal = worst.get("ctx", {}).get("error")
    if isinstance(refusal, RecipeError):  # of a validator here
        return refusal
    expected = worst["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if worst["type"] == "model_type":
        expected = f"a map with {', '.join(_names(keys))}"
    return RecipeError(place, expected=expected, got=_short(worst["input"]))


def _urgency(finding: tuple[list[str], ErrorDetails]) -> tuple[bool, int, bool]:
    keys, details = finding
    return details["type"] != "extra_forbidden", -len(keys), details["type"] != "value_error"


def _unknown(keys: Sequence[str], known: Collection[str]) -> RecipeError:
    place, hint = ".".join(keys), did_you_mean(keys[-1], known)
    if hint:
        return RecipeError(f"{place}: unknown; {hint}")
    return RecipeError(f"{place}: unknown", expected=f"one of {', '.join(sorted(known))}" if len(known) < 20 else "")


def _keys(location: Sequence[int | str], recipe: Any, missing: bool) -> list[str]:
    """A pydantic location as the recipe's keys: what is not in the recipe names an arm of a union."""
    keys: list[str] = []
    for index, part in enumerate(location):
        inside = part in recipe if isinstance(recipe, Mapping) else isinstance(recipe, list) and isinstance(part, int)
        if inside:
            recipe = recipe[part]
        if inside or (missing and index == len(location) - 1):
            keys.append(str(part))
    return keys


def _section_at(keys: Sequence[str]) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for key in keys:
        if key in section.model_fields:
            section = next(_sections(section.model_fields[key].annotation), section)
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _sections(each)


def _names(keys: Sequence[str]) -> list[str]:
    return [field.alias or name for name, field in _section_at(keys).model_fields.items()]


def _description(keys: Sequence[str]) -> str:
    return _section_at(keys[:-1]).model_fields[keys[-1]].description or ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
