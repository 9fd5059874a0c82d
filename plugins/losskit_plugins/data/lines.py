"""Rows to files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from losskit.errors import DataError

__all__ = ["write_lines"]


def write_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON lines, and say how many.

    The file is written beside its place and moved there when it is whole: after an error, of the rows too, the
    place is as it was.

    Args:
        path: of the file; its folder is made.
        rows: of values that JSON knows.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    made, count = path.with_name(f".{path.name}.{uuid4().hex[:12]}"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with made.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
        made.replace(path)
    except OSError as error:
        raise DataError(str(path), expected="a file that can be written", got=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):  # nothing is there after a success, nor where nothing could be written
            made.unlink()
    return count
