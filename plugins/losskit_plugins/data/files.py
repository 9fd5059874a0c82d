"""Files as data sets: looked at cheaply, matched with a loss, then read, checked and cached through `datasets`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losskit import __version__
from losskit.card import Format
from losskit.errors import DataError
from losskit.recipe import EvalSource, Source

from . import beir
from .columns import Column, Match, match
from .formats import Row, format_of, read_rows

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "EVALUATION_FORMATS",
    "Peek",
    "checked_rows",
    "files_of",
    "format_name",
    "load",
    "match_evaluation",
    "match_source",
    "peek",
    "read",
]


EVALUATION_FORMATS = (
    Format(["text", "text"], "score"),
    Format(["text"], "class"),
    Format(["anchor", "positive", "negative*"]),
    Format(["query", "documents"], "scores"),
    Format(["query", "positive", "negative*"], "scores"),
)
"""What data can be evaluated on, beside BEIR folders."""


@dataclass(frozen=True)
class Peek:
    """The first rows of a source.

    Args:
        columns: names of all columns.
        rows: by column.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]


def files_of(source: Source) -> tuple[Path, ...]:
    """The files that a source is read from."""
    path = Path(source.path)
    return beir.files_of(path, source.split) if format_name(source) == "beir" else (path,)


def peek(source: Source, count: int = 20) -> Peek:
    """Columns and first rows; reads little, and imports neither torch, transformers nor `datasets`.

    Raises:
        DataError: no such file, or one that is empty, damaged or malformed at its start.
    """
    rows = [dict(row) for _, row in itertools.islice(_rows(source), count)]
    columns = dict.fromkeys(name for row in rows for name in row)
    return Peek(tuple(columns), tuple(rows))


def match_source(source: Source, formats: Sequence[Format], loss: str = "the loss") -> Match:
    """Which columns of a source are which inputs of a loss, before anything heavy is imported.

    Raises:
        DataError: it cannot be read, or fits none of the formats.
    """
    seen = peek(source)
    return match(seen.columns, formats, source.columns, where=source.path, loss=loss, sample=seen.rows)


def read(source: Source, matched: Match, *, progress: bool = False) -> tuple[Dataset, Match]:
    """All rows, each checked; cached by `datasets` under path, size and time of change.

    Args:
        source: where from.
        matched: what to read.
        progress: show a bar.

    Returns:
        The rows with the data's own names, labels as they stand; and the match with class names, if it has some.

    Raises:
        DataError: a row that is malformed or has a wrong value; with file, line and column.
    """
    from datasets import Dataset, config
    from datasets.exceptions import DatasetGenerationError

    key: dict[str, Any] = {
        "source": source.model_dump(include=set(Source.model_fields)),
        "matched": matched,
        "stamp": _stamp(source),
        "losskit": __version__,
    }
    features = _features(matched, next(checked_rows(source, matched)))
    with _bars(progress):
        try:
            rows = Dataset.from_generator(_cached, features=features, gen_kwargs=key)
        except OSError as error:
            raise DataError(
                f"cache folder {config.HF_DATASETS_CACHE}", expected="one that can be written",
                got=error.strerror or str(error), fix="name another as HF_DATASETS_CACHE",
            ) from error  # fmt: skip
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, DataError):
                raise error.__cause__ from None
            raise DataError(source.path, expected="rows that can be stored", got=str(error.__cause__)) from error
    assert isinstance(rows, Dataset)
    if matched.label is not None and matched.label.kind == "class":
        matched = matched.with_classes(rows.unique(matched.label.data))
    return rows, matched


def match_evaluation(source: EvalSource) -> Match | None:
    """Which columns of evaluation data are which, before anything heavy is imported; None for a BEIR folder.

    Raises:
        DataError: it cannot be read, or fits none of `EVALUATION_FORMATS`.
    """
    if format_name(source) == "beir":
        peek(source, 1)
        return None
    return match_source(source, EVALUATION_FORMATS, "evaluation")


def checked_rows(source: Source, matched: Match) -> Iterator[dict[str, Any]]:
    """All rows, each checked, as they are read; labels as they stand.

    Raises:
        DataError: a row that is malformed or has a wrong value; with file, line and column.
    """
    kind: type | None = None
    for place, row in _rows(source):
        values = matched.row(row, place)
        if matched.label is not None:
            value = values[matched.label.data]
            kind = kind or type(value)
            if type(value) is not kind:
                raise DataError(
                    f"{matched.where}, {place}, column {matched.label.data!r}",
                    expected=f"{kind.__name__} as in the rows before", got=repr(value),
                )  # fmt: skip
        yield values


def load(
    source: Source, formats: Sequence[Format], *, loss: str = "the loss", progress: bool = False
) -> tuple[Dataset, Match]:
    """`match_source` and `read` in one.

    Raises:
        DataError: as they do.
    """
    return read(source, match_source(source, formats, loss), progress=progress)


def format_name(source: Source) -> str:
    """The format of a source: as it says, else by its suffix; "beir" for a folder that looks like it."""
    path = Path(source.path)
    return "beir" if source.format is None and beir.is_beir(path) else format_of(path, source.format)


def _rows(source: Source) -> Iterator[Row]:
    path, name = Path(source.path), format_name(source)
    rows = beir.read_pairs(path, source.split) if name == "beir" else read_rows(path, name)
    return itertools.islice(rows, source.limit)


def _stamp(source: Source) -> tuple[tuple[str, int, int], ...]:
    return tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files_of(source))


def _cached(source: dict[str, Any], matched: Match, stamp: Any, losskit: str) -> Iterator[dict[str, Any]]:
    """The rows for `datasets`; `stamp` and `losskit` are there for the name of the cached copy."""
    return checked_rows(Source(**source), matched)


def _features(matched: Match, first: dict[str, Any]) -> Any:
    """How the rows are stored; where a kind of label has several shapes the first row decides."""
    from datasets import Features

    texts = {column.data: _texts(column) for column in matched.columns}
    return Features({name: texts[name] if name in texts else _feature(first[name]) for name in matched.used})


def _texts(column: Column) -> Any:
    from datasets import List, Value

    if column.features:
        return List(List(Value("float32")))
    return List(Value("string")) if column.many else Value("string")


def _feature(value: Any) -> Any:
    from datasets import List, Value

    if isinstance(value, list):
        return List(_feature(value[0]))
    return Value({str: "string", int: "int64", float: "float64"}[type(value)])


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Progress bars of `datasets`, which are a global switch, as asked for."""
    import datasets

    before = datasets.are_progress_bars_disabled()
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        yield
    finally:
        (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()
