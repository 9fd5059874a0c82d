"""Matrix products in float32 on a CPU by oneDNN, where it is there: twice as fast as torch's own choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Gradients", "inner_products", "write_inner_products"]

COLUMNS = 1024
"""How wide a piece of a tile is multiplied at a time: what a cache holds, and memory that is soon used again."""

PLAIN = (Tensor, torch.nn.Parameter)


def inner_products(a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> Float[Tensor, "n m"]:
    """a b^T: by oneDNN where that suits and no gradient is asked for.

    >>> inner_products(torch.eye(2), torch.tensor([[1.0, 2.0]]))
    tensor([[1.],
            [2.]])
    """
    linear = _linear() if _suit(a, b) else None
    if linear is None:
        return a @ b.T
    # A second factor that is neither a whole matrix nor its transpose takes oneDNN a thousand times as long.
    return linear(a, b if b.is_contiguous() or b.T.is_contiguous() else b.contiguous())


def write_inner_products(out: Float[Tensor, "n m"], a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> None:
    """Write a b^T into a tile, piece by piece."""
    for start in range(0, b.shape[0], COLUMNS):
        columns = slice(start, start + COLUMNS)
        out[:, columns] = inner_products(a, b[columns])


class Gradients:
    """The gradients of some matrices, from tiles of derivatives by their inner products.

    Args:
        vectors: the matrices, [n, dim] each.
        wanted: of which of them.
        single: whether a tile covers all rows, so that its products need no sum.
    """

    def __init__(self, vectors: Sequence[Tensor], wanted: Sequence[bool], *, single: bool) -> None:
        self.vectors, self.wanted, self.single = vectors, wanted, single
        self.totals: list[Tensor | None] = [
            torch.zeros_like(each) if want and not single else None for each, want in zip(vectors, wanted, strict=True)
        ]
        self.transposed: dict[int, Tensor] = {}

    def add(self, row: int, part: slice, column: int, derivatives: Tensor) -> None:
        """Take in the derivatives [t, m] by the products of rows `part` of one matrix with all of another."""
        a, b = self.vectors[row][part], self.vectors[column]
        if self.single:
            if row == column:  # one product for both
                self._take(row, derivatives + derivatives.T, b)
                return
            self._take(row, derivatives, b)
            self._take(column, derivatives.T, a)
            return
        total, transposed = self.totals[row], a.T.contiguous()
        for start in range(0, len(b), COLUMNS):
            columns = slice(start, start + COLUMNS)
            piece = derivatives[:, columns].contiguous()
            if total is not None:
                total[part] += inner_products(piece, b[columns].T)
            if self.wanted[column]:
                # Summed as a transpose: so the derivatives, the largest factor, need not be transposed in memory.
                self._transposed(column)[:, columns] += inner_products(transposed, piece.T)

    def add_scaled(self, place: int, part: slice, factors: Tensor) -> None:
        """Add the rows of a matrix, each times a factor, [t, 1]."""
        total = self.totals[place]
        if total is not None:
            total[part].addcmul_(self.vectors[place][part], factors)

    def result(self) -> list[Tensor | None]:
        """A gradient for each matrix, None where it is not wanted."""
        for place, transposed in self.transposed.items():
            total = self.totals[place]
            assert total is not None
            total += transposed.T
        return [
            torch.zeros_like(each) if want and total is None else total
            for each, want, total in zip(self.vectors, self.wanted, self.totals, strict=True)
        ]

    def _take(self, place: int, derivatives: Tensor, others: Tensor) -> None:
        if self.wanted[place]:
            product, total = inner_products(derivatives, others.T), self.totals[place]
            self.totals[place] = product if total is None else total.add_(product)

    def _transposed(self, place: int) -> Tensor:
        if place not in self.transposed:
            vectors = self.vectors[place]
            self.transposed[place] = vectors.new_zeros(vectors.shape[::-1])
        return self.transposed[place]


def _suit(a: Tensor, b: Tensor) -> bool:
    """Whether oneDNN may multiply them: float32 numbers in this machine's memory, and nobody traces or records."""
    return (
        a.dtype is torch.float32
        and b.dtype is torch.float32
        and a.is_cpu
        and b.is_cpu
        and type(a) in PLAIN
        and type(b) in PLAIN
        and not torch.compiler.is_compiling()
        and not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad))
        and a.numel() > 0
        and b.numel() > 0
    )


@cache
def _linear() -> Callable[[Tensor, Tensor], Tensor] | None:
    """oneDNN's a b^T, if this build of torch has it and an example comes out right.

    The operator is not public, so nothing is taken for granted. The public way, a flag of precision, would change
    every product of the process.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    # Rows of a wider matrix and a transposed one, with numbers that bfloat16 would round.
    a = torch.linspace(-1.0, 1.0, 5 * 9).view(5, 9)[:, :7]
    b = torch.linspace(0.3, 2.0, 7 * 3).view(7, 3).T
    exact = a.double() @ b.double().T
    try:
        operator = torch.ops.mkldnn._linear_pointwise.default
        found: Tensor = operator(a, b, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    right = found.dtype == torch.float32 and found.shape == exact.shape
    if not right or float((found - exact).abs().max()) > 1e-5:
        return None

    def linear(a: Tensor, b: Tensor) -> Tensor:
        product: Tensor = operator(a, b, None, "none", [], "")
        return product

    return linear
