"""Late interaction: each query token and its best match in a document, without the scores of all pairs of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from .once import differentiable_once
from .precision import full_precision, promoted
from .products import inner_products

__all__ = ["EMPTY_DOCUMENT", "maxsim", "pairwise_maxsim", "xtr"]

EMPTY_DOCUMENT = -1e9
"""The score of a document without tokens: below that of every other."""

CACHED = 256, 1024, 2**18
"""How many query tokens and document tokens a block of scores has, and of how many matches gradients are summed at a
time, on a CPU: what keeps its products at full speed and its cache from overflowing."""

LARGE = 4096, 16384, 2**24
"""The same on other devices."""

Queries = Float[Tensor, "n query_tokens dim"]
QueryMask = Bool[Tensor, "n query_tokens"] | None
Documents = Float[Tensor, "m document_tokens dim"]
DocumentMask = Bool[Tensor, "m document_tokens"] | None


def maxsim(a: Queries, a_mask: QueryMask, b: Documents, b_mask: DocumentMask) -> Float[Tensor, "n m"]:
    """sum over tokens i of a query of max over tokens j of a document of a_i b_j; in float32 at least.

    Works in blocks and keeps the place of each maximum: beside the gradients it holds one small integer per query
    token and document, and the gradients are sums over the matches.

    Args:
        a: tokens of queries.
        a_mask: True where a token counts; None: everywhere. Others add nothing.
        b: tokens of documents.
        b_mask: True where a token counts; None: everywhere. Others match nothing.

    Returns:
        All pairs. A document without tokens scores -1e9, with gradient 0; with a query without tokens others score 0.

    >>> queries, documents = torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 9.0], [1.0, 1.0]]])
    >>> maxsim(queries, None, documents, torch.tensor([[True, True], [False, True]]))
    tensor([[4., 2.]])
    """
    return _matrix(None, a, a_mask, b, b_mask)


def xtr(a: Queries, a_mask: QueryMask, b: Documents, b_mask: DocumentMask, *, top_k: int) -> Float[Tensor, "n m"]:
    """The mean of the matches of a query in a document that are among the top k of their query token.

    Each query token retrieves the k tokens of all documents that are most similar to it, and those that are as
    similar as the k-th. Its best match in a document counts if it is retrieved.

    Args:
        a: tokens of queries.
        a_mask: as in `maxsim`.
        b: tokens of documents; which of them are retrieved depends on all.
        b_mask: as in `maxsim`.
        top_k: how many tokens each query token retrieves.

    Returns:
        All pairs. A document of which nothing is retrieved scores 0, one without tokens -1e9.

    >>> queries, documents = torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [1.0, 1.0]]])
    >>> xtr(queries, None, documents, None, top_k=1), xtr(queries, None, documents, None, top_k=9)
    (tensor([[3., 2.]]), tensor([[2.0000, 1.5000]]))
    """
    return _matrix(top_k, a, a_mask, b, b_mask)


def pairwise_maxsim(a: Queries, a_mask: QueryMask, b: Documents, b_mask: DocumentMask) -> Float[Tensor, " n"]:
    """`maxsim` of query i with document i.

    >>> pairwise_maxsim(torch.eye(2)[None], None, torch.tensor([[[1.0, 0.0], [0.0, 3.0]]]), None)
    tensor([4.])
    """
    a, b, b_mask = _prepared(a, b, b_mask)
    with full_precision(a):
        scores: Tensor = _Pairs.apply(a, a_mask, b, b_mask)  # type: ignore[no-untyped-call]
    return _without_empty(scores, b_mask)


def _matrix(top_k: int | None, a: Tensor, a_mask: Tensor | None, b: Tensor, b_mask: Tensor | None) -> Tensor:
    a, b, b_mask = _prepared(a, b, b_mask)
    with full_precision(a):
        scores, counts = _Matrix.apply(top_k, a, a_mask, b, b_mask)  # type: ignore[no-untyped-call]
    return _without_empty(scores if counts is None else scores / counts.clamp(min=1), b_mask)


def _prepared(a: Tensor, b: Tensor, b_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Tokens in float32 at least, each as a row; documents without places get one, which does not count."""
    if b is a:  # torch.compile takes no tensor twice
        b, b_mask = b.view_as(b), None if b_mask is None else b_mask.view_as(b_mask)
    if not b.shape[1]:
        b, b_mask = functional.pad(b, (0, 0, 0, 1)), b.new_zeros(b.shape[0], 1, dtype=torch.bool)
    return promoted(a).contiguous(), promoted(b).contiguous(), b_mask


