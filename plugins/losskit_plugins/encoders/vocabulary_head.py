"""What the vocabulary head of a masked-language model says of texts, without holding the logits of all tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from losskit.math import differentiable_once, full_precision, inner_products, promoted

__all__ = ["ACTIVATIONS", "Activation", "TermPooling", "pool_logits", "pool_terms"]

Activation = Literal["relu", "log1p-relu"]
TermPooling = Literal["max", "sum"]

ACTIVATIONS = {"relu": 1, "log1p-relu": 2}
"""How many times log(1 + x) is taken of what is positive."""
LOGITS = {"cpu": 1 << 22}
"""How many logits are formed at a time, by the kind of device: on a CPU what its cache holds."""
LOGITS_ELSEWHERE = 1 << 26
TERMS = TOKENS = 2048
"""The most of a piece."""


def pool_terms(
    hidden: Float[Tensor, "n t dim"],
    mask: Int[Tensor, "n t"],
    weight: Float[Tensor, "terms dim"],
    bias: Float[Tensor, " terms"] | None,
    *,
    pooling: TermPooling = "max",
    activation: Activation = "relu",
) -> Float[Tensor, "n terms"]:
    """The weight of every term in each text: the maximum, or the sum, over its tokens j of f(w_v . h_j + b_v).

    f(x) is log(1 + max(x, 0)), taken twice for log1p-relu. A text without tokens has no terms. Whatever the precision
    of the products is, that of the weights is float32 at least.

    Args:
        hidden: tokens as the head takes them.
        mask: 1 where a token counts.
        weight: the head's, a row for each term.
        bias: the head's.
        pooling: of tokens.
        activation: f.

    >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool_terms(hidden, torch.tensor([[1, 1, 0]]), torch.tensor([[1.0], [-1.0]]), None)
    tensor([[1.3863, 0.0000]])
    """
    counted = mask.bool()
    counts = counted.sum(1).tolist()
    tokens = hidden.flatten(0, 1)
    if sum(counts) < len(tokens):
        tokens = tokens.index_select(0, counted.flatten().nonzero().squeeze(1))
    if torch.is_autocast_enabled(hidden.device.type):
        low = torch.get_autocast_dtype(hidden.device.type)
        tokens, weight = tokens.to(low), weight.to(low)
    function = _Maximum if pooling == "max" else _Sum
    with full_precision(hidden):
        pooled: Tensor = function.apply(tokens, counts, weight, bias, ACTIVATIONS[activation])  # type: ignore[no-untyped-call]
    return pooled


def pool_logits(
    logits: Float[Tensor, "n t terms"],
    mask: Int[Tensor, "n t"],
    *,
    pooling: TermPooling = "max",
    activation: Activation = "relu",
) -> Float[Tensor, "n terms"]:
    """`pool_terms` of the logits themselves, for models that make them in another way.

    >>> pool_logits(torch.tensor([[[1.0, -1.0], [3.0, -3.0], [9.0, 9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[1.3863, 0.0000]])
    """
    positive = promoted(logits).relu() * mask[..., None]
    weights = _activate(positive, ACTIVATIONS[activation])
    return weights.amax(1) if pooling == "max" else weights.sum(1)


class _Maximum(torch.autograd.Function):
    """The maximum over tokens: f rises, so it is that of the logit, and one token per text and term gets a gradient."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor | None, times: int
    ) -> Tensor:
        pooled = promoted(tokens).new_full((len(counts), len(weight)), -torch.inf)
        # Where each maximum stands among the tokens of all texts.
        places = pooled.new_empty(pooled.shape, dtype=torch.int32) if any(ctx.needs_input_grad) else None
        for terms in _slices(len(weight), _terms_at_a_time(tokens)):
            logits = inner_products(weight[terms], tokens)
            for text, part in _parts(counts):
                found = None if places is None else places[text, terms]
                _write_maximum(logits[:, part], pooled[text, terms], found, part.start)
        if bias is not None:
            pooled += bias
        pooled = _activate(pooled.relu_(), times)
        ctx.save_for_backward(pooled, places, tokens, weight)
        ctx.times = times
        return pooled

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pooled, places, tokens, weight = ctx.saved_tensors
        of_tokens, _, of_weight, of_bias, _ = ctx.needs_input_grad
        derivatives = gradient * _slope(pooled, ctx.times)
        by_term = derivatives.T.contiguous()
        terms, texts = by_term.nonzero(as_tuple=True)
        values, found = by_term[terms, texts], places[texts, terms]
        results: list[Tensor | None] = [None] * 5
        if of_weight:
            results[2] = _weighted_sums(tokens, found, values, terms.bincount(minlength=len(weight)))
        if of_tokens:
            found, order = found.sort()
            counts = found.bincount(minlength=len(tokens))
            results[0] = _weighted_sums(weight, terms[order], values[order], counts)
        if of_bias:
            results[3] = derivatives.sum(0)
        return tuple(results)


class _Sum(torch.autograd.Function):
    """The sum over tokens, whose logits are formed once more in the backward."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor | None, times: int
    ) -> Tensor:
        pooled = promoted(tokens).new_zeros(len(counts), len(weight))
        for terms in _slices(len(weight), _terms_at_a_time(tokens)):
            weights = _activate(_logits(tokens, weight, bias, terms).relu_(), times)
            for text, part in _parts(counts):
                pooled[text, terms] = weights[:, part].sum(1)
        ctx.save_for_backward(tokens, weight, bias)
        ctx.counts, ctx.times = counts, times
        return pooled

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight, bias = ctx.saved_tensors
        by_term = gradient.T
        of_tokens, of_weight, of_bias = (torch.zeros_like(promoted(each)) for each in (tokens, weight, gradient[0]))
        texts = torch.arange(len(gradient), device=tokens.device)
        texts = texts.repeat_interleave(torch.tensor(ctx.counts, device=tokens.device))
        for part in _slices(len(tokens), TOKENS):
            some = tokens[part]
            for terms in _slices(len(weight), _terms_at_a_time(some)):
                derivatives = by_term[terms].index_select(1, texts[part])
                derivatives /= _steepness(_logits(some, weight, bias, terms), ctx.times)
                of_bias[terms] += derivatives.sum(1)
                derivatives = derivatives.to(weight.dtype)
                of_weight[terms] += inner_products(derivatives, some.T)
                of_tokens[part] += inner_products(derivatives.T, weight[terms].T)
        return of_tokens, None, of_weight, of_bias if ctx.needs_input_grad[3] else None, None


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def _terms_at_a_time(tokens: Tensor) -> int:
    logits = LOGITS.get(tokens.device.type, LOGITS_ELSEWHERE)
    return min(TERMS, max(1, logits // max(1, len(tokens))))


def _parts(counts: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each text that has tokens, and where they stand among those of all."""
    spans = pairwise(accumulate(counts, initial=0))
    return ((text, slice(start, end)) for text, (start, end) in enumerate(spans) if start < end)


def _logits(tokens: Tensor, weight: Tensor, bias: Tensor | None, terms: slice) -> Tensor:
    """The logits of some terms, [terms, tokens]."""
    logits = promoted(inner_products(weight[terms], tokens))
    return logits if bias is None else logits.add_(bias[terms, None])


def _write_maximum(logits: Tensor, maximum: Tensor, places: Tensor | None, start: int) -> None:
    """The maximum of each row, and its place if that is wanted, counted from the start."""
    if places is None:
        maximum.copy_(logits.amax(1))
        return
    values, found = logits.max(1)
    maximum.copy_(values)
    places.copy_(found.add_(start))


def _activate(positive: Tensor, times: int) -> Tensor:
    for _ in range(times):
        positive = positive.log1p()
    return positive


def _slope(weights: Tensor, times: int) -> Tensor:
    """The derivative of f by its value: 0 where that is 0."""
    inner = weights.expm1() if times == 2 else 0.0
    return torch.where(weights > 0, (-weights - inner).exp(), 0.0)


def _steepness(logits: Tensor, times: int) -> Tensor:
    """The inverse of the derivative of f, into its argument: infinite where that is not positive."""
    rise = logits.masked_fill_(logits <= 0, torch.inf).add_(1)
    return rise if times == 1 else rise.log().add_(1).mul_(rise)


def _weighted_sums(rows: Tensor, places: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Sums of rows [m, d] at places [k], each times a weight [k]: of the first counts[0], of the next counts[1], ..."""
    starts = (counts.cumsum(0) - counts).to(places.dtype)
    return nn.functional.embedding_bag(places, promoted(rows), starts, mode="sum", per_sample_weights=weights)
