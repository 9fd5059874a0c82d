"""Similarities of vector i with vector i, with gradients that need no vectors between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .cosine import inverse_length
from .once import differentiable_once
from .precision import promoted

__all__ = ["pairwise_angle", "pairwise_cosine", "pairwise_distance", "pairwise_dot"]

WHOLE_BYTES = 8 * 2**20
"""How large a column may be to be worked on as a whole."""

CHUNK_BYTES = 768 * 2**10
"""How much of a larger column is worked on at a time: with its partner and their gradients it stays in the cache."""

Vectors = Float[Tensor, "rows dim"]
Scores = Float[Tensor, "rows *others"]


def pairwise_dot(a: Vectors, *others: Vectors) -> Scores:
    """Inner products of row i of `a` with row i of the other; of k others [rows, k]. In float32 at least.

    >>> pairwise_dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([[11.,  2.]])
    """
    scores: Tensor = _Dot.apply(promoted(a), *map(promoted, others))  # type: ignore[no-untyped-call]
    return scores


def pairwise_cosine(a: Vectors, *others: Vectors) -> Scores:
    """Cosines of row i of `a` with row i of the other; of k others [rows, k]. In float32 at least.

    With a zero vector the cosine is 0, and its gradient too.

    >>> pairwise_cosine(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[6.0, 8.0], [1.0, 0.0]]))
    tensor([1., 0.])
    """
    scores: Tensor = _Cosine.apply(False, promoted(a), *map(promoted, others))  # type: ignore[no-untyped-call]
    return scores


def pairwise_angle(a: Vectors, *others: Vectors) -> Scores:
    """|Re c + Im c| of the complex cosine c of row i of `a` and row i of the other; of k others [rows, k].

    The halves of a vector are the real and the imaginary parts of its entries; one of odd width gets a zero.

    >>> pairwise_angle(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 5.0]]))
    tensor([[1.0000, 0.2000]])
    """
    vectors = [promoted(each) for each in (a, *others)]
    if a.shape[1] % 2:
        vectors = [functional.pad(each, (0, 1)) for each in vectors]
    sums: Tensor = _Cosine.apply(True, *vectors)  # type: ignore[no-untyped-call]
    return sums.abs()


def pairwise_distance(a: Vectors, *others: Vectors, order: float = 2.0) -> Scores:
    """Norms of row i of `a` minus row i of the other; of k others [rows, k]. In float32 at least.

    At distance 0 the gradient is 0.

    Args:
        order: 2 for the Euclidean norm, 1 for the Manhattan norm.

    >>> pairwise_distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([5.])
    """
    norms: Tensor = _Distance.apply(order, promoted(a), *map(promoted, others))  # type: ignore[no-untyped-call]
    return norms


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *vectors: Tensor) -> Tensor:
        ctx.save_for_backward(*vectors)
        return _joined(_measured(_products, vectors))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, ...]:
        return _made(_across, ctx.saved_tensors, _slopes(upstream))


class _Cosine(torch.autograd.Function):
    """Cosines; with `turn` those of the others turned by half a right angle, times the square root of 2."""

    @staticmethod
    def forward(ctx: Any, turn: bool, *vectors: Tensor) -> Tensor:
        measured = _measured(partial(_products_and_inverse_lengths, turn), vectors)
        cosines, (first, *others) = measured[: len(vectors) - 1], measured[len(vectors) - 1 :]
        for cosine, other in zip(cosines, others, strict=True):
            cosine.mul_(first).mul_(other)
        ctx.turn = turn
        ctx.save_for_backward(*vectors, first, *others, *cosines)
        return _joined(cosines)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = (len(saved) + 1) // 3
        vectors, (first, *others), cosines = (saved[at : at + count] for at in (0, count, 2 * count))
        slopes = _slopes(upstream)
        across = [slope * first * other for slope, other in zip(slopes, others, strict=True)]
        pulls = [slope * cosine for slope, cosine in zip(slopes, cosines, strict=True)]
        along = [pull * other * other for pull, other in zip(pulls, others, strict=True)]
        total = pulls[0] if len(pulls) == 1 else torch.stack(pulls).sum(0)
        return None, *_made(partial(_across_and_along, ctx.turn), vectors, [*across, total * first * first, *along])


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: float, *vectors: Tensor) -> Tensor:
        norms = _measured(partial(_norms, order), vectors)
        ctx.order = order
        ctx.save_for_backward(*vectors, *norms)
        return _joined(norms)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        count = (len(saved) + 1) // 2
        vectors, norms, slopes = saved[:count], saved[count:], _slopes(upstream)
        if ctx.order == 2.0:
            infinite = float("inf")
            slopes = [
                slope / functional.threshold(norm, 0.0, infinite) for slope, norm in zip(slopes, norms, strict=True)
            ]
        return None, *_made(partial(_between, ctx.order), vectors, slopes)


Columns = Sequence[Tensor]


def _joined(values: Columns) -> Tensor:
    """[rows, 1] each to [rows], or of k [rows, k]."""
    return values[0].squeeze(1) if len(values) == 1 else torch.cat(list(values), 1)


def _slopes(upstream: Tensor) -> Columns:
    """The gradient of each column, [rows, 1]."""
    return [upstream[:, None]] if upstream.ndim == 1 else upstream.split(1, 1)


def _measured(measure: Callable[..., Columns], vectors: Columns) -> Columns:
    """What `measure` finds of vectors: [rows, 1] each."""
    rows = _chunk_rows(vectors[0])
    if rows is None:
        return measure(*vectors)
    return [torch.cat(parts) for parts in zip(*(measure(*part) for part in _chunks(vectors, rows)), strict=True)]


Into = Sequence[Tensor | None]


def _made(make: Callable[[Columns, Columns, Into], Columns], vectors: Columns, slopes: Columns) -> tuple[Tensor, ...]:
    """The gradients that `make` forms of vectors and slopes."""
    rows = _chunk_rows(vectors[0])
    if rows is None:
        return tuple(make(vectors, slopes, [None] * len(vectors)))
    gradients = [torch.empty_like(each) for each in vectors]
    for parts in zip(_chunks(vectors, rows), _chunks(slopes, rows), _chunks(gradients, rows), strict=True):
        make(*parts)
    return tuple(gradients)


def _chunk_rows(vectors: Tensor) -> int | None:
    rows, width = vectors.shape
    row_bytes = max(1, width * vectors.element_size())
    return None if rows * row_bytes <= WHOLE_BYTES else max(1, CHUNK_BYTES // row_bytes)


def _chunks(columns: Columns, rows: int) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(column.split(rows) for column in columns), strict=True)


def _products(a: Tensor, *others: Tensor) -> list[Tensor]:
    return [(a * b).sum(-1, keepdim=True) for b in others]


def _products_and_inverse_lengths(turn: bool, *vectors: Tensor) -> list[Tensor]:
    a, *others = vectors
    products = _products(a, *((_turned(b, 1) for b in others) if turn else others))
    return products + [inverse_length(each) for each in vectors]


def _norms(order: float, a: Tensor, *others: Tensor) -> list[Tensor]:
    return [torch.linalg.vector_norm(a - b, ord=order, dim=-1, keepdim=True) for b in others]


def _across(vectors: Columns, slopes: Columns, into: Into, turn: bool = False) -> list[Tensor]:
    """Gradients of inner products."""
    a, *others = vectors
    if turn:
        others = [_turned(b, 1) for b in others]
    of_a = torch.mul(others[0], slopes[0], out=into[0])
    for b, slope in zip(others[1:], slopes[1:], strict=True):
        of_a.addcmul_(b, slope)
    if turn:
        a = _turned(a, -1)
    return [of_a, *(torch.mul(a, slope, out=each) for slope, each in zip(slopes, into[1:], strict=True))]


def _across_and_along(turn: bool, vectors: Columns, slopes: Columns, into: Into) -> list[Tensor]:
    """Gradients of cosines: towards the other vector, without what would only lengthen."""
    others = len(vectors) - 1
    gradients = _across(vectors, slopes[:others], into, turn)
    for gradient, vector, slope in zip(gradients, vectors, slopes[others:], strict=True):
        gradient.addcmul_(vector, slope, value=-1)
    return gradients


def _between(order: float, vectors: Columns, slopes: Columns, into: Into) -> list[Tensor]:
    """Gradients of norms of differences."""
    a, *others = vectors
    gradients = []
    for b, slope, each in zip(others, slopes, into[1:], strict=True):
        difference = torch.sub(b, a, out=each)
        gradients.append((difference.sign_() if order == 1.0 else difference).mul_(slope))
    of_a = torch.neg(gradients[0], out=into[0])
    for gradient in gradients[1:]:
        of_a -= gradient
    return [of_a, *gradients]


def _turned(vectors: Tensor, sign: int) -> Tensor:
    """Complex entries times 1 + i, or with sign -1 times 1 - i; the halves hold real and imaginary parts."""
    real, imaginary = vectors.chunk(2, -1)
    return torch.cat([real.sub(imaginary, alpha=sign), imaginary.add(real, alpha=sign)], -1)
