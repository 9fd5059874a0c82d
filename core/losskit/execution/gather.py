"""Gathering records of all processes, with gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..output import Output, pad_token_axes, token_widths

__all__ = ["Gathered", "gather", "world_size"]


def world_size() -> int:
    """The number of processes; 1 without distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@dataclass(frozen=True)
class Gathered:
    """Columns and labels of all processes, in the order of ranks.

    Args:
        columns: records of all tuples.
        labels: of all tuples.
        rows: the tuples of this process.
        tuples: how many there are on each rank.
    """

    columns: list[Output]
    labels: Tensor | None
    rows: slice
    tuples: list[int]


def gather(columns: Sequence[Output], labels: Tensor | None) -> Gathered:
    """Columns of all processes; gradients are summed over processes in the backward.

    Sizes may differ between ranks, which costs one host read of them; every rank needs a row.
    """
    rank = dist.get_rank()
    own = [_Shape.of(column) for column in columns], 0 if labels is None else labels.shape[0]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    shapes = [list(per_rank) for per_rank in zip(*(columns_of for columns_of, _ in everyone), strict=True)]
    joined = [_gather_output(column, ranks) for column, ranks in zip(columns, shapes, strict=True)]
    tuples = [shape.tuples for shape in shapes[0]]
    start = sum(tuples[:rank])
    whole = None if labels is None else _gather_tensor(labels, [size for _, size in everyone])
    return Gathered(joined, whole, slice(start, start + tuples[rank]), tuples)


@dataclass(frozen=True)
class _Shape:
    """What the other ranks must know of a column."""

    items: int
    tuples: int
    lists: tuple[int, ...] | None
    widths: list[int]

    @classmethod
    def of(cls, column: Output) -> _Shape:
        return cls(column.items, column.tuples, column.lists, token_widths(column))


def _gather_output(column: Output, shapes: Sequence[_Shape]) -> Output:
    longest = [max(widths) for widths in zip(*(shape.widths for shape in shapes), strict=True)]
    column = pad_token_axes(column, longest)
    sizes = [shape.items for shape in shapes]
    whole = column.map(lambda tensor: _gather_tensor(tensor, sizes))
    if all(shape.lists is None for shape in shapes):
        return whole
    return replace(whole, lists=tuple(n for shape in shapes for n in (shape.lists or (1,) * shape.items)))


def _gather_tensor(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    gathered: Tensor = _GatherRows.apply(tensor, tuple(sizes))  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    """Rows of all ranks one after another; the gradient of a rank's rows is the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        longest = max(sizes)
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: tensor.shape[0]] = tensor
        # Booleans have no collectives everywhere.
        carried = padded.to(torch.uint8) if padded.dtype == torch.bool else padded
        pieces = [torch.empty_like(carried) for _ in sizes]
        dist.all_gather(pieces, carried.contiguous())
        whole = torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])
        whole = whole.to(tensor.dtype)
        if not tensor.is_floating_point():
            ctx.mark_non_differentiable(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        start = sum(ctx.sizes[: dist.get_rank()])
        return gradient[start : start + ctx.sizes[dist.get_rank()]], None
