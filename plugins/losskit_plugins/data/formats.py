"""Rows of files: jsonl, json, csv, tsv, parquet and svmlight, each also gzipped; no torch, no `datasets`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from losskit.errors import DataError, brief

from .svmlight import read_lists

__all__ = ["READERS", "SUFFIXES", "Row", "check_file", "format_of", "read_rows"]

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands ("line 3"), and its values by column."""

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".svm": "svmlight",
    ".svmlight": "svmlight",
}


def format_of(path: Path, given: str | None = None) -> str:
    """The format of a file: as given, else by its suffix.

    Raises:
        DataError: a suffix that says nothing.

    >>> format_of(Path("pairs.csv.gz"))
    'csv'
    """
    if given is not None:
        return given
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if not suffixes or suffixes[-1] not in SUFFIXES:
        raise DataError(
            str(path), expected=f"a suffix among {', '.join(SUFFIXES)}, also with .gz", got=path.name,
            fix="say format: jsonl, json, csv, tsv, parquet or svmlight",
        )  # fmt: skip
    return SUFFIXES[suffixes[-1]]


def check_file(path: Path) -> None:
    """Refuse what is no file that can be read.

    Raises:
        DataError: it is missing, a folder, or empty.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(
            str(path), expected="a file", got="a folder", fix="for a folder in BEIR layout say format: beir"
        )
    if path.stat().st_size == 0:
        raise DataError(str(path), expected="rows", got="an empty file")


def read_rows(path: Path, format: str) -> Iterator[Row]:
    """Every row of a file, as it comes.

    Args:
        path: the file; gzipped if its name ends in .gz.
        format: one of `READERS`.

    Raises:
        DataError: a missing, damaged or empty file, or a malformed row; with its line.
    """
    check_file(path)
    empty = True
    with _readable(path), _opened(path) as stream:
        for row in READERS[format](path, stream):
            empty = False
            yield row
    if empty:
        raise DataError(str(path), expected="rows", got="none")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield raw


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            str(path), expected="a gzip file", got=f"a damaged one ({error})", fix="copy or download it again"
        ) from None
    except OSError as error:
        raise DataError(str(path), expected="a file that can be read", got=error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        raise DataError(str(path), expected="text in UTF-8", got=f"byte 0x{error.object[error.start]:02x}") from None


def _text(stream: BinaryIO, newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)


def _jsonl(path: Path, stream: BinaryIO) -> Iterator[Row]:
    # Lines end at \n alone: texts may hold the other separators that str.splitlines knows.
    with _text(stream, newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"line {number}"
                yield place, _object(path, place, _parsed(path, line.strip(), number))


def _json(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """An array of objects; a file that starts otherwise is read as lines."""
    with _text(stream, newline="\n") as whole:
        text = whole.read()
    if not text.lstrip().startswith("["):
        yield from _jsonl(path, io.BytesIO(text.encode()))
        return
    for number, row in enumerate(_parsed(path, text, 1), start=1):
        place = f"row {number}"
        yield place, _object(path, place, row)


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {line + error.lineno - 1}"
        raise DataError(place, expected="JSON", got=f"{error.msg} at column {error.colno}") from None
    except (RecursionError, ValueError) as error:  # what is nested too deep, or a number too long, for Python
        raise DataError(f"{path}, line {line}", expected="JSON that Python can read", got=brief(error)) from None


def _object(path: Path, place: str, row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}, {place}", expected="an object of columns", got=type(row).__name__)
    return row


def _csv(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """Fields as RFC 4180 quotes them; all values are strings."""
    # Python's own limit of 128 kB is shorter than a long document.
    csv.field_size_limit(2**31 - 1)
    start = 1
    with _text(stream, newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = _header(path, next(reader, []))
            for fields in reader:
                place, start = f"line {start + 1}", reader.line_num
                if fields:
                    yield place, _fields(path, place, header, fields)
        except csv.Error as error:
            raise DataError(
                f"{path}, line {start + 1}", expected="fields quoted as CSV does", got=str(error),
                fix="put a field that holds quotation marks in quotes, and write each mark twice",
            ) from None  # fmt: skip


def _tsv(path: Path, stream: BinaryIO) -> Iterator[Row]:
    """Fields between tabs; nothing is quoted, so a quotation mark is one. All values are strings."""
    with _text(stream, newline="\n") as text:
        lines = (line.rstrip("\r\n") for line in text)
        header = _header(path, next(lines, "").split("\t"))
        for number, line in enumerate(lines, start=2):
            if line:
                place = f"line {number}"
                yield place, _fields(path, place, header, line.split("\t"))


def _fields(path: Path, place: str, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise DataError(f"{path}, {place}", expected=f"{len(header)} fields as in the header", got=str(len(fields)))
    return dict(zip(header, fields, strict=True))


def _header(path: Path, names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line 1", expected="column names, each once", got=f"{', '.join(twice)} twice")
    return names


def _parquet(path: Path, stream: BinaryIO) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    number = 0
    try:
        # A reader needs to seek, which a gzip stream can do only by starting over.
        source = pa.BufferReader(stream.read()) if path.suffix.lower() == ".gz" else stream
        for batch in parquet.ParquetFile(source).iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except pa.ArrowException as error:
        _damaged(path, error)


def _svmlight(path: Path, stream: BinaryIO) -> Iterator[Row]:
    with _text(stream) as lines:
        yield from read_lists(path, lines)


def _damaged(path: Path, error: Exception) -> NoReturn:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise DataError(str(path), expected="a parquet file", got=f"a damaged one ({reason})") from None


READERS: dict[str, Callable[[Path, BinaryIO], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "svmlight": _svmlight,
}
