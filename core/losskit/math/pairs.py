"""Similarities of vector i with vector i, with gradients that need no vectors between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from .cosine import inverse
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
    tensor([1.0000, 0.0000])
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
        return _scores(*_measured(_products, vectors))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return _made(_across, ctx.saved_tensors, [_matrix(upstream)], ctx.needs_input_grad)


class _Cosine(torch.autograd.Function):
    """Cosines; with `turn` those of the others turned by half a right angle, times the square root of 2."""

    @staticmethod
    def forward(ctx: Any, turn: bool, *vectors: Tensor) -> Tensor:
        cosines, *lengths = _measured(partial(_products_and_lengths, turn), vectors)
        own, others = map(inverse, lengths)
        factors = own * others
        cosines *= factors
        ctx.turn = turn
        ctx.save_for_backward(*vectors, own, others, factors, cosines)
        return _scores(cosines)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *vectors, own, others, factors, cosines = ctx.saved_tensors
        slopes = _matrix(upstream)
        pulls = slopes * cosines
        of_a = pulls if len(vectors) == 2 else pulls.sum(1, keepdim=True)
        made_with = slopes * factors, of_a * own * own, pulls * others * others
        return None, *_made(partial(_across_and_along, ctx.turn), vectors, made_with, ctx.needs_input_grad[1:])


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: float, *vectors: Tensor) -> Tensor:
        (norms,) = _measured(partial(_norms, order), vectors)
        ctx.order = order
        ctx.save_for_backward(*vectors, norms)
        return _scores(norms)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        *vectors, norms = ctx.saved_tensors
        slopes = _matrix(upstream)
        if ctx.order == 2.0:
            slopes = slopes / torch.threshold(norms, 0.0, float("inf"))
        return None, *_made(partial(_between, ctx.order), vectors, [slopes], ctx.needs_input_grad[1:])


Matrices = Sequence[Tensor]
"""[rows, m] each: numbers found of the vectors of a row, or those that its gradients are made with."""

Wanted = Sequence[bool]
"""Whether the gradient of each vector is asked for."""

Into = Sequence[Tensor | None]
"""Where the gradient of each vector is written; None: to memory of its own."""


def _scores(matrix: Tensor) -> Tensor:
    """[rows, k] as it is, but [rows, 1] as [rows]."""
    return matrix.squeeze(1) if matrix.shape[1] == 1 else matrix


def _matrix(upstream: Tensor) -> Tensor:
    """The gradient of scores as a matrix, [rows, k]."""
    return upstream.unsqueeze(1) if upstream.ndim == 1 else upstream


def _columns(matrix: Tensor) -> Sequence[Tensor]:
    """[rows, k] as k times [rows, 1]."""
    width = matrix.shape[1]
    return (matrix,) if width == 1 else matrix.split_with_sizes([1] * width, 1)


def _side_by_side(columns: list[Tensor]) -> Tensor:
    """[rows, 1] each as [rows, k]."""
    return columns[0] if len(columns) == 1 else torch.cat(columns, 1)


def _measured(measure: Callable[..., Matrices], vectors: Sequence[Tensor]) -> Matrices:
    """What `measure` finds of vectors, [rows, m] each."""
    step = _chunk_rows(vectors[0])
    if step is None:
        return measure(*vectors)
    found = [measure(*part) for part in zip(*(each.split(step) for each in vectors), strict=True)]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _made(
    make: Callable[[Sequence[Tensor], Matrices, Wanted, Into], list[Tensor | None]],
    vectors: Sequence[Tensor],
    slopes: Matrices,
    wanted: Wanted,
) -> tuple[Tensor | None, ...]:
    """The gradients that `make` forms of vectors and slopes, [rows, m] each, where they are wanted."""
    step = _chunk_rows(vectors[0])
    if step is None:
        return tuple(make(vectors, slopes, wanted, [None] * len(vectors)))
    gradients = [torch.empty_like(each) if asked else None for each, asked in zip(vectors, wanted, strict=True)]
    for start in range(0, slopes[0].shape[0], step):
        part = slice(start, start + step)
        into = [None if each is None else each[part] for each in gradients]
        make([each[part] for each in vectors], [each[part] for each in slopes], wanted, into)
    return tuple(gradients)


def _chunk_rows(vectors: Tensor) -> int | None:
    """How many rows are worked on at a time; None: all."""
    size = vectors.element_size()
    if vectors.numel() * size <= WHOLE_BYTES:
        return None
    return max(1, CHUNK_BYTES // (vectors.shape[1] * size))


def _products(a: Tensor, *others: Tensor) -> Matrices:
    return (_side_by_side([(a * b).sum(1, keepdim=True) for b in others]),)


def _products_and_lengths(turn: bool, a: Tensor, *others: Tensor) -> Matrices:
    """The products, the lengths of `a`, and those of the others."""
    products = [(a * (_turned(b, 1) if turn else b)).sum(1, keepdim=True) for b in others]
    own, *lengths = [torch.linalg.vector_norm(each, dim=1, keepdim=True) for each in (a, *others)]
    return _side_by_side(products), own, _side_by_side(lengths)


def _norms(order: float, a: Tensor, *others: Tensor) -> Matrices:
    return (_side_by_side([torch.linalg.vector_norm(a - b, ord=order, dim=1, keepdim=True) for b in others]),)


def _across(
    vectors: Sequence[Tensor], slopes: Matrices, wanted: Wanted, into: Into, turn: bool = False
) -> list[Tensor | None]:
    """Gradients of inner products."""
    a, *others = vectors
    columns = _columns(slopes[0])
    gradients: list[Tensor | None] = [None] * len(vectors)
    if wanted[0]:
        if turn:
            others = [_turned(b, 1) for b in others]
        gradients[0] = of_a = torch.mul(others[0], columns[0], out=into[0])
        for place in range(1, len(others)):
            of_a.addcmul_(others[place], columns[place])
    if turn:
        a = _turned(a, -1)
    for place, slope in enumerate(columns, 1):
        if wanted[place]:
            gradients[place] = torch.mul(a, slope, out=into[place])
    return gradients


def _across_and_along(
    turn: bool, vectors: Sequence[Tensor], slopes: Matrices, wanted: Wanted, into: Into
) -> list[Tensor | None]:
    """Gradients of cosines: towards the other vector, without what would only lengthen."""
    gradients = _across(vectors, slopes, wanted, into, turn)
    _, of_a, of_others = slopes
    for gradient, vector, slope in zip(gradients, vectors, (of_a, *_columns(of_others)), strict=True):
        if gradient is not None:
            gradient.addcmul_(vector, slope, value=-1)
    return gradients


def _between(
    order: float, vectors: Sequence[Tensor], slopes: Matrices, wanted: Wanted, into: Into
) -> list[Tensor | None]:
    """Gradients of norms of differences."""
    a, *others = vectors
    gradients: list[Tensor | None] = [None] * len(vectors)
    for place, (b, slope) in enumerate(zip(others, _columns(slopes[0]), strict=True), 1):
        difference = torch.sub(b, a, out=into[place])
        gradient = (difference.sign_() if order == 1.0 else difference).mul_(slope)
        if wanted[0]:
            of_a = gradients[0]
            gradients[0] = torch.neg(gradient, out=into[0]) if of_a is None else of_a.sub_(gradient)
        if wanted[place]:
            gradients[place] = gradient
    return gradients


def _turned(vectors: Tensor, sign: int) -> Tensor:
    """Complex entries times 1 + i, or with sign -1 times 1 - i; the halves hold real and imaginary parts."""
    real, imaginary = vectors.chunk(2, -1)
    return torch.cat([real.sub(imaginary, alpha=sign), imaginary.add(real, alpha=sign)], -1)
