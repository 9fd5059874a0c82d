"""What the regularizers of sparse embeddings share: means per term, active terms, and how common a term is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losskit import Output
from losskit.errors import LossError
from losskit.math import full_precision, promoted

__all__ = ["Shares", "Terms", "active", "column_means", "of_each", "used_shares"]

Scalar = Float[Tensor, ""]
Terms = Float[Tensor, " terms"]


def column_means(embeddings: Float[Tensor, "n terms"], threshold: float | None = None) -> Terms:
    """The mean of each term over texts; those with at most `threshold` active terms count as 0.

    >>> column_means(torch.tensor([[1.0, 2.0], [3.0, 0.0]])), column_means(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), 1)
    (tensor([2., 1.]), tensor([0.5000, 1.0000]))
    """
    values = promoted(embeddings)
    counted = None if threshold is None else (active(values) > threshold).to(values.dtype)
    with full_precision(values):
        means: Terms = _ColumnMeans.apply(values, counted)  # type: ignore[no-untyped-call]
        return means


def active(embeddings: Float[Tensor, "n terms"]) -> Float[Tensor, " n"]:
    """How many terms of each text are not 0, without gradient.

    >>> active(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([2., 1.])
    """
    return _marks(embeddings).sum(1)


def used_shares(embeddings: Float[Tensor, "n terms"]) -> Terms:
    """In which share of texts each term is not 0, without gradient.

    >>> used_shares(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([1.0000, 0.5000])
    """
    return column_means(_marks(embeddings))


def of_each(penalty: Callable[[Tensor], Scalar], queries: Output | None, documents: Output) -> Scalar:
    """The sum of a penalty on documents and on queries, if there are any."""
    assert documents.embedding is not None
    value = penalty(documents.embedding)
    if queries is None:
        return value
    assert queries.embedding is not None
    return value + penalty(queries.embedding)


class Shares(nn.Module):
    """In which share of texts each term is used, over the last batches of a training: an equal mean, then a moving one.

    Args:
        owner: the name of the regularizer, for errors.
        batches: how many batches the mean goes back.

    Raises:
        LossError: batches that are no positive whole number.
    """

    def __init__(self, owner: str, batches: int) -> None:
        super().__init__()
        if not isinstance(batches, int) or isinstance(batches, bool) or batches < 1:
            raise LossError(f"{owner}.batches", expected="a whole number of 1 or more", got=repr(batches))
        self.batches = batches
        self.register_buffer("mean", torch.zeros(0))
        self.register_buffer("seen", torch.zeros(()))

    @torch.no_grad()
    def update(self, embeddings: Float[Tensor, "n terms"]) -> None:
        """Take in a batch. The buffers are new ones, for a forward before may still need the old in its backward.

        Raises:
            LossError: embeddings of another width than those before.
        """
        found = used_shares(embeddings).to(self.mean.dtype)
        if self.mean.numel() and self.mean.shape != found.shape:
            raise LossError(
                "how common terms are", expected=f"embeddings of {self.mean.numel()} terms, as counted before",
                got=str(found.numel()), fix="take a new regularizer for another encoder",
            )  # fmt: skip
        self.seen = self.seen.to(found.device) + 1
        before = self.mean.to(found.device) if self.mean.numel() else torch.zeros_like(found)
        self.mean = before + (found - before) / self.seen.clamp(max=self.batches)

    def forward(self, embeddings: Float[Tensor, "n terms"]) -> Terms:
        """The shares; before any batch was taken in, those of these texts."""
        return self.mean if self.mean.numel() else used_shares(embeddings)


def _marks(embeddings: Tensor) -> Tensor:
    """1 where an entry is not 0, in float32 at least: sums of booleans take eight times as long."""
    return promoted(embeddings.detach()).sign().abs_()


class _ColumnMeans(torch.autograd.Function):
    """A product with a vector, which is faster than a sum over rows; the gradient is one row, seen n times."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, counted: Tensor | None) -> Tensor:
        rows, ctx.columns = values.shape
        share = 1.0 / max(1, rows)
        shares = values.new_full((rows,), share) if counted is None else counted * share
        ctx.share, ctx.rows, ctx.shares = share, rows, None if counted is None else shares
        return shares @ values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if ctx.shares is None:
            return (gradient * ctx.share).expand(ctx.rows, ctx.columns), None
        return ctx.shares[:, None] * gradient, None
