"""What list-mle and p-list-mle share: how likely a list is to come in a given order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from losskit.errors import LossError
from losskit.math import descending, differentiable_once, pad_lists

Discount = Callable[[Tensor, Tensor], Tensor]
"""From ranks [1, n], 1 being the first, and the number of documents of each list [q, 1] or [1, 1] to weights, at
least 0, that broadcast to [q, n]."""

HEADROOM = 690.0
"""In float64 exp of it, and a sum of many such, is a number, and exp of minus it has all its digits."""


def plackett_luce(
    scores: Float[Tensor, "queries documents"],
    labels: Real[Tensor, "queries documents"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
    discount: Discount | None = None,
    respect_input_order: bool = False,
) -> Float[Tensor, " queries"]:
    """sum_i w_i (log sum_{j >= i} exp(s_j) - s_i) of each list, its documents by falling labels.

    Args:
        scores: of each query's documents.
        labels: their relevance; documents of equal labels keep the order in which they came.
        where: True where there is a document; None: everywhere.
        discount: of ranks, divided by its sum over the list; None: all weights are 1.
        respect_input_order: take the documents as they come, whatever their labels.
    """
    if scores.shape[1] < 2 or not len(scores):
        return (scores - scores).sum(1)  # there is but one order, or no list
    order = None if respect_input_order else descending(labels, where)
    if where is not None and order is not None:
        where = where.gather(1, order)
    value: Tensor = _NegativeLogLikelihood.apply(scores, _weights(scores, where, discount), order, where)
    return value


def check_falling(loss: str, columns: int, labels: Tensor, lists: Sequence[int] | None) -> None:
    """Refuse labels that rise along a list, on the CPU, where its order is to be respected.

    Args:
        loss: its name.
        columns: of the batch.
        labels: of the documents of all lists.
        lists: how many documents each has; None: as many as there are columns of them.

    Raises:
        LossError: names the first list.
    """
    flat = labels.reshape(-1).double()
    rows = flat.view(-1, columns - 1) if lists is None else pad_lists(flat, lists, -math.inf)[0]
    rising = (rows[:, 1:] > rows[:, :-1]).nonzero()
    if len(rising):
        row, place = rising[0].tolist()
        before, after = rows[row, place : place + 2].tolist()
        raise LossError(
            f"labels for {loss}",
            expected="ones that fall along each list, whose order is respected",
            got=f"{after:g} after {before:g} in list {row + 1} of a batch",
            fix="sort documents by label, or set respect_input_order to False",
        )


def _weights(scores: Tensor, where: Tensor | None, discount: Discount | None) -> Tensor:
    """Of each place, [q, n] or [1, n]; 0 on padding."""
    if discount is None:
        return scores.new_ones(1, scores.shape[1]) if where is None else where.to(scores.dtype)
    ranks = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype, device=scores.device)[None]
    if where is None:
        weights = discount(ranks, ranks[:, -1:])
    else:
        weights = discount(ranks, where.sum(1, keepdim=True, dtype=scores.dtype)).where(where, 0.0)
    # Weights that are all 0, as of a single document, stay so.
    return weights / weights.sum(1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).tiny)


class _NegativeLogLikelihood(torch.autograd.Function):
    """Of scores in an order, with weights and padding in that order; the gradient is formed in the forward.

    By s_k it is exp(s_k) sum_{i <= k} w_i / sum_{j >= i} exp(s_j) - w_k.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weights: Tensor, order: Tensor | None, where: Tensor | None) -> Tensor:
        ordered = scores if order is None else scores.gather(1, order)
        if where is not None:
            ordered = ordered.masked_fill(~where, -math.inf)
        # A list without documents has no highest score.
        ordered = ordered - ordered.amax(1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        log_sums, shares = _in_double(ordered, weights, where) or _in_logarithms(ordered, weights, where)
        if ctx.needs_input_grad[0]:
            formed = shares.sub_(weights).to(scores.dtype)
            ctx.save_for_backward(formed if order is None else torch.empty_like(formed).scatter_(1, order, formed))
        terms = log_sums.sub_(ordered)
        if where is not None:
            terms = terms.where(where, 0.0)
        return terms.mul_(weights).sum(1).to(scores.dtype)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (formed,) = ctx.saved_tensors
        return formed * gradient[:, None], None, None, None


def _in_double(scores: Tensor, weights: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """log sum_{j >= i} exp(s_j), and exp(s_k) sum_{i <= k} w_i / sum_{j >= i} exp(s_j), by sums in float64.

    None where that is not known to be exact: for scores too far apart, or where looking at them would cost.
    """
    if scores.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    raised = (scores.double() + HEADROOM).exp_()
    sums = raised.flip(1).cumsum_(1).flip(1)
    if where is not None:
        sums = sums.where(where, 1.0)
    if float(sums.amin()) < math.exp(-HEADROOM):
        return None
    shares = (weights / sums).cumsum_(1).mul_(raised)
    return sums.log_().sub_(HEADROOM), shares


def _in_logarithms(scores: Tensor, weights: Tensor, where: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same for any scores, three to five times as slow."""
    log_sums = scores.flip(1).logcumsumexp(1).flip(1)
    if where is not None:
        log_sums = log_sums.where(where, 0.0)
    return log_sums, (weights.log() - log_sums).logcumsumexp(1).add_(scores).exp_()
