"""Plans: which items of which columns share a forward of the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ..features import can_share, count, join, lengths, take, width
from ..output import Output
from ..protocols import Encoder, Features
from .values import Direct, Execution, GradCache

__all__ = ["Chunk", "Piece", "assemble", "chunk_features", "make_plan", "separately"]

MERGE_SLACK = 1.1
"""Columns are merged if the widest is at most so many times the narrowest: beyond, padding costs more."""


@dataclass(frozen=True)
class Piece:
    """Some items of one column, or all of it."""

    column: int
    rows: tuple[int, ...] | None = None


Chunk = tuple[Piece, ...]
"""The pieces of one forward, in their order in its batch."""


@cache
def separately(columns: int) -> Sequence[Chunk]:
    """A forward for each column."""
    return tuple((Piece(index),) for index in range(columns))


def make_plan(encoder: Encoder, columns: Sequence[Features], execution: Execution) -> Sequence[Chunk]:
    """The forwards that encode all columns."""
    if isinstance(execution, GradCache):
        tokens, size = execution.mini_batch_tokens, execution.mini_batch_size
    else:
        assert isinstance(execution, Direct)
        tokens, size = execution.tokens, None
    if tokens is not None:
        return [chunk for group in _groups(columns, None) for chunk in _packed(encoder, columns, group, tokens)]
    # Without a token axis nothing is known to be gained by merging.
    merges = execution.merge and len(columns) > 1 and any(map(width, columns))
    if size is None and not merges:
        return separately(len(columns))
    groups = _groups(columns, MERGE_SLACK) if merges else [[index] for index in range(len(columns))]
    if size is None:
        return [tuple(Piece(index) for index in group) for group in groups]
    return [chunk for group in groups for chunk in _cut(encoder, columns, group, size)]


def chunk_features(encoder: Encoder, columns: Sequence[Features], chunk: Chunk) -> Features:
    """The features of one forward."""
    pieces = [
        columns[piece.column] if piece.rows is None else take(encoder, columns[piece.column], piece.rows)
        for piece in chunk
    ]
    return pieces[0] if len(pieces) == 1 else join(encoder, pieces)


def assemble(
    encoder: Encoder, columns: Sequence[Features], plan: Sequence[Chunk], outputs: Sequence[Output]
) -> list[Output]:
    """The records of whole columns, in order, from the records of the chunks."""
    if plan is separately(len(columns)):
        return list(outputs)
    if all(len(chunk) == 1 and chunk[0].rows is None for chunk in plan):
        return [outputs[position] for _, position in sorted((chunk[0].column, i) for i, chunk in enumerate(plan))]
    sizes = [count(encoder, features) for features in columns]
    if all(piece.rows is None for chunk in plan for piece in chunk):
        return _whole_columns(plan, outputs, sizes)
    joined = Output.cat(outputs)
    places: list[list[int]] = [[0] * size for size in sizes]
    position = 0
    for chunk in plan:
        for piece in chunk:
            for row in range(sizes[piece.column]) if piece.rows is None else piece.rows:
                places[piece.column][row] = position
                position += 1
    return [_gather_rows(joined, rows) for rows in places]


def _gather_rows(output: Output, rows: list[int]) -> Output:
    start = rows[0] if rows else 0
    if rows == list(range(start, start + len(rows))):
        return output.map(lambda tensor: tensor[start : start + len(rows)])
    index = torch.tensor(rows, device=output.tensors()[0].device)
    return output.map(lambda tensor: tensor.index_select(0, index))


def _whole_columns(plan: Sequence[Chunk], outputs: Sequence[Output], sizes: Sequence[int]) -> list[Output]:
    """The quick way where every piece is a whole column: one split per chunk."""
    columns: dict[int, Output] = {}
    for chunk, output in zip(plan, outputs, strict=True):
        counts = [sizes[piece.column] for piece in chunk]
        columns.update(zip((piece.column for piece in chunk), output.split(counts), strict=True))
    return [columns[index] for index in range(len(sizes))]


def _groups(columns: Sequence[Features], slack: float | None) -> list[list[int]]:
    """Columns that may share a forward; with a slack, of like width only."""
    groups: list[list[int]] = []
    for index in sorted(range(len(columns)), key=lambda i: (width(columns[i]), i)):
        for group in groups:
            narrowest = columns[group[0]]
            if _alike(width(narrowest), width(columns[index]), slack) and can_share(narrowest, columns[index]):
                group.append(index)
                break
        else:
            groups.append([index])
    return sorted(sorted(group) for group in groups)


def _alike(narrower: int, wider: int, slack: float | None) -> bool:
    """Whether padding one column to the other's width is cheap."""
    return slack is None or 0 < wider <= slack * narrower


def _cut(encoder: Encoder, columns: Sequence[Features], group: Sequence[int], size: int) -> list[Chunk]:
    """Consecutive blocks of at most `size` items."""
    items = [(column, row) for column in group for row in range(count(encoder, columns[column]))]
    return [_chunk(items[start : start + size]) for start in range(0, len(items), size)]


def _packed(encoder: Encoder, columns: Sequence[Features], group: Sequence[int], tokens: int) -> list[Chunk]:
    """Items sorted by length, the longest first, in packs of at most `tokens` padded tokens."""
    items = [(length, column, row) for column in group for row, length in enumerate(lengths(encoder, columns[column]))]
    items.sort(key=lambda item: (-item[0], item[1], item[2]))
    chunks: list[Chunk] = []
    start = 0
    while start < len(items):
        count = max(1, tokens // max(1, items[start][0]))
        chunks.append(_chunk([(column, row) for _, column, row in items[start : start + count]]))
        start += count
    return chunks


def _chunk(items: Sequence[tuple[int, int]]) -> Chunk:
    rows: dict[int, list[int]] = {}
    for column, row in items:
        rows.setdefault(column, []).append(row)
    return tuple(Piece(column, tuple(picked)) for column, picked in sorted(rows.items()))
