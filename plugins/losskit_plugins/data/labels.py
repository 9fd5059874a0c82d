"""Which values each kind of label takes, and rows of features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PARSERS", "Scaling", "class_names", "feature_rows", "number", "plain"]


@dataclass(frozen=True)
class Scaling:
    """A straight line from one range of numbers to another.

    >>> Scaling((0.0, 5.0), (0.0, 1.0))(2.5)
    0.5
    """

    source: tuple[float, float]
    target: tuple[float, float]

    def __call__(self, value: float) -> float:
        """One number; ValueError where it lies outside the first range."""
        low, high = self.source
        if not min(low, high) <= value <= max(low, high):
            raise ValueError(f"a number from {low:g} to {high:g}")
        to_low, to_high = self.target
        return to_low + (value - low) / (high - low) * (to_high - to_low)


def plain(value: Any) -> Any:
    """A value as Python's own numbers and lists."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def number(value: Any) -> float:
    """A finite number; from CSV it comes as a string.

    >>> number("4.5")
    4.5
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("a finite number")
    return found


def binary(value: Any) -> int:
    """0 or 1; also true and false."""
    if isinstance(value, str):
        value = {"0": 0, "1": 1}.get(value.strip())
    if value not in (0, 1):
        raise ValueError("0 or 1")
    return int(value)


def class_(value: Any) -> int | str:
    """A class: an integer from 0, or a name."""
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, int | float) or value != value or value < 0 or value % 1:
        raise ValueError("an integer from 0, or a name")
    return int(value)


def numbers(value: Any) -> list[float]:
    """A list of finite numbers, not empty."""
    return _each(value, number, "a list of finite numbers")


def scores(value: Any) -> list[float]:
    """A list of numbers, not empty; minus infinity gives a document the probability 0."""
    expected = "a list of finite numbers, or -Infinity"
    return _each(value, lambda each: each if each == -math.inf else number(each), expected)


def _each(value: Any, parse: Callable[[Any], float], expected: str) -> list[float]:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(expected)
    try:
        return [parse(each) for each in value]
    except ValueError:
        raise ValueError(expected) from None


def margins(value: Any) -> float | list[float]:
    """A finite number, or a list of them: one per negative."""
    return numbers(value) if isinstance(value, list | tuple) else number(value)


def distribution(value: Any) -> list[float]:
    """A list of probabilities, whose sum is 1 to a thousandth."""
    found = numbers(value)
    if min(found) < 0 or abs(sum(found) - 1) > 1e-3:
        raise ValueError("a list of probabilities whose sum is 1")
    return found


def embedding(value: Any) -> list[Any]:
    """A vector, or one vector per column."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        found = [numbers(each) for each in value]
        if len({len(each) for each in found}) > 1:
            raise ValueError("vectors of one length")
        return found
    return numbers(value)


PARSERS: dict[str, Callable[[Any], Any]] = {
    "binary": binary,
    "class": class_,
    "distribution": distribution,
    "score": number,
    "scores": scores,
    "margins": margins,
    "embedding": embedding,
}
"""Per kind of label the value in a row as numbers; ValueError says what was expected."""


def class_names(values: Sequence[int | str]) -> tuple[str, ...] | None:
    """The names of classes in alphabetical order; None where the classes are integers.

    Raises:
        ValueError: integers and names in one column.

    >>> class_names(["b", "a", "b"])
    ('a', 'b')
    >>> class_names(["3", "0"]) is None
    True
    """
    kinds = {type(value) for value in values}
    if kinds == {int, str}:
        raise ValueError("all integers, or all names")
    if kinds == {int} or all(str(value).isascii() and str(value).isdigit() for value in values):
        return None
    return tuple(sorted(set(map(str, values))))


def feature_rows(value: Any) -> list[list[float]]:
    """The documents of a list as rows of features, in float32.

    Raises:
        ValueError: no list of lists of finite numbers, all of one length and none empty.

    >>> feature_rows([[1, 2], [0.5, 3]])
    [[1.0, 2.0], [0.5, 3.0]]
    """
    try:
        with np.errstate(over="ignore"):
            rows = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        rows = np.empty(0, np.float32)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ValueError("a list of documents, each a list of finite numbers, all of one length")
    return rows.tolist()
