"""The pooled vocabulary head beside loops over texts, terms and tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from losskit.errors import LossError
from losskit_plugins.encoders import vocabulary_head
from losskit_plugins.encoders.vocabulary_head import pool_logits, pool_terms

KINDS = [(pooling, activation) for pooling in ("max", "sum") for activation in ("relu", "log1p-relu")]
COUNTS = (6, 3, 1, 0, 5)
TOKENS, WIDTH, TERMS = 6, 4, 37


def made(dtype: torch.dtype = torch.float64, side: str = "right") -> tuple[list[Tensor], Tensor]:
    """Hidden states, weight and bias, which ask for gradients, and a mask."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(COUNTS), TOKENS, WIDTH), (TERMS, WIDTH), (TERMS,)]
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    mask = (torch.arange(TOKENS) < torch.tensor(COUNTS)[:, None]).long()
    return [leaf.requires_grad_() for leaf in leaves], mask if side == "right" else mask.flip(1)


def by_hand(hidden: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, pooling: str, activation: str) -> Tensor:
    """The formula in loops."""
    rows = []
    for text in range(len(hidden)):
        row = []
        for term in range(len(weight)):
            found = [hidden.new_zeros(())]
            for token in range(hidden.shape[1]):
                if mask[text, token]:
                    logit = bias[term] + sum(hidden[text, token, k] * weight[term, k] for k in range(WIDTH))
                    value = torch.log(1 + logit) if logit > 0 else 0 * logit
                    found.append(torch.log(1 + value) if activation == "log1p-relu" else value)
            row.append(torch.stack(found).max() if pooling == "max" else torch.stack(found).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def differentiated(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """A value and its gradients, along a direction in which every entry counts differently."""
    direction = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view(value.shape)
    return [value, *torch.autograd.grad(value, leaves, direction)]


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    """Pieces of a few terms and tokens each."""
    monkeypatch.setitem(vocabulary_head.LOGITS, "cpu", 50)
    monkeypatch.setattr(vocabulary_head, "TOKENS", 4)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_it_is_the_formula_in_loops(pooling, activation, side) -> None:
    leaves, mask = made(side=side)
    hidden, weight, bias = leaves
    expected = differentiated(by_hand(hidden, mask, weight, bias, pooling, activation), leaves)
    found = differentiated(pool_terms(hidden, mask, weight, bias, pooling=pooling, activation=activation), leaves)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_whole_logits_give_the_same(pooling, activation) -> None:
    leaves, mask = made()
    hidden, weight, bias = leaves
    options: dict[str, Any] = {"pooling": pooling, "activation": activation}
    expected = differentiated(pool_terms(hidden, mask, weight, bias, **options), leaves)
    found = differentiated(pool_logits(linear(hidden, weight, bias), mask, **options), leaves)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_pieces_change_nothing(pooling, activation, biased) -> None:
    leaves, mask = made()
    hidden, weight, bias = leaves
    leaves = leaves if biased else leaves[:2]
    options: dict[str, Any] = {"pooling": pooling, "activation": activation}
    found = differentiated(pool_terms(hidden, mask, weight, bias if biased else None, **options), leaves)
    logits = linear(hidden, weight, bias if biased else None)
    for ours, wanted in zip(found, differentiated(pool_logits(logits, mask, **options), leaves), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_every_gradient_can_be_asked_for_alone(pooling) -> None:
    leaves, mask = made()
    expected = differentiated(pool_terms(leaves[0], mask, leaves[1], leaves[2], pooling=pooling), leaves)[1:]
    for place, wanted in enumerate(expected):
        parts = [leaf.detach().requires_grad_(place == other) for other, leaf in enumerate(leaves)]
        value = pool_terms(parts[0], mask, parts[1], parts[2], pooling=pooling)
        torch.testing.assert_close(differentiated(value, [parts[place]])[1], wanted)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_without_gradients_it_is_the_same(pooling) -> None:
    leaves, mask = made()
    expected = pool_terms(leaves[0], mask, leaves[1], leaves[2], pooling=pooling)
    with torch.no_grad():
        found = pool_terms(leaves[0], mask, leaves[1], leaves[2], pooling=pooling)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_texts_without_tokens_or_terms_have_zeros(pooling) -> None:
    leaves, mask = made()
    hidden, weight, bias = leaves
    none = pool_terms(hidden, torch.zeros_like(mask), weight, bias, pooling=pooling)
    silent = pool_terms(hidden, mask, weight, bias - 100, pooling=pooling)
    for value in (none, silent):
        assert value.count_nonzero() == 0
        assert all(gradient.count_nonzero() == 0 for gradient in differentiated(value, leaves)[1:])


def test_hidden_states_that_count_for_nothing_change_nothing() -> None:
    (hidden, weight, bias), mask = made()
    broken = hidden.detach().masked_fill(mask[..., None] == 0, math.nan)
    expected = pool_terms(hidden, mask, weight, bias)
    torch.testing.assert_close(pool_terms(broken, mask, weight, bias), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_half_precision_is_near(pooling, dtype) -> None:
    leaves, mask = made(dtype)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found = differentiated(pool_terms(leaves[0], mask, leaves[1], leaves[2], pooling=pooling), leaves)
    expected = differentiated(pool_terms(exact[0], mask, exact[1], exact[2], pooling=pooling), exact)
    assert [each.dtype for each in found] == [torch.float32, dtype, dtype, dtype]
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours.double() - wanted).norm() <= 0.02 * wanted.norm()


def test_autocast_multiplies_in_half_precision() -> None:
    leaves, mask = made(torch.float32)
    expected = differentiated(pool_terms(leaves[0], mask, leaves[1], leaves[2]), leaves)
    with torch.autocast("cpu", torch.bfloat16):
        value = pool_terms(leaves[0], mask, leaves[1], leaves[2])
    assert not torch.equal(value, expected[0])
    for ours, wanted in zip(differentiated(value, leaves), expected, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - wanted).norm() <= 0.03 * wanted.norm()


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_refuses_a_second_derivative(pooling) -> None:
    leaves, mask = made()
    value = pool_terms(leaves[0], mask, leaves[1], leaves[2], pooling=pooling)
    with pytest.raises(LossError, match="create_graph"):
        torch.autograd.grad(value.sum(), leaves, create_graph=True)