def _without_empty(scores: Tensor, b_mask: Tensor | None) -> Tensor:
    return scores if b_mask is None else scores.masked_fill(~b_mask.any(1), EMPTY_DOCUMENT)


class _Matrix(torch.autograd.Function):
    """The sum of the matches of each query with each document, and with `top_k` how many there are."""

    @staticmethod
    def forward(
        ctx: Any, top_k: int | None, a: Tensor, a_mask: Tensor | None, b: Tensor, b_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        (queries, length, _), (documents, width, _) = a.shape, b.shape
        wanted = any(ctx.needs_input_grad)
        limited = top_k is not None and top_k < documents * width
        scores, penalties = a.new_empty(queries, documents), _penalties(b, b_mask)
        counts = None if top_k is None else torch.empty_like(scores)
        counted = None if a_mask is None else a_mask.unsqueeze(2).expand(-1, -1, documents)
        shape = queries if wanted else 0, length, documents
        places = a.new_empty(shape, dtype=_integers(width))
        kept = a.new_empty(shape, dtype=torch.bool) if limited else counted
        for rows in _parts(queries, length, _sizes(a)[0]):
            highest, place, limit = _matches(a[rows], b, penalties, top_k if limited else None, wanted)
            count = None if counted is None else counted[rows]
            if limit is not None:
                # Negated, for of NaN every comparison is False, and it must not be left out.
                retrieved = (highest < limit).logical_not_()
                count = retrieved if count is None else retrieved & count
            scores[rows] = (highest if count is None else highest.masked_fill(~count, 0.0)).sum(1)
            if counts is not None:
                counts[rows] = length if count is None else count.sum(1)
            if place is not None:
                places[rows] = place
            if limited and wanted:
                kept[rows] = count  # type: ignore[index,assignment]
        ctx.save_for_backward(a, b, places, kept)
        if counts is not None:
            ctx.mark_non_differentiable(counts)
        return scores, counts

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        a, b, places, kept = ctx.saved_tensors
        if not places.numel():
            return None, torch.zeros_like(a), None, torch.zeros_like(b), None
        of_a = _of_queries(b, places, kept, upstream) if ctx.needs_input_grad[1] else None
        of_b = _of_documents(a, b, places, kept, upstream) if ctx.needs_input_grad[3] else None
        return None, of_a, None, of_b, None


class _Pairs(torch.autograd.Function):
    """The sum of the matches of query i with document i."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, a_mask: Tensor | None, b: Tensor, b_mask: Tensor | None) -> Tensor:
        (pairs, length, _), width = a.shape, b.shape[1]
        wanted = any(ctx.needs_input_grad)
        scores, penalties = a.new_empty(pairs), _penalties(b, b_mask)
        places = a.new_empty(pairs if wanted else 0, length, dtype=torch.long)
        rows, columns, _ = _sizes(a)
        for part in _parts(pairs, length * width, rows * columns):
            products = torch.bmm(a[part], b[part].mT)
            if penalties is not None:
                products += penalties[part].unsqueeze(1)
            highest, place = _highest(products, wanted)
            scores[part] = (highest if a_mask is None else highest.masked_fill(~a_mask[part], 0.0)).sum(1)
            if place is not None:
                places[part] = place
        ctx.save_for_backward(a, a_mask, b, places)
        return scores

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        a, a_mask, b, places = ctx.saved_tensors
        width = b.shape[1]
        starts = torch.arange(0, len(b) * width, width, device=b.device)
        index = (places + starts.unsqueeze(1)).flatten()
        weights = _weights(upstream.unsqueeze(1), a_mask, places).flatten()
        of_a = of_b = None
        if ctx.needs_input_grad[0]:
            of_a = b.flatten(0, 1).index_select(0, index).mul_(weights.unsqueeze(1)).view_as(a)
        if ctx.needs_input_grad[2]:
            of_b = _turned(a, index, weights, len(b) * width).view_as(b)
        return of_a, None, of_b, None


def _matches(
    a: Tensor, b: Tensor, penalties: Tensor | None, top_k: int | None, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Of queries [n, t, dim] each token's highest score in each document and its place, [n, t, m], and the k-th
    highest of all, [n, t, 1]; no place where it is not wanted."""
    (queries, length, _), (documents, width, _) = a.shape, b.shape
    tokens = a.flatten(0, 1)
    pool = tokens.new_empty(len(tokens), 0)
    found = []
    for columns in _parts(documents, width, _sizes(a)[1]):
        products = inner_products(tokens, b[columns].flatten(0, 1))
        if penalties is not None:
            products += penalties[columns].flatten()
        found.append(_highest(products.view(queries, length, columns.stop - columns.start, width), wanted))
        if top_k is not None:
            pool = torch.cat([pool, products], 1)
            pool = pool.topk(min(top_k, pool.shape[1]), sorted=False).values
    highest = torch.cat([each for each, _ in found], 2)
    places = torch.cat([place for _, place in found if place is not None], 2) if wanted else None
    return highest, places, None if top_k is None else pool.amin(1).view(queries, length, 1)


def _highest(scores: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The maximum of the last axis, and its place if that is wanted.

    By halves, of which the higher scores are kept, for those are found much faster than places.
    """
    width = scores.shape[-1]
    if not wanted:
        return scores.amax(-1), None
    if width <= 16:
        highest, places = scores.max(-1)
        return highest, places
    step = width // 2  # of an odd width both halves have the middle
    first, second = scores[..., : width - step], scores[..., step:]
    highest, half = _highest(torch.maximum(first, second), wanted)
    assert half is not None
    from_second = first.gather(-1, half.unsqueeze(-1)).squeeze(-1) != highest
    return highest, half + from_second * step


def _of_queries(b: Tensor, places: Tensor, counted: Tensor | None, upstream: Tensor) -> Tensor:
    """The gradient of query tokens: the sums of what they match."""
    (queries, length, documents), (_, width, dim) = places.shape, b.shape
    starts = torch.arange(0, documents * width, width, device=b.device, dtype=torch.int32)
    gradient = b.new_empty(queries, length, dim)
    for rows in _parts(queries, length * documents, _sizes(b)[2]):
        index = places[rows] + starts
        weights = _weights(upstream[rows].unsqueeze(1), None if counted is None else counted[rows], index)
        gradient[rows] = _sums(index.flatten(0, 1), b, weights.flatten(0, 1)).view(gradient[rows].shape)
    return gradient


def _of_documents(a: Tensor, b: Tensor, places: Tensor, counted: Tensor | None, upstream: Tensor) -> Tensor:
    """The gradient of document tokens: the sums of what they are matched by."""
    (queries, length, documents), width = places.shape, b.shape[1]
    starts = torch.arange(0, documents * width, width, device=a.device, dtype=torch.int32)
    gradient = torch.empty_like(b)
    for columns in _parts(documents, queries * length, _sizes(a)[2]):
        number = columns.stop - columns.start
        index = places[:, :, columns] + starts[:number]
        weights = _weights(upstream[:, None, columns], None if counted is None else counted[:, :, columns], index)
        gradient[columns] = _turned(a, index.flatten(), weights.flatten(), number * width).view(gradient[columns].shape)
    return gradient


def _weights(upstream: Tensor, counted: Tensor | None, index: Tensor) -> Tensor:
    """The derivative by each match."""
    weights = upstream.expand(index.shape)
    return weights.contiguous() if counted is None else torch.where(counted, weights, 0.0)


def _sums(index: Tensor, tokens: Tensor, weights: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Weighted sums of tokens by their places: those in a row, or after each offset."""
    return functional.embedding_bag(
        index, tokens.flatten(0, 1), offsets, mode="sum", per_sample_weights=weights.to(tokens.dtype)
    )


def _turned(a: Tensor, index: Tensor, weights: Tensor, size: int) -> Tensor:
    """For each of `size` document tokens the weighted sum of the query tokens whose matches, in order, are `index`."""
    matches = max(1, len(index) // max(1, a.shape[0] * a.shape[1]))
    found, order = index.sort()
    offsets = torch.searchsorted(found, torch.arange(size, device=index.device, dtype=index.dtype))
    return _sums(order // matches, a, weights[order], offsets)


def _penalties(b: Tensor, b_mask: Tensor | None) -> Tensor | None:
    """What is added to the scores of document tokens, [m, t]: minus infinity to those that do not count."""
    return None if b_mask is None else b.new_zeros(b_mask.shape).masked_fill_(~b_mask, float("-inf"))


def _integers(width: int) -> torch.dtype:
    """The smallest that holds a place."""
    if width <= 2**8:
        return torch.uint8
    return torch.int16 if width <= 2**15 else torch.int32


def _sizes(like: Tensor) -> tuple[int, int, int]:
    return CACHED if like.is_cpu else LARGE


def _parts(number: int, size: int, most: int) -> Iterator[slice]:
    """Slices of so many items of one size, each of at most `most` in all or of one item; of no items an empty one."""
    step = max(1, most // max(1, size))
    for start in range(0, max(1, number), step):
        yield slice(start, min(start + step, number))
