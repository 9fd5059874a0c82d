"""losskit.math.ranked: blocks of lists, orders and ranks."""

from __future__ import annotations

import pytest
import torch

from losskit import LossError
from losskit.math import average_ranks, descending, over_lists, ranked
from losskit.testing import differentiate, require_equal

INFINITY = float("inf")


def products(seen):
    """sum over pairs of v_j s_i s_j of each list, whose entries beyond its length have v = 0."""

    def terms(scores, others, *, gradient):
        seen.append(tuple(scores.shape))
        sums = scores.sum(1) * (scores * others).sum(1)
        slope = (scores * others).sum(1, keepdim=True) + others * scores.sum(1, keepdim=True)
        return sums, (others != 0).sum(1), slope if gradient else None

    return terms


@pytest.mark.parametrize("counts", [None, (3, 1, 0, 4, 4, 2)])
@pytest.mark.parametrize("pairs", [1, 20, 36, 1000])
def test_blocks_give_what_the_whole_gives(monkeypatch, pairs, counts):
    monkeypatch.setattr(ranked, "PAIRS", pairs)
    torch.manual_seed(0)
    lengths = torch.tensor(counts or (4,) * 6)
    there = torch.arange(4) < lengths[:, None]
    scores = torch.randn(6, 4, dtype=torch.float64).mul(there).requires_grad_()
    others = (torch.rand(6, 4, dtype=torch.float64) + 1).mul(there)
    seen: list[tuple[int, int]] = []
    sums, numbers = over_lists(products(seen), scores, others, counts=counts)
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    expected = (scores.sum(1) * (scores * others).sum(1) * weights).sum()
    got = differentiate((sums * weights).sum(), [scores])
    # The gradient by padding is not formed: it is that of scores which are not there.
    wanted = differentiate(expected, [scores])
    require_equal("value", type(wanted)(wanted.value, ()), type(got)(got.value, ()))
    torch.testing.assert_close(got.gradients[0][there], wanted.gradients[0][there])
    assert numbers.tolist() == lengths.tolist()
    assert all(lists == 1 or lists * width * width <= pairs for lists, width in seen)
    assert sum(lists for lists, _ in seen) == 6
    if counts is not None and pairs == 20:
        assert min(width for _, width in seen) < 4


def test_scores_are_seen_in_their_order_and_get_their_gradients_back():
    scores = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)

    def terms(scores, *, gradient):
        assert scores.tolist() == [[3.0, 2.0, 1.0]]
        ranks = torch.tensor([[1.0, 2.0, 3.0]])
        return (scores * ranks).sum(1), scores.new_ones(1), ranks

    sums, _ = over_lists(terms, scores, order=descending(scores))
    sums.sum().backward()
    assert sums.tolist() == [10.0]
    assert scores.grad.tolist() == [[3.0, 1.0, 2.0]]


def test_gradients_are_formed_only_where_they_are_wanted():
    def terms(scores, *, gradient):
        assert not gradient
        return scores.sum(1), scores.new_ones(2), None

    with torch.no_grad():
        over_lists(terms, torch.ones(2, 3, requires_grad=True))
    over_lists(terms, torch.ones(2, 3))


def test_refuses_a_second_derivative():
    scores = torch.ones(1, 2, requires_grad=True)
    sums, _ = over_lists(products([]), scores, torch.ones(1, 2))
    with pytest.raises(LossError, match="a second derivative of a loss"):
        torch.autograd.grad(sums.sum(), scores, create_graph=True)


def test_without_entries_nothing_is_asked():
    scores = torch.zeros(2, 0, requires_grad=True)
    sums, numbers = over_lists(products([]), scores, scores)
    sums.sum().backward()
    assert sums.tolist() == [0.0, 0.0]
    assert numbers.tolist() == [0, 0]


def test_descending_puts_padding_last_and_keeps_ties():
    scores = torch.tensor([[0.0, 9.0, 1.0, 0.0, 1.0], [-5.0, 0.0, -6.0, 0.0, 0.0]])
    where = torch.tensor([[True, False, True, True, True], [True, False, True, False, False]])
    order = descending(scores, where)
    assert order[0].tolist() == [2, 4, 0, 3, 1]
    assert order[1, :2].tolist() == [0, 2]
    assert descending(scores)[1].tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("labels", [[2.0, 0.0, 2.0, 1.0], [1.0], [0.0, 0.0, 0.0], [-INFINITY, 3.0, -INFINITY]])
@pytest.mark.parametrize("padding", [0, 3])
def test_average_ranks_are_counted(labels, padding):
    values = torch.tensor([labels + [7.0] * padding], dtype=torch.float64)
    where = torch.arange(values.shape[1])[None] < len(labels)
    expected = [
        sum(other > label for other in labels) + (sum(other == label for other in labels) + 1) / 2 for label in labels
    ]
    assert average_ranks(values, where)[0, : len(labels)].tolist() == expected


@pytest.mark.usefixtures("warn_always")
def test_average_ranks_of_columns_are_those_of_rows():
    """Lists that lie across memory; a copy made inside would be warned about."""
    labels = torch.tensor([[2.0, 0.0, 2.0], [1.0, 1.0, 5.0]])
    where = torch.ones(2, 3, dtype=torch.bool)
    across = labels.T.contiguous().T
    assert not across.is_contiguous()
    assert average_ranks(across, where.T.contiguous().T).tolist() == [[1.5, 3.0, 1.5], [2.5, 2.5, 1.0]]


def test_average_ranks_of_integers():
    labels, where = torch.tensor([[3, 1, 3, 9]]), torch.tensor([[True, True, True, False]])
    assert average_ranks(labels, where)[0, :3].tolist() == [1.5, 3.0, 1.5]
