"""Columns: which of the data's columns is which input of a loss, and whether the values can be that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from losskit.card import Format, split_input
from losskit.errors import DataError, did_you_mean
from losskit.recipe import LabelColumn

from .labels import PARSERS, Scaling, class_names, feature_rows, number, plain

__all__ = ["LABEL_COLUMNS", "Column", "Label", "Match", "match"]

LABEL_COLUMNS = ("label", "labels", "score", "scores")
"""What a label may be called without being mapped."""

_STARS = ("*", "+")
_SCALED = ("score", "scores")

Mapped = Mapping[str, str | Sequence[str] | LabelColumn]


@dataclass(frozen=True)
class Column:
    """One column of texts, or of lists of documents that are rows of features.

    Args:
        input: the card's input, "negative".
        name: numbered where the input is repeated, "negative_2".
        data: what the data calls it.
        many: it holds a list per row.
        features: of that list each document is a list of numbers, and no text.
    """

    input: str
    name: str
    data: str
    many: bool = False
    features: bool = False


@dataclass(frozen=True)
class Label:
    """The column of labels.

    Args:
        kind: of `losskit.card.LABELS`.
        data: what the data calls it.
        scaling: of score and scores.
        classes: names of classes, in the order of their ids; None: classes are integers.
    """

    kind: str
    data: str
    scaling: Scaling | None = None
    classes: tuple[str, ...] | None = None

    def parse(self, value: Any) -> Any:
        """The value in a row as it stands, checked; ValueError says what was expected."""
        found = PARSERS[self.kind](plain(value))
        if self.scaling is not None:
            self._scaled(found)
        return found

    def final(self, value: Any) -> Any:
        """A parsed value as the loss gets it: scaled, and a class as its id."""
        if self.kind == "class" and isinstance(value, str):
            if self.classes is None:
                if not value.isdecimal():
                    raise ValueError("an integer from 0, for names of classes have no ids here")
                return int(value)
            if value not in self.classes:
                raise ValueError(f"one of {', '.join(self.classes)}")
            return self.classes.index(value)
        return self._scaled(value)

    def _scaled(self, value: Any) -> Any:
        if self.scaling is None:
            return value
        return [self.scaling(each) for each in value] if isinstance(value, list) else self.scaling(value)


@dataclass(frozen=True)
class Match:
    """Data seen as one format of a loss.

    Args:
        where: what error messages call the data.
        format: that it was matched with.
        columns: in the format's order.
        label: None where the format has none.
        weight: the column of sample weights.
        unused: the data's other columns.
    """

    where: str
    format: Format
    columns: tuple[Column, ...]
    label: Label | None = None
    weight: str | None = None
    unused: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The card's input of each column."""
        return tuple(column.input for column in self.columns)

    @property
    def used(self) -> tuple[str, ...]:
        """The data's names of all that is read, each once."""
        label = () if self.label is None else (self.label.data,)
        weight = () if self.weight is None else (self.weight,)
        return tuple(dict.fromkeys((*(column.data for column in self.columns), *label, *weight)))

    def summary(self) -> str:
        """What is read as what, in one line."""
        parts = [f"{column.name} = {column.data}" for column in self.columns]
        if self.label is not None:
            parts.append(f"label ({self.label.kind}) = {self.label.data}")
        if self.weight is not None:
            parts.append(f"weight = {self.weight}")
        unused = f"; unused: {', '.join(self.unused)}" if self.unused else ""
        return ", ".join(parts) + unused

    def row(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The values of a row that are used, checked, by the data's names.

        Args:
            row: by the data's names.
            place: what error messages call the row: "line 3".

        Raises:
            DataError: a value that is missing, of the wrong type, not finite or out of range.
        """
        values: dict[str, Any] = {
            column.data: self._documents(column, row.get(column.data), place) for column in self.columns
        }
        if self.label is not None:
            raw = row.get(self.label.data)
            try:
                values[self.label.data] = self.label.parse(raw)
                self._check_length(values[self.label.data], values)
            except ValueError as error:
                raise self._refusal(self.label.data, place, str(error), raw) from None
        if self.weight is not None:
            values[self.weight] = self._weight(row.get(self.weight), place)
        return values

    def with_classes(self, values: Sequence[int | str]) -> Match:
        """With the ids of class names set, from all labels of the training data.

        Raises:
            DataError: integers and names in one column.
        """
        if self.label is None or self.label.kind != "class":
            return self
        try:
            return replace(self, label=replace(self.label, classes=class_names(values)))
        except ValueError as error:
            raise DataError(f"{self.where}, column {self.label.data!r}", expected=str(error), got="both") from None

    def _documents(self, column: Column, value: Any, place: str) -> str | list[Any]:
        if column.features:
            try:
                return feature_rows(value)
            except ValueError as error:
                raise self._refusal(column.data, place, str(error), value) from None
        if not column.many:
            if not isinstance(value, str):
                raise self._refusal(column.data, place, "a text", value)
            return value
        texts = list(plain(value)) if isinstance(value, Sequence) and not isinstance(value, str) else None
        if texts is None or not all(isinstance(text, str) for text in texts):
            raise self._refusal(column.data, place, "a list of texts", value)
        if not texts and column.input != "negative":
            raise self._refusal(column.data, place, "at least one text", value)
        return texts

    def _check_length(self, value: Any, texts: Mapping[str, Any]) -> None:
        """A list of labels has one entry per document, of margins one per negative."""
        assert self.label is not None
        if self.label.kind not in ("scores", "margins") or not isinstance(value, list):
            return
        documents = sum(len(texts[column.data]) if column.many else 1 for column in self.columns[1:])
        wanted = documents - (self.label.kind == "margins")
        if len(value) != wanted:
            what = "number" if wanted == 1 else "numbers"
            raise ValueError(f"{wanted} {what}, one for each {'document' if wanted == documents else 'negative'}")

    def _weight(self, value: Any, place: str) -> float:
        assert self.weight is not None
        try:
            weight = number(plain(value))
        except ValueError:
            weight = -1.0
        if weight < 0:
            raise self._refusal(self.weight, place, "a finite number from 0", value)
        return weight

    def _refusal(self, column: str, place: str, expected: str, got: Any) -> DataError:
        text = "nothing" if got is None else repr(plain(got))
        text = text if len(text) <= 80 else f"{text[:77]}..."
        return DataError(f"{self.where}, {place}, column {column!r}", expected=expected, got=text)


def match(
    found: Sequence[str],
    formats: Sequence[Format],
    mapping: Mapped | None = None,
    *,
    where: str = "the data",
    loss: str = "the loss",
    sample: Sequence[Mapping[str, Any]] = (),
) -> Match:
    """Which column is which input; by name, never by position.

    Args:
        found: the data's columns.
        formats: of the loss; the one that uses most columns is taken, of equals the first
            that most of the sample agrees with.
        mapping: the card's inputs, `label` and `weight` to the data's names. Repeated inputs are numbered from 1;
            inputs with `*` or `+` take a name or a list. What is not mapped is looked up under its own name.
        where: what error messages call the data.
        loss: what error messages call the loss.
        sample: a few rows; they say which columns hold lists, and decide between kinds of labels.

    Raises:
        DataError: no format fits; says what was expected, what is there, and how to map it.

    >>> pairs = [Format(["anchor", "positive", "negative*"])]
    >>> match(["question", "positive", "id"], pairs, {"anchor": "question"}).summary()
    'anchor = question, positive = positive; unused: id'
    """
    mapping = dict(mapping or {})
    _check_mapping(found, formats, mapping, where, loss)
    tried = [_attempt(each, _LookUp(found, mapping), where, sample) for each in formats]
    fitting = [attempt.match for attempt in tried if attempt.fits]
    if not fitting:
        raise _no_format(found, formats, min(tried, key=_distance), where, loss)
    most = max(len(each.used) for each in fitting)
    best = [each for each in fitting if len(each.used) == most]
    return _checked_scaling(max(best, key=lambda each: _agreeing(each, sample)), mapping)


@dataclass(frozen=True)
class _Attempt:
    """One format tried: the match as far as it goes, inputs not found, and mapped names it does not have."""

    match: Match
    missing: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.missing and not self.foreign


def _distance(attempt: _Attempt) -> int:
    return len(attempt.missing) + len(attempt.foreign)


class _LookUp:
    """The data's name for an input: as mapped, else its own unless that column is mapped to something else."""

    def __init__(self, found: Sequence[str], mapping: Mapped) -> None:
        self.found, self.mapping = found, mapping
        claimed = {name for value in mapping.values() for name in _names(value)}
        self.free = [name for name in found if name not in claimed]

    def one(self, name: str) -> list[str]:
        if name in self.mapping:
            return _names(self.mapping[name])
        return [name] if name in self.free else []

    def all(self, base: str, index: int) -> Iterator[str]:
        """Those of a starred input: given together under its name, and numbered ones from `index`."""
        if base in self.mapping:
            yield from _names(self.mapping[base])
        elif base in self.free:
            yield base
        while numbered := self.one(f"{base}_{index}"):
            yield from numbered
            index += 1


def _attempt(wanted: Format, look_up: _LookUp, where: str, sample: Sequence[Mapping[str, Any]]) -> _Attempt:
    columns: list[Column] = []
    missing: list[str] = []
    for base, suffix, index in _slots(wanted):
        name = base if index is None else f"{base}_{index}"
        found = list(look_up.all(base, index or 1)) if suffix in _STARS else look_up.one(name)
        if not found and suffix in ("", "+"):
            missing.append(name)
        for offset, data in enumerate(found):
            name = base if index is None else f"{base}_{index + offset}"
            lists = _holds_lists(base, data, sample)
            columns.append(Column(base, name, data, lists, lists and _holds_features(data, sample)))
    label = _label(wanted.labels, look_up)
    if label is None and wanted.labels != "none":
        missing.append("label")
    weight = look_up.mapping.get("weight")
    match = Match(where, wanted, tuple(columns), label, weight if isinstance(weight, str) else None)
    own = {column.name for column in columns} | {column.input for column in columns} | {"weight"}
    own |= set() if label is None else {"label"}
    return _Attempt(
        replace(match, unused=tuple(name for name in look_up.found if name not in match.used)),
        tuple(missing),
        tuple(key for key in look_up.mapping if key not in own),
    )


def _holds_lists(base: str, data: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    return base == "documents" or any(isinstance(plain(row.get(data)), list | tuple) for row in sample[:1])


def _holds_features(data: str, sample: Sequence[Mapping[str, Any]]) -> bool:
    documents = plain(sample[0].get(data)) if sample else None
    return isinstance(documents, list | tuple) and len(documents) > 0 and isinstance(plain(documents[0]), list | tuple)


def _label(kind: str, look_up: _LookUp) -> Label | None:
    if kind == "none":
        return None
    if "label" in look_up.mapping:
        value = look_up.mapping["label"]
        return Label(kind, _names(value)[0], _scaling(value, kind))
    usual = [name for name in LABEL_COLUMNS if name in look_up.free]
    return Label(kind, usual[0]) if len(usual) == 1 else None


def _slots(wanted: Format) -> Iterator[tuple[str, str, int | None]]:
    """Each input of a format: its name, its suffix, and its number where it is repeated."""
    parts = [split_input(name) for name in wanted.inputs]
    often, seen = Counter(base for base, _ in parts), Counter[str]()
    for base, suffix in parts:
        seen[base] += 1
        yield base, suffix, seen[base] if often[base] > 1 or suffix in _STARS else None


def _names(value: str | Sequence[str] | LabelColumn) -> list[str]:
    if isinstance(value, LabelColumn):
        return [value.column]
    return [value] if isinstance(value, str) else list(value)


def _scaling(value: str | Sequence[str] | LabelColumn, kind: str) -> Scaling | None:
    if not isinstance(value, LabelColumn) or value.from_ is None or kind not in _SCALED:
        return None
    return Scaling((value.from_[0], value.from_[1]), (value.to[0], value.to[1]))


def _checked_scaling(chosen: Match, mapping: Mapped) -> Match:
    """The match, unless its labels cannot be scaled as the mapping says."""
    value = mapping.get("label")
    if isinstance(value, LabelColumn) and value.from_ is not None and chosen.format.labels not in _SCALED:
        raise DataError(
            f"columns.label.from of column {value.column!r}", expected=f"a label of numbers ({', '.join(_SCALED)})",
            got=chosen.format.labels, fix="drop from and to",
        )  # fmt: skip
    return chosen


def _agreeing(found: Match, sample: Sequence[Mapping[str, Any]]) -> int:
    """How many of the first rows hold what a format says, up to one that does not."""
    for count, row in enumerate(sample):
        try:
            found.row(row, "a sample")
        except DataError:
            return count
    return len(sample)


def _check_mapping(found: Sequence[str], formats: Sequence[Format], mapping: Mapped, where: str, loss: str) -> None:
    slots = [slot for each in formats for slot in _slots(each)]
    starred = {base for base, suffix, _ in slots if suffix in _STARS}
    numbered = {f"{base}_{index}" for base, suffix, index in slots if index is not None and suffix not in _STARS}
    known = {base for base, _, index in slots if index is None} | starred | numbered | {"label", "weight"}
    for key, value in mapping.items():
        base, _, index = key.rpartition("_")
        if key not in known and not (base in starred and index.isdecimal() and int(index) > 0):
            hint = did_you_mean(key, known) or f"it takes {', '.join(sorted(known))}"
            raise DataError(f"columns.{key} of {where}: no input of {loss}; {hint}")
        names = _names(value)
        if len(names) > 1 and key not in starred:
            raise DataError(f"columns.{key} of {where}", expected="one column", got=", ".join(names))
        for name in names:
            if name not in found:
                raise DataError(
                    f"columns.{key} of {where}", expected=f"one of {', '.join(found)}", got=repr(name),
                    fix=did_you_mean(name, found),
                )  # fmt: skip


def _no_format(found: Sequence[str], formats: Sequence[Format], nearest: _Attempt, where: str, loss: str) -> DataError:
    wanted = " or ".join(_described(each) for each in formats)
    if nearest.foreign:
        fix = f"leave {', '.join(nearest.foreign)} out of columns"
    else:
        fix = f"say which column is which, for example columns: {{{_example(nearest)}}}"
    return DataError(f"columns of {where}", expected=f"{wanted} for {loss}", got=", ".join(found) or "none", fix=fix)


def _example(nearest: _Attempt) -> str:
    """A mapping of what is missing to columns that are not used yet; which is which only the user knows."""
    unused = nearest.match.unused
    labels = iter([name for name in unused if name in LABEL_COLUMNS] + ["NAME"])
    texts = iter([name for name in unused if name not in LABEL_COLUMNS])
    return ", ".join(f"{name}: {next(labels if name == 'label' else texts, 'NAME')}" for name in nearest.missing)


def _described(wanted: Format) -> str:
    inputs = ", ".join(
        f"{base}{suffix}" if index is None or suffix else f"{base}_{index}" for base, suffix, index in _slots(wanted)
    )
    return inputs if wanted.labels == "none" else f"{inputs} and label ({wanted.labels})"
