"""Lists by rank: what is said of pairs within them, in blocks, with gradients formed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .once import differentiable_once

__all__ = ["average_ranks", "descending", "over_lists"]

PAIRS = 2**16
"""How many pairs a block on the CPU may have, lists that are longer aside: what is made of it stays in the cache."""

PAIRS_ELSEWHERE = 2**22
"""And on other devices, where each block costs some calls."""

Terms = Callable[..., tuple[Tensor, Tensor, Tensor | None]]


def over_lists(
    terms: Terms,
    scores: Tensor,
    *others: Tensor,
    counts: Sequence[int] | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The sum of each list's terms, [q], and how many there are, [q], where terms compare all pairs of a list.

    Lists are worked through in blocks of like lengths, each as wide as its longest list, so that the memory is
    that of a block's pairs. The gradients cannot be differentiated again.

    Args:
        terms: from `scores` [b, m] and `others` [b, m] of a block, and `gradient`, whether one is wanted, to
            sums [b], numbers [b], and the gradients of the sums by the scores [b, m] or None. No list may depend
            on another.
        scores: [q, n].
        others: [q, n] each, without gradient.
        counts: how many of its n entries each list has, always its first ones, as far as that is known on the host;
            None: all.
        order: the places [q, n] of the scores in the order in which `terms` sees them; `others` are in it already,
            and so is what counts as a list's first entries.

    >>> def squares(scores, gradient):
    ...     return scores.square().sum(1), (scores != 0).sum(1), 2 * scores if gradient else None
    >>> over_lists(squares, torch.tensor([[1.0, 2.0], [3.0, 0.0]]), counts=(2, 1))
    (tensor([5., 9.]), tensor([2, 1]))
    """
    if not scores.shape[1]:
        return scores.sum(1), scores.new_zeros(len(scores), dtype=torch.long)
    if not torch.is_grad_enabled():
        scores = scores.detach()  # else the Function is asked for a gradient all the same
    made: tuple[Tensor, Tensor] = _OverLists.apply(terms, counts, order, scores, *others)  # type: ignore[no-untyped-call]
    return made


def descending(scores: Tensor, where: Tensor | None = None) -> Tensor:
    """The places of each list's scores from the highest to the lowest, [q, n], and then of its padding.

    Equal scores keep the order in which they came.

    >>> descending(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[1, 0, 2]])
    """
    keys = scores.detach()
    if where is not None:
        keys = torch.where(where, keys, float("-inf"))
    return keys.argsort(dim=-1, descending=True, stable=True)


def average_ranks(labels: Tensor, where: Tensor) -> Tensor:
    """The rank of each label in its list, 1 being the highest, [q, n]; equal labels share the mean of their ranks.

    >>> average_ranks(torch.tensor([[0.5, 1.0, 0.5]]), torch.tensor([[True, True, True]]))
    tensor([[2.5000, 1.0000, 2.5000]])
    """
    # Of tensors that are not contiguous searchsorted copies, and warns.
    padded = torch.where(where, labels, float("-inf")).contiguous()
    ascending = padded.sort(dim=-1).values
    # Padding is the lowest; beside labels of minus infinity it is left out of what lies below.
    below = torch.maximum(torch.searchsorted(ascending, padded), (~where).sum(-1, keepdim=True))
    up_to = torch.searchsorted(ascending, padded, right=True)
    return (below + up_to).to(padded.dtype).mul_(-0.5).add_(labels.shape[-1] + 0.5)


class _OverLists(torch.autograd.Function):
    """Blocks of lists, sorted by length."""

    @staticmethod
    def forward(
        ctx: Any, terms: Terms, counts: Sequence[int] | None, order: Tensor | None, scores: Tensor, *others: Tensor
    ) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[3]
        ctx.others = len(others)
        if order is not None:
            scores = scores.gather(1, order)
        sums, numbers, gradient = _in_blocks(terms, counts, (scores, *others), wanted)
        if gradient is not None and order is not None:
            gradient = torch.empty_like(gradient).scatter_(1, order, gradient)
        ctx.save_for_backward(*([] if gradient is None else [gradient]))
        ctx.mark_non_differentiable(numbers)
        return sums, numbers

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return None, None, None, gradient * upstream[:, None], *[None] * ctx.others


def _in_blocks(
    terms: Terms, counts: Sequence[int] | None, tensors: Sequence[Tensor], wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `terms` gives of all lists, from the shortest to the longest where one block is not enough."""
    scores = tensors[0]
    lists, width = scores.shape
    pairs = PAIRS if scores.is_cpu else PAIRS_ELSEWHERE
    if lists * width * width <= pairs:
        return terms(*tensors, gradient=wanted)
    # A list without documents has a place of padding.
    lengths = [width] * lists if counts is None else [max(1, count) for count in counts]
    order = sorted(range(lists), key=lengths.__getitem__)
    blocks = _blocks([lengths[place] for place in order], pairs)
    places = torch.tensor(order, device=scores.device, dtype=torch.long)
    taken = [tensor.index_select(0, places) for tensor in tensors]
    found = []
    gradient = torch.zeros_like(scores) if wanted else None
    for part, width in blocks:
        *made, own = terms(*(tensor[part, :width] for tensor in taken), gradient=wanted)
        found.append(made)
        if gradient is not None and own is not None:
            gradient[part, :width] = own
    back = places.argsort()
    sums, numbers = (torch.cat(each).index_select(0, back) for each in zip(*found, strict=True))
    return sums, numbers, None if gradient is None else gradient.index_select(0, back)


def _blocks(lengths: Sequence[int], pairs: int) -> Iterator[tuple[slice, int]]:
    """Slices of lists of ascending length, with the length of the last: as many as have so many pairs in all."""
    start = 0
    for place, length in enumerate(lengths):
        if place > start and (place + 1 - start) * length * length > pairs:
            yield slice(start, place), lengths[place - 1]
            start = place
    if start < len(lengths):
        yield slice(start, len(lengths)), lengths[-1]
