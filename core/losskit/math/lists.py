"""Ragged lists as padded matrices beside a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["pad_alike", "pad_lists", "tuple_index"]


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
    places, where = _places(lists, tensors[0].device)
    return [
        values.new_full((where.numel(),), fill).index_copy(0, places, values).view_as(where) for values in tensors
    ], where


def _places(lists: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the items of lists stand in the flattened padded matrix, [N], and the mask of what is real, [q, n]."""
    # Formed on the host, which knows the lists: elsewhere the search may have to wait, or may not be there.
    counts = torch.tensor(lists, device="cpu", dtype=torch.long)
    where = torch.arange(max(lists, default=0), device="cpu") < counts[:, None]
    places = where.view(-1).nonzero_static(size=sum(lists)).squeeze(1)
    return places.to(device), where.to(device)


def tuple_index(lists: Sequence[int] | None, items: int, device: torch.device) -> Tensor:
    """The tuple that each item belongs to, [items].

    >>> tuple_index((2, 1), 3, torch.device("cpu"))
    tensor([0, 0, 1])
    """
    if lists is None:
        return torch.arange(items, device=device)
    return torch.tensor([row for row, count in enumerate(lists) for _ in range(count)], device=device, dtype=torch.long)
