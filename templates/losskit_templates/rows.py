"""A few rows of data of a loss's shape, for the README of its package."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .shapes import Shape

__all__ = ["rows_of"]

_FACTS = (
    ("What do bees make?", "Bees make honey from nectar.", "Wasps build nests of paper."),
    ("Where do penguins live?", "Penguins live in the southern hemisphere.", "Polar bears live in the Arctic."),
    ("How hot is the sun?", "The surface of the sun has about 5,500 degrees.", "The moon has no atmosphere."),
    ("What is bread made of?", "Bread is made of flour, water and yeast.", "Butter is made of cream."),
)
_PLACES = {"anchor": 0, "query": 0, "positive": 1, "negative": 2}
_LABELS: dict[str, tuple[Any, ...]] = {
    "score": (1.0, 0.75, 0.5, 0.25),
    "binary": (1, 0, 1, 0),
    "class": (0, 1, 0, 1),
    "scores": ([1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [2.0, 1.0]),
    "margins": (2.0, 1.5, 3.0, 2.5),
    "embedding": ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]),
}


def rows_of(shape: Shape) -> list[dict[str, Any]]:
    """Rows with the columns of a shape by the names under which `losskit train` finds them."""
    names = [column.rstrip("*+?") for column in shape.inputs]
    repeated, seen = Counter(names), Counter[str]()
    columns = []
    for name in names:
        seen[name] += 1
        columns.append((f"{name}_{seen[name]}" if repeated[name] > 1 else name, name, seen[name] - 1))
    rows = []
    for index, fact in enumerate(_FACTS):
        row: dict[str, Any] = {column: _value(name, place, fact) for column, name, place in columns}
        if shape.labels != "none":
            row["label"] = _LABELS[shape.labels][index]
        rows.append(row)
    return rows


def _value(name: str, place: int, fact: tuple[str, ...]) -> Any:
    return list(fact[1:]) if name == "documents" else fact[_PLACES.get(name, place)]
