"""Lists by rank: what is said of pairs within them, in blocks, with gradients formed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .once import differentiable_once

__all__ = ["average_ranks", "descending", "ordered_pairs", "over_lists"]

PAIRS = 2**16
"""How many pairs a block on the CPU may have, lists that are longer aside: what is made of it stays in the cache."""

PAIRS_ELSEWHERE = 2**22
"""And on other devices, where each block costs some calls."""

Terms = Callable[..., tuple[Tensor, Tensor | None]]


def over_lists(terms: Terms, scores: Tensor, *others: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """f(scores of a list) of each list, [q], for a function that compares all pairs of a list.

    Lists are worked through in blocks of like lengths, each as wide as its longest list, so that the memory is
    that of a block's pairs. The gradients cannot be differentiated again.

    Args:
        terms: from `scores` [b, m] and `others` [b, m] of a block, and `gradient`, whether one is wanted, to the
            values [b] and their gradients by the scores [b, m] or None. No list may depend on the others.
        scores: [q, n].
        others: [q, n] each, without gradient.
        counts: how many of its n entries each list has, always its first ones, as far as that is known on the host;
            None: all.

    >>> def squares(scores, gradient):
    ...     return scores.square().sum(1), 2 * scores if gradient else None
    >>> over_lists(squares, torch.tensor([[1.0, 2.0], [3.0, 0.0]]), counts=(2, 1))
    tensor([5., 9.])
    """
    values: Tensor = _OverLists.apply(terms, counts, scores, *others)  # type: ignore[no-untyped-call]
    return values


def descending(scores: Tensor, where: Tensor | None = None) -> Tensor:
    """The places of each list's scores from the highest to the lowest, [q, n], and then of its padding.

    Equal scores keep the order in which they came.

    >>> descending(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[1, 0, 2]])
    """
    keys = scores.detach()
    if where is not None:
        keys = keys.masked_fill(~where, float("-inf"))
    return keys.argsort(dim=-1, descending=True, stable=True)


def ordered_pairs(ascending: Tensor) -> Tensor:
    """How many pairs (i, j) of each list have y_i > y_j, [q]; minus infinity, as on padding, is in none.

    Args:
        ascending: labels [q, n], sorted.

    >>> ordered_pairs(torch.tensor([[-float("inf"), 0.0, 0.0, 1.0]]))
    tensor([2])
    """
    below = torch.searchsorted(ascending, ascending)
    return (below - _infinite(ascending)).clamp(min=0).sum(-1)


def average_ranks(labels: Tensor) -> Tensor:
    """The rank of each label in its list, 1 being the highest, [q, n]; equal labels share the mean of their ranks.

    Args:
        labels: [q, n], minus infinity on padding.

    >>> average_ranks(torch.tensor([[0.5, 1.0, 0.5, -float("inf")]]))
    tensor([[2.5000, 1.0000, 2.5000, 4.0000]])
    """
    ascending = labels.sort(dim=-1).values
    below = torch.searchsorted(ascending, labels)
    up_to = torch.searchsorted(ascending, labels, right=True)
    return labels.shape[-1] + 0.5 - 0.5 * (below + up_to).to(labels.dtype)


def _infinite(labels: Tensor) -> Tensor:
    """How many labels of each list are minus infinity, [q, 1]."""
    return (labels == float("-inf")).sum(-1, keepdim=True)


class _OverLists(torch.autograd.Function):
    """Blocks of lists, sorted by length."""

    @staticmethod
    def forward(ctx: Any, terms: Terms, counts: Sequence[int] | None, scores: Tensor, *others: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[2]
        ctx.others = len(others)
        lists, width = scores.shape
        lengths = [width] * lists if counts is None else list(counts)
        order = sorted(range(lists), key=lengths.__getitem__)
        blocks = list(_blocks([lengths[place] for place in order], PAIRS if scores.is_cpu else PAIRS_ELSEWHERE))
        if len(blocks) <= 1 and width == max(lengths, default=0):
            values, gradient = terms(scores, *others, gradient=wanted)
        else:
            values, gradient = _of_blocks(terms, blocks, order, (scores, *others), wanted)
        ctx.save_for_backward(*([] if gradient is None else [gradient]))
        return values

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return None, None, gradient * upstream[:, None], *[None] * ctx.others


def _of_blocks(
    terms: Terms, blocks: Sequence[tuple[slice, int]], order: Sequence[int], tensors: Sequence[Tensor], wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Values and gradient of lists that are taken in an order of their own."""
    scores = tensors[0]
    places = torch.tensor(order, device=scores.device, dtype=torch.long)
    taken = [tensor.index_select(0, places) for tensor in tensors]
    values = scores.new_empty(len(scores))
    gradient = torch.zeros_like(scores) if wanted else None
    for part, width in blocks:
        found, own = terms(*(tensor[part, :width] for tensor in taken), gradient=wanted)
        values[part] = found
        if gradient is not None and own is not None:
            gradient[part, :width] = own
    back = torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=places.device))
    return values.index_select(0, back), None if gradient is None else gradient.index_select(0, back)


def _blocks(lengths: Sequence[int], pairs: int) -> Iterator[tuple[slice, int]]:
    """Slices of lists of ascending length, with the length of the last: as many as have so many pairs in all."""
    start = 0
    for place, length in enumerate(lengths):
        if place > start and (place + 1 - start) * length * length > pairs:
            yield slice(start, place), lengths[place - 1]
            start = place
    if start < len(lengths):
        yield slice(start, len(lengths)), lengths[-1]
