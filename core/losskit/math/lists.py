"""Ragged lists as padded matrices beside a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["list_index", "pad_alike", "pad_lists", "tuple_index"]


def list_index(lists: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where item j of list i lies in the flat values, [q, n], and whether there is one, [q, n].

    On padding stands some place that there is.

    >>> list_index([2, 1], torch.device("cpu"))
    (tensor([[0, 1],
            [2, 2]]), tensor([[ True,  True],
            [ True, False]]))
    """
    counts = torch.tensor(list(lists), device=device, dtype=torch.long)
    positions = torch.arange(max(lists, default=0), device=device)
    where = positions < counts[:, None]
    starts = counts.cumsum(0).sub_(counts)
    return (starts[:, None] + positions).clamp_(max=max(sum(lists) - 1, 0)), where


def pad_lists(values: Tensor, lists: Sequence[int], fill: float = 0) -> tuple[Tensor, Tensor]:
    """Flat values [N] as [q, n], padded with `fill`, beside the mask of what is real.

    >>> pad_lists(torch.tensor([3.0, 1.0, 2.0]), (2, 1))
    (tensor([[3., 1.],
            [2., 0.]]), tensor([[ True,  True],
            [ True, False]]))
    """
    (padded,), where = pad_alike([values], lists, fill)
    return padded, where


def pad_alike(tensors: Sequence[Tensor], lists: Sequence[int], fill: float = 0) -> tuple[list[Tensor], Tensor]:
    """`pad_lists` of several flat values of the same lists.

    >>> pad_alike([torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 0, 1])], (2, 1))[0]
    [tensor([[3., 1.],
            [2., 0.]]), tensor([[1, 0],
            [1, 0]])]
    """
    if len(set(lists)) == 1:
        shape = len(lists), lists[0]
        return [values.view(shape) for values in tensors], tensors[0].new_ones(shape, dtype=torch.bool)
    index, where = list_index(lists, tensors[0].device)
    return [torch.where(where, values[index], fill) for values in tensors], where


def tuple_index(lists: Sequence[int] | None, items: int, device: torch.device) -> Tensor:
    """The tuple that each item belongs to, [items].

    >>> tuple_index((2, 1), 3, torch.device("cpu"))
    tensor([0, 0, 1])
    """
    if lists is None:
        return torch.arange(items, device=device)
    return torch.tensor([row for row, count in enumerate(lists) for _ in range(count)], device=device, dtype=torch.long)
