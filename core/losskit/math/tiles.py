"""Sums over tiles of a score matrix, with gradients formed on the way: no score matrix is ever held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor

from ..output import Output
from ..protocols import Similarity
from .contrastive import row_tiles, whole
from .once import differentiable_once
from .precision import promoted
from .products import Gradients, inner_products

__all__ = ["found_scores", "over_tiles", "tiles"]

Reduced = Tensor | tuple[Tensor, Tensor]
Reduce = Callable[[Tensor, slice], Reduced]
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


@overload
def over_tiles(
    rows: Output, columns: Output, reduce: Callable[[Tensor, slice], Tensor], *, similarity: Similarity
) -> Tensor: ...


@overload
def over_tiles(
    rows: Output, columns: Output, reduce: Callable[[Tensor, slice], tuple[Tensor, Tensor]], *, similarity: Similarity
) -> tuple[Tensor, Tensor]: ...


def over_tiles(rows: Output, columns: Output, reduce: Any, *, similarity: Similarity) -> Any:
    """sum over tiles of rows of reduce(scores of the rows with all columns).

    The memory is that of one tile beside the inputs and their gradients. The gradients cannot be differentiated
    again.

    Args:
        rows: a record of r items.
        columns: a record of m items.
        reduce: from a tile of scores [t, m] and its rows as a slice of r to a scalar, by differentiable operations;
            or to a scalar and a tensor of statistics, summed as well and without gradient.
        similarity: with `transform` a tile is a matrix product; with `of_products(products, rows, columns)` it is
            made of one and of the squared lengths [t, 1] and [m]; any other is called.

    Returns:
        What `reduce` returns.

    >>> record = Output(torch.eye(3))
    >>> from losskit import build
    >>> over_tiles(record, record, lambda scores, part: scores.sum(), similarity=build("cosine", kind="similarity"))
    tensor(3.)
    """
    if whole(similarity):
        return reduce(similarity(rows, columns), slice(0, rows.items))
    vectors, kernel = _parts(similarity)
    if vectors is not None:
        made = _Products.apply(reduce, kernel, *_pair(vectors, rows, columns))  # type: ignore[no-untyped-call]
    else:
        records = [rows] if rows is columns else [rows, columns]
        tensors = [promoted(tensor) for record in records for tensor in record.tensors()]
        made = _Called.apply(reduce, similarity, records, *tensors)  # type: ignore[no-untyped-call]
    value, statistics = made
    return value if statistics is None else (value, statistics)


def tiles(rows: Output, columns: Output, similarity: Similarity) -> Iterator[tuple[slice, Tensor]]:
    """The tiles of a score matrix without gradient, each [t, m] beside its rows: to look for pairs.

    A tile belongs to who reads it, and may be overwritten. Of no rows there is one tile, which is empty.

    >>> record = Output(torch.eye(3))
    >>> from losskit import build
    >>> [scores.argmax(1) for _, scores in tiles(record, record, build("cosine", kind="similarity"))]
    [tensor([0, 1, 2])]
    """
    # Gradients are off for the scores alone: around a yield they would be off for whoever reads the tiles.
    with torch.no_grad():
        score = _scorer(rows, columns, similarity)
    for part in row_tiles(rows.items, columns.items, _size(rows)) or [slice(0, 0)]:
        with torch.no_grad():
            scores = score(part)
        yield part, scores


def found_scores(
    rows: Output,
    columns: Output,
    find: Callable[[Tensor, slice], Tensor],
    *,
    similarity: Similarity,
    pairwise: Callable[[Output, Sequence[Output]], Tensor],
) -> Tensor:
    """The similarities of each row with the columns that `find` picks, [r, k].

    What one tile covers is scored once; of more the pairs that were found are scored again.

    Args:
        rows: a record of r items.
        columns: a record of m items.
        find: from a tile of scores [t, m], which it may overwrite, and its rows as a slice of r to places [t, k].
        similarity: of records.
        pairwise: of a record with each of several others, as `Loss.pairwise_each`.

    >>> from losskit import build
    >>> cosine, record = build("cosine", kind="similarity"), Output(torch.eye(2))
    >>> find = lambda scores, part: scores.argmin(1, keepdim=True)
    >>> found_scores(record, record, find, similarity=cosine, pairwise=None)
    tensor([[0.],
            [0.]])
    """
    vectors, kernel = _parts(similarity)
    if vectors is not None and not whole(similarity) and len(row_tiles(rows.items, columns.items, _size(rows))) <= 1:
        products, *squares = _Found.apply(find, kernel, *_pair(vectors, rows, columns))  # type: ignore[no-untyped-call]
        found: Tensor = products if kernel is None else kernel(products, *squares)
        return found
    if getattr(similarity, "pooled", False):  # among other columns the pairs that are found would be other pairs
        scores = similarity(rows, columns)
        return scores.gather(1, find(scores.detach().clone(), slice(0, rows.items)))
    places = torch.cat([find(scores, part) for part, scores in tiles(rows, columns, similarity)])
    return pairwise(rows, [columns[each] for each in places.unbind(1)])


def _parts(similarity: Similarity) -> tuple[Callable[[Output], Tensor] | None, Kernel | None]:
    """The vectors of a record whose products a similarity is made of, if it is, and how it is made of them."""
    kernel = getattr(similarity, "of_products", None)
    return getattr(similarity, "transform", None) or (_embeddings if kernel is not None else None), kernel


def _pair(vectors: Callable[[Output], Tensor], rows: Output, columns: Output) -> list[Tensor]:
    """The vectors of both, once where both are the same."""
    return [vectors(rows)] if rows is columns else [vectors(rows), vectors(columns)]


def _scorer(rows: Output, columns: Output, similarity: Similarity) -> Callable[[slice], Tensor]:
    """From a slice of rows to its tile."""
    vectors, kernel = _parts(similarity)
    if vectors is None:
        return lambda part: similarity(_cut(rows, part), columns)
    pair = _pair(vectors, rows, columns)
    a, b = pair[0], pair[-1]
    if kernel is None:
        return lambda part: inner_products(a[part], b)
    squares = _both_squares(a, b)
    return lambda part: kernel(inner_products(a[part], b), squares[0][part], squares[1])


class _Products(torch.autograd.Function):
    """Tiles that are made of matrix products."""

    @staticmethod
    def forward(ctx: Any, reduce: Reduce, kernel: Kernel | None, *vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        a, b, last = vectors[0], vectors[-1], len(vectors) - 1
        wanted = ctx.needs_input_grad[2:]
        parts = row_tiles(a.shape[0], b.shape[0], a.element_size())
        gradients = Gradients(vectors, wanted, single=len(parts) == 1)
        squares: tuple[Tensor, ...] = () if kernel is None else _both_squares(a, b)
        total = _Sum(a)
        for part in parts:
            leaves = [inner_products(a[part], b), *(() if kernel is None else (squares[0][part], squares[1].detach()))]
            with torch.enable_grad():
                leaves = [leaf.requires_grad_(any(wanted)) for leaf in leaves]
                scores = leaves[0] if kernel is None else kernel(*leaves)
                value = total.add(reduce(scores, part))
            if value.requires_grad:
                of_products, *of_squares = torch.autograd.grad(value, leaves)
                gradients.add(0, part, last, of_products)
                if of_squares:
                    gradients.add_scaled(0, part, 2.0 * of_squares[0])
                    gradients.add_scaled(last, slice(None), 2.0 * of_squares[1][:, None])
        ctx.save_for_backward(*gradients.result())
        return total.result(ctx)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        return None, None, *(None if each is None else each * upstream for each in ctx.saved_tensors)


class _Found(torch.autograd.Function):
    """Of pairs that are found in a single tile the products, and for a kernel the squared lengths of both."""

    @staticmethod
    def forward(
        ctx: Any, find: Callable[[Tensor, slice], Tensor], kernel: Kernel | None, *vectors: Tensor
    ) -> tuple[Tensor, ...]:
        a, b = vectors[0], vectors[-1]
        products = inner_products(a, b)
        squares = () if kernel is None else _both_squares(a, b)
        scores = products.clone() if kernel is None else kernel(products, *squares)
        places = find(scores, slice(0, len(a)))
        ctx.save_for_backward(places, *vectors)
        of_pairs = products.gather(1, places)
        return (of_pairs, squares[0], squares[1].take(places)) if squares else (of_pairs,)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor, *of_squares: Tensor) -> tuple[Tensor | None, ...]:
        places, *vectors = ctx.saved_tensors
        a, b = vectors[0], vectors[-1]
        gradients = [torch.zeros_like(each) for each in vectors]
        of_a, of_b = gradients[0], gradients[-1]
        if of_squares:
            of_rows, of_pairs = of_squares
            of_columns = of_rows.new_zeros(len(b)).index_add_(0, places.flatten(), of_pairs.flatten())
            of_a.addcmul_(a, of_rows, value=2.0)
            of_b.addcmul_(b, of_columns[:, None], value=2.0)
        for place, slope in zip(places.unbind(1), upstream.split(1, 1), strict=True):
            of_a.addcmul_(b.index_select(0, place), slope)
            of_b.index_add_(0, place, a * slope)
        return None, None, *gradients


class _Called(torch.autograd.Function):
    """Tiles by calling a similarity; each is differentiated at once."""

    @staticmethod
    def forward(
        ctx: Any, reduce: Reduce, similarity: Similarity, records: list[Output], *tensors: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        ctx.needed = ctx.needs_input_grad[3:]
        leaves = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, ctx.needed, strict=True)]
        rest = iter(leaves)
        around = [record.with_tensors([next(rest) for _ in record.tensors()]) for record in records]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in wanted]
        total = _Sum(leaves[0])
        for part in row_tiles(around[0].items, around[-1].items, leaves[0].element_size()):
            with torch.enable_grad():
                value = total.add(reduce(similarity(_cut(around[0], part), around[-1]), part))
            if wanted and value.requires_grad:
                for gradient, found in zip(
                    gradients, torch.autograd.grad(value, wanted, allow_unused=True), strict=True
                ):
                    if found is not None:
                        gradient += found
        ctx.save_for_backward(*gradients)
        return total.result(ctx)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        rest = iter(ctx.saved_tensors)
        return None, None, None, *(next(rest) * upstream if need else None for need in ctx.needed)


class _Sum:
    """The sum of what `reduce` returned, tile by tile."""

    def __init__(self, like: Tensor) -> None:
        self.value = like.new_zeros(())
        self.statistics: Tensor | None = None

    def add(self, reduced: Reduced) -> Tensor:
        """Take a tile's result in; its scalar is given back, to be differentiated."""
        value, statistics = reduced if isinstance(reduced, tuple) else (reduced, None)
        self.value = self.value + value.detach()
        if statistics is not None:
            found = statistics.detach()
            self.statistics = found if self.statistics is None else self.statistics + found
        return value

    def result(self, ctx: Any) -> tuple[Tensor, Tensor | None]:
        """What a Function returns."""
        if self.statistics is not None:
            ctx.mark_non_differentiable(self.statistics)
        return self.value, self.statistics


def _embeddings(record: Output) -> Tensor:
    assert record.embedding is not None
    return promoted(record.embedding)


def _both_squares(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The squared lengths of rows, [n, 1], and of columns, [m]."""
    of_b = b.square().sum(1)
    return (of_b if a is b else a.square().sum(1)).unsqueeze(1), of_b


def _cut(record: Output, part: slice) -> Output:
    """By items: a record's own indexing counts tuples."""
    return replace(record, lists=None)[part]


def _size(record: Output) -> int:
    return promoted(record.tensors()[0]).element_size()
