from __future__ import annotations

import math

import pytest
import torch

from losskit_plugins.encoders.pooling import POOLINGS, Pooling, pool

MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]],
    "both": [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0]],
}


def by_loops(mode: str, tokens: list[list[float]], mask: list[int], skip: int) -> list[float]:
    positions = [i for i, on in enumerate(mask) if on]
    numbered = [(number, tokens[i]) for number, i in enumerate(positions, start=1)][skip:]
    width = len(tokens[0])

    def total(weight) -> list[float]:
        return [sum(weight(number) * token[k] for number, token in numbered) for k in range(width)]

    if mode == "cls":
        return numbered[0][1]
    if mode == "last-token":
        return numbered[-1][1]
    if mode == "max":
        return [max(token[k] for _, token in numbered) for k in range(width)]
    if mode == "weighted-mean":
        return [value / sum(number for number, _ in numbered) for value in total(lambda number: number)]
    root = 0.5 if mode == "mean_sqrt_len_tokens" else 1.0
    return [value / len(numbered) ** root for value in total(lambda number: 1)]


@pytest.mark.parametrize("side", MASKS)
@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_equals_loops(mode: str, side: str) -> None:
    tokens = torch.randn(3, 5, 4, dtype=torch.float64)
    expected = [by_loops(mode, tokens[row].tolist(), MASKS[side][row], 0) for row in range(3)]
    torch.testing.assert_close(pool(tokens, torch.tensor(MASKS[side]), mode), torch.tensor(expected).double())


@pytest.mark.parametrize("side", ["right", "left", "both"])
@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_without_prompt_equals_loops(mode: str, side: str) -> None:
    tokens = torch.randn(2, 5, 4, dtype=torch.float64)
    mask, skip = MASKS[side][:2], [1, 3]
    expected = [by_loops(mode, tokens[row].tolist(), mask[row], skip[row]) for row in range(2)]
    pooled = pool(tokens, torch.tensor(mask), mode, skip=torch.tensor(skip))
    torch.testing.assert_close(pooled, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("mode", POOLINGS)
def test_padding_changes_nothing(mode: str) -> None:
    tokens, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])
    junk, more = torch.full((2, 2, 4), 9.0), torch.zeros(2, 2, dtype=torch.long)
    alone = pool(tokens, mask, mode)
    torch.testing.assert_close(pool(torch.cat([tokens, junk], 1), torch.cat([mask, more], 1), mode), alone)
    torch.testing.assert_close(pool(torch.cat([junk, tokens], 1), torch.cat([more, mask], 1), mode), alone)


@pytest.mark.parametrize("mode", [name for name in POOLINGS if name != "cls"])
def test_a_row_without_tokens_gives_zeros_and_finite_gradients(mode: str) -> None:
    tokens = torch.randn(2, 3, 4, requires_grad=True)
    pooled = pool(tokens, torch.tensor([[0, 0, 0], [1, 1, 1]]), mode)
    pooled.square().sum().backward()
    assert not pooled[0].any()
    assert tokens.grad.isfinite().all()
    assert not tokens.grad[0].any()
    assert tokens.grad[1].any()


@pytest.mark.parametrize("mode", POOLINGS)
def test_half_precision_keeps_its_dtype_and_sums_in_float32(mode: str) -> None:
    tokens = (1 + torch.rand(2, 900, 3)).bfloat16()
    pooled = pool(tokens, torch.ones(2, 900, dtype=torch.long), mode)
    exact = pool(tokens.double(), torch.ones(2, 900, dtype=torch.long), mode)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.double(), exact, rtol=2**-8, atol=0)


def test_modes_are_concatenated_in_order() -> None:
    tokens, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.long)
    pooling = Pooling(4, ["max", "mean"])
    assert pooling.dimension == 8
    expected = torch.cat([tokens.amax(1), tokens.mean(1)], dim=1)
    torch.testing.assert_close(pooling(tokens, mask), expected)


def test_prompt_counts_unless_excluded() -> None:
    tokens, mask = torch.randn(1, 3, 4), torch.ones(1, 3, dtype=torch.long)
    prompt = torch.tensor([2])
    torch.testing.assert_close(Pooling(4)(tokens, mask, prompt), tokens.mean(1))
    torch.testing.assert_close(Pooling(4, include_prompt=False)(tokens, mask, prompt), tokens[:, 2])


def test_pooling_runs_without_data_on_the_meta_device() -> None:
    tokens = torch.empty(2, 3, 4, device="meta")
    mask = torch.empty(2, 3, device="meta", dtype=torch.long)
    assert all(pool(tokens, mask, mode).shape == (2, 4) for mode in POOLINGS)


def test_mean_sqrt_len_is_not_the_mean() -> None:
    tokens, mask = torch.ones(1, 4, 1), torch.ones(1, 4, dtype=torch.long)
    assert pool(tokens, mask, "mean_sqrt_len_tokens").item() == pytest.approx(4 / math.sqrt(4))
