"""Cards: what is known of a component without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from .errors import LosskitError

__all__ = ["API_VERSION", "FAMILIES", "INPUTS", "KINDS", "LABELS", "Card", "CardError", "Format"]

API_VERSION = "1"
KINDS = ("loss", "wrapper", "regularizer", "weighting", "similarity", "encoder")
FAMILIES = ("dense", "sparse", "multi-vector", "cross-encoder")
INPUTS = ("anchor", "positive", "negative", "text", "query", "documents")
LABELS = ("none", "binary", "class", "distribution", "score", "scores", "margins", "embedding")


class CardError(LosskitError):
    """A card that says something impossible."""


@dataclass(frozen=True, slots=True)
class Format:
    """One shape of data that a loss trains on.

    Args:
        inputs: names of the text columns in order, each of `INPUTS`; a suffix says how many:
            `*` zero or more, `+` one or more, `?` optional. At most one of `*` and `+`, and last.
        labels: one of `LABELS`.
        outputs: how many numbers a cross-encoder must put out: an integer, or "classes".

    >>> Format(["anchor", "positive", "negative*"]).arity
    (2, None)
    """

    inputs: Sequence[str]
    labels: str = "none"
    outputs: int | Literal["classes"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _names("inputs", self.inputs))
        if not self.inputs:
            raise CardError("Format.inputs", expected="at least one column", got="none")
        for position, column in enumerate(self.inputs):
            base, suffix = split_input(column)
            if base not in INPUTS:
                raise CardError("Format.inputs", expected=f"names among {', '.join(INPUTS)}", got=repr(column))
            if suffix in ("*", "+") and position != len(self.inputs) - 1:
                raise CardError("Format.inputs", expected=f"{column!r} last", got=f"position {position + 1}")
        _choice("Format.labels", self.labels, LABELS)
        if not (self.outputs in (None, "classes") or (type(self.outputs) is int and self.outputs > 0)):
            raise CardError("Format.outputs", expected="a positive integer, 'classes' or None", got=repr(self.outputs))

    @property
    def arity(self) -> tuple[int, int | None]:
        """The fewest and the most columns, the most being None where there is no limit."""
        suffixes = [split_input(column)[1] for column in self.inputs]
        fewest = sum(suffix in ("", "+") for suffix in suffixes)
        return fewest, None if {"*", "+"} & set(suffixes) else len(suffixes)


def split_input(column: str) -> tuple[str, str]:
    """An input and its suffix: 'negative*' -> ('negative', '*')."""
    return (column[:-1], column[-1]) if column[-1:] in ("*", "+", "?") else (column, "")


@dataclass(frozen=True, slots=True)
class Card:
    """What a component says of itself; read from source as a literal, so that listing imports nothing.

    Args:
        formats: the data a loss trains on; empty for other kinds.
        encoders: encoder families it works with, of `FAMILIES`.
        needs: what it reads of an `Output` beyond the embedding: "layers", "input_ids", names in `parts`;
            with `?` only where the features have an entry of that name.
        row_wise: the loss of a batch is the mean of the losses of its rows given all columns.
        stochastic: it draws random numbers.
        reads: which columns each encoder reads, `{"model": [0], "guide": None}`; None: all, -1: the last.
        fixed_dimension: its parameters, draws or state have the encoder's width.
        memory: growth beyond its inputs, in B, D, V, n; "tile" when bounded.
        formula: the loss in one line.
        citation: BibTeX.
        requires: PEP 508 requirements beyond its distribution's own.
        api: the version of the losskit interface it was written for.
        aliases: further names, kept for saved recipes.
        recommends: names of components that go well with it.
        relations: how it relates to other components, in sentences.
        requirements: what it asks of data or model, in sentences.
        deviations: check id -> why this component may fail it.
    """

    formats: Sequence[Format] = ()
    encoders: Sequence[str] = ()
    needs: Sequence[str] = ()
    row_wise: bool = True
    stochastic: bool = False
    reads: Mapping[str, Sequence[int] | None] | None = None
    fixed_dimension: bool = False
    memory: str = "B"
    formula: str = ""
    citation: str = ""
    requires: Sequence[str] = ()
    api: str = API_VERSION
    aliases: Sequence[str] = ()
    recommends: Sequence[str] = ()
    relations: Sequence[str] = ()
    requirements: Sequence[str] = ()
    deviations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        formats: object = self.formats
        if not isinstance(formats, list | tuple) or not all(isinstance(item, Format) for item in formats):
            raise CardError("Card.formats", expected="a list of Format(...)", got=repr(formats))
        object.__setattr__(self, "formats", tuple(self.formats))
        for name in ("encoders", "needs", "requires", "aliases", "recommends", "relations", "requirements"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        for family in self.encoders:
            _choice("Card.encoders", family, FAMILIES)
        for name in ("row_wise", "stochastic", "fixed_dimension"):
            if not isinstance(getattr(self, name), bool):
                raise CardError(f"Card.{name}", expected="True or False", got=repr(getattr(self, name)))
        for name in ("memory", "formula", "citation", "api"):
            if not isinstance(getattr(self, name), str):
                raise CardError(f"Card.{name}", expected="a string", got=repr(getattr(self, name)))
        for name in ("reads", "deviations"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise CardError(f"Card.{name}", expected="a dict", got=repr(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """The card as plain lists, dicts, strings and numbers."""
        record = {item.name: getattr(self, item.name) for item in fields(self)}
        record["formats"] = [
            {"inputs": list(item.inputs), "labels": item.labels, "outputs": item.outputs} for item in self.formats
        ]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}


def _names(field_name: str, value: object) -> tuple[str, ...]:
    if value == ():  # what most fields of most cards are
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise CardError(field_name, expected="a list of strings", got=repr(value))
    return tuple(value)


def _choice(culprit: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise CardError(culprit, expected=f"one of {', '.join(choices)}", got=repr(value))
