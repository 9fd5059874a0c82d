"""What commands write: JSON and tables to stdout, messages to stderr."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["plain", "say", "write", "write_entry", "write_json", "write_line", "write_row", "write_table", "write_text"]

LABEL = 13
"""Columns of the labels of entries."""
NARROW = 40
"""Columns of a terminal below which texts begin right behind their labels."""


def plain(text: object, *, keep: str = "") -> str:
    r"""Text that cannot steer a terminal: what is not printable is spelled out.

    >>> plain("red \x1b[31m")
    'red \\x1b[31m'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def say(message: object) -> None:
    """A message for the user, on stderr, in one line."""
    print(plain(message), file=sys.stderr)  # noqa: T201


def write(line: object = "") -> None:
    """A line that was asked for, on stdout: a line break in it is spelled out, lest it forge another line."""
    print(plain(line))  # noqa: T201


def write_text(text: str) -> None:
    """Lines that were asked for, on stdout, the first of them as it is and what follows it visibly below it."""
    first, *rest = text.split("\n")
    write(first)
    for line in rest:
        write(line if line[:1] in ("", " ", "}", "@") else f"  {line}")


def write_line(text: str, style: str = "") -> None:
    """A line that is wrapped, and may stand out, on a terminal."""
    if not sys.stdout.isatty():
        write(text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text(plain(text), style=style))


def write_entry(label: str, text: str) -> None:
    """A label and its text, wrapped on a terminal; nothing for an empty text."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    label = f"  {label:<{LABEL - 1}} "
    if width < NARROW:
        label, indent = f"  {label.strip()} " if label.strip() else "  ", " " * 4
    else:
        indent = " " * len(label)
    if text:
        text = plain(" ".join(text.split()))
        print(textwrap.fill(text, width, initial_indent=label, subsequent_indent=indent, break_on_hyphens=False))  # noqa: T201


def write_json(record: dict[str, Any]) -> None:
    """A JSON document with its schema version, on stdout, never styled."""
    # The one character of ASCII beside line breaks that steers a terminal and that JSON may hold as it is.
    print(json.dumps({"schema": 1, **record}, indent=2, default=str).replace("\x7f", "\\u007f"))  # noqa: T201


def write_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, sections: bool = False) -> None:
    """A table on a terminal; elsewhere a line of headings and lines of cells, separated by tabs.

    Args:
        columns: headings.
        rows: cells.
        sections: on a terminal the first column becomes headings between the rows.
    """
    cells = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, sections)
        return
    for row in [[name.upper() for name in columns], *cells]:
        write_row(row)


def write_row(cells: Sequence[str]) -> None:
    """A line of a table for a pipe, which its reader gets at once."""
    print("\t".join(map(plain, cells)), flush=True)  # noqa: T201


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], sections: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    widths = _fitted(list(zip(columns, *rows, strict=True))[sections:], console.width - len(columns))
    for name, width in zip(columns[sections:], widths, strict=True):
        table.add_column(name, overflow="fold", width=width)
    section = ""
    for row in rows:
        if sections and row[0] != section:
            section = row[0]
            table.add_row(Text(section, style="bold cyan"))
        cells = zip(row[sections:], widths, strict=True)
        table.add_row(*(Text("\n".join(textwrap.wrap(cell, width))) for cell, width in cells))
    console.print(table)


def _fitted(columns: Sequence[Sequence[str]], available: int) -> list[int]:
    """Widths of columns of cells that fit: the roomiest are wrapped, at spaces, else at hyphens, else anywhere.

    >>> columns = [["one two"], ["three-four"]]
    >>> _fitted(columns, 20), _fitted(columns, 13), _fitted(columns, 10), _fitted(columns, 6)
    ([7, 10], [3, 10], [3, 7], [3, 3])
    """
    widths = [max(map(len, cells)) for cells in columns]
    for separator in (r"\s+", r"\s+|(?<=-)", ""):
        least = [max(map(len, re.split(separator, " ".join(cells)))) for cells in columns]
        while sum(widths) > available:
            room = [width - smallest for width, smallest in zip(widths, least, strict=True)]
            if max(room) <= 0:
                break
            widths[room.index(max(room))] -= 1
    return widths
