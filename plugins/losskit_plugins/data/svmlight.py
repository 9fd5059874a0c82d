"""svmlight with qid: one document per line, `label qid:ID feature:value ...`; the lines of a query make a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from losskit.errors import DataError

from .labels import number

__all__ = ["LARGEST", "read_lists"]

LARGEST = 100_000
"""The highest number of a feature: a document becomes a list with a place for each up to its query's highest."""


@dataclass(frozen=True)
class _Document:
    """A line: where it stands, and what it says."""

    line: int
    query: str
    label: float
    features: dict[int, float]


def read_lists(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query with its documents as dense rows of features, and their labels.

    What a line leaves out is 0. The documents of one query are equally long, up to the highest feature that any of
    them names; what follows `#` is a comment.

    Args:
        path: what error messages call the file.
        lines: of the file.

    Raises:
        DataError: a line that is malformed, or a query whose lines do not stand together.

    >>> list(read_lists(Path("a.svm"), ["2 qid:7 1:0.5 3:1", "0 qid:7 2:4 # a comment"]))
    [('line 1', {'query': '7', 'documents': [[0.5, 0.0, 1.0], [0.0, 4.0, 0.0]], 'labels': [2.0, 0.0]})]
    """
    texts = ((number, line.partition("#")[0].split()) for number, line in enumerate(lines, start=1))
    parsed = (_document(path, number, fields) for number, fields in texts if fields)
    seen: set[str] = set()
    for query, group in groupby(parsed, key=lambda document: document.query):
        documents = list(group)
        line = documents[0].line
        if query in seen:
            raise DataError(
                f"{path}, line {line}", expected="the lines of a query one after another",
                got=f"qid:{query} again, after other queries", fix="sort the file by qid",
            )  # fmt: skip
        seen.add(query)
        yield f"line {line}", _row(query, documents)


def _row(query: str, documents: list[_Document]) -> dict[str, Any]:
    width = max(max(document.features, default=1) for document in documents)
    return {
        "query": query,
        "documents": [[document.features.get(place, 0.0) for place in range(1, width + 1)] for document in documents],
        "labels": [document.label for document in documents],
    }


def _document(path: Path, line: int, fields: list[str]) -> _Document:
    place = f"{path}, line {line}"
    query = fields[1] if len(fields) > 1 else "nothing"
    if not query.startswith("qid:") or query == "qid:":
        raise DataError(place, expected="qid:ID after the label", got=query)
    features: dict[int, float] = {}
    last = 0
    for field in fields[2:]:
        name, _, value = field.partition(":")
        feature = int(name) if name.isascii() and name.isdecimal() else 0
        if not 0 < feature <= LARGEST:
            raise DataError(place, expected=f"feature:value, features from 1 to {LARGEST}", got=repr(field))
        if feature <= last:
            raise DataError(place, expected="features in rising order, each once", got=f"{feature} after {last}")
        features[feature] = _number(place, f"feature {feature}", value)
        last = feature
    return _Document(line, query.removeprefix("qid:"), _number(place, "the label", fields[0]), features)


def _number(place: str, what: str, value: str) -> float:
    try:
        return number(value)
    except ValueError as error:
        raise DataError(f"{place}, {what}", expected=str(error), got=repr(value)) from None
