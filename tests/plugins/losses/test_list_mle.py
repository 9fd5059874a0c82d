"""list-mle and p-list-mle: the laws, the formula in loops, discounts, ties, orders, lists that teach nothing."""

from __future__ import annotations

import logging
import math
import re
from functools import partial

import pytest
import torch

from losskit import Format, LossError, Output, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.data.collator import Collator
from losskit_plugins.losses import _plackett_luce as module
from losskit_plugins.losses.list_mle import ListMLELoss, list_mle
from losskit_plugins.losses.p_list_mle import PListMLELoss, p_list_mle

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
COLUMNS = Format(["query", "positive", "negative*"], labels="scores", outputs=1)
SUBJECTS = [
    *subjects(ListMLELoss, families=["dense", "cross-encoder"], form=LISTS, weights=True),
    *subjects(ListMLELoss, families=["cross-encoder"], form=COLUMNS, negatives=3),
    *subjects(PListMLELoss, families=["sparse", "cross-encoder"], form=LISTS),
    *subjects(
        partial(PListMLELoss, rank_discount="logarithmic", scale=5.0), families=["dense"], form=COLUMNS, negatives=3
    ),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


COUNTS = (4, 1, 0, 3)
LABELS = [0.0, 2.0, 1.0, 1.0, 5.0, 0.25, 0.5, -1.0]
DISCOUNTS = {
    None: None,
    "exponential": lambda rank, count: 2.0 ** (count - rank) - 1,
    "logarithmic": lambda rank, count: 1 / math.log2(1 + rank),
    "reciprocal": lambda rank, count: 1 / rank,
}


def draw(*shape, spread=1.0):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)
    return (spread * drawn).requires_grad_()


def by_loops(rows, labels, discount=None, sort=True):
    """mean over queries of sum_i w_i (log sum_{j >= i} exp(s_j) - s_i); a list of one or none costs nothing."""
    total = torch.zeros((), dtype=torch.float64)
    for own, wanted in zip(rows, labels, strict=True):
        count = len(own)
        order = sorted(range(count), key=lambda place: -wanted[place]) if sort else range(count)
        ordered = [own[place] for place in order]
        weights = [1.0 if discount is None else discount(rank, count) for rank in range(1, count + 1)]
        if discount is not None and sum(weights):
            weights = [weight / sum(weights) for weight in weights]
        for place, weight in enumerate(weights):
            total = total + weight * (sum(s.exp() for s in ordered[place:]).log() - ordered[place])
    return total / len(rows)


def cut(values):
    rest = iter(values)
    return [[next(rest) for _ in range(count)] for count in COUNTS]


@pytest.fixture(params=["sums", "logarithms"])
def path(request, monkeypatch):
    """Sums in float64, or what is exact for any scores."""
    if request.param == "logarithms":
        monkeypatch.setattr(module, "_in_double", lambda *arguments: None)


def test_list_mle_in_loops():
    scores = draw(8)
    got = ListMLELoss().compute([Output(scores, lists=COUNTS)], torch.tensor(LABELS), slice(0, 4))
    require_equal("loops", differentiate(by_loops(cut(scores), cut(LABELS)), [scores]), differentiate(got, [scores]))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("sort", [True, False], ids=["by labels", "as they come"])
@pytest.mark.parametrize("name", DISCOUNTS)
def test_discounts_in_loops(name, sort):
    scores = draw(8)
    loss = PListMLELoss(rank_discount=name, respect_input_order=not sort)
    got = loss.compute([Output(scores, lists=COUNTS)], torch.tensor(LABELS), slice(0, 4))
    expected = by_loops(cut(scores), cut(LABELS), DISCOUNTS[name], sort)
    require_equal("loops", differentiate(expected, [scores]), differentiate(got, [scores]))


@pytest.mark.usefixtures("path")
def test_a_bi_encoder_and_sample_weights():
    queries, documents = draw(4, 3), draw(8, 3, 1)[:, :, 0].detach().requires_grad_()
    weights = [0.5, 1.0, 2.0, 3.0]
    columns = [Output(queries, parts={"weight": torch.tensor(weights)}), Output(documents, lists=COUNTS)]
    got = ListMLELoss(similarity="dot", scale=2.0).compute(columns, torch.tensor(LABELS), slice(0, 4))
    of_query = [0, 0, 0, 0, 1, 3, 3, 3]
    rows = cut([2.0 * sum(queries[row] * document) for row, document in zip(of_query, documents, strict=True)])
    expected = sum(
        weight * by_loops([own], [wanted]) for weight, own, wanted in zip(weights, rows, cut(LABELS), strict=True)
    )
    leaves = [queries, documents]
    require_equal("weights", differentiate(expected / 4, leaves), differentiate(got, leaves))


def test_an_own_discount_gets_ranks_and_numbers_of_documents():
    scores = draw(8)
    column = Output(scores, lists=COUNTS)
    asked = []

    def own(ranks, counts):
        asked.append((ranks.tolist(), counts.flatten().tolist()))
        return counts + 1 - ranks

    got = PListMLELoss(rank_discount=own).compute([column], torch.tensor(LABELS), slice(0, 4))
    expected = by_loops(cut(scores), cut(LABELS), lambda rank, count: count + 1 - rank)
    require_equal("own", differentiate(expected, [scores]), differentiate(got, [scores]))
    assert asked == [([[1.0, 2.0, 3.0, 4.0]], list(map(float, COUNTS)))]


def test_ties_keep_the_order_in_which_they_came():
    scores = draw(1, 40)
    labels = torch.ones(1, 40)
    equal = list_mle(scores, labels)
    torch.testing.assert_close(equal, list_mle(scores, labels, respect_input_order=True))
    torch.testing.assert_close(equal, list_mle(scores, -torch.arange(40.0)[None]))


def test_columns_are_lists_of_equal_length():
    columns = [draw(3, 5).detach() + place for place in range(4)]
    labels = torch.tensor([[1, 0, 2], [0, 0, 1], [3, 2, 1]])
    documents = torch.stack(columns[1:], dim=1).flatten(0, 1)
    records = [Output(columns[0]), Output(documents, lists=(3, 3, 3))]
    expected = PListMLELoss().compute(records, labels.flatten(), slice(0, 3))
    for given in (labels, labels.flatten(), labels.float()):
        torch.testing.assert_close(PListMLELoss().compute_loss_from_embeddings(columns, given), expected)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("spread", [1e2, 1e4, 1e30])
def test_scores_far_apart(spread):
    scores = torch.tensor([[0.0, spread, 0.5 * spread, -spread]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    value = list_mle(scores, labels)
    # Documents 1 and 2 are in their order; the highest score, second by label, weighs on the first alone.
    torch.testing.assert_close(value, torch.tensor([spread], dtype=torch.float64))
    value.sum().backward()
    expected = torch.tensor([[-1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(scores.grad, expected, atol=1e-12, rtol=0)


def test_a_tail_far_below_is_exact():
    scores = torch.tensor([[0.0, -2000.0, -2001.0]], dtype=torch.float64, requires_grad=True)
    value = list_mle(scores, torch.tensor([[3.0, 2.0, 1.0]]))
    value.sum().backward()
    tail = math.log1p(math.exp(-1))
    torch.testing.assert_close(value, torch.tensor([tail], dtype=torch.float64))
    share = math.exp(-1) / (1 + math.exp(-1))
    torch.testing.assert_close(scores.grad, torch.tensor([[0.0, -share, share]], dtype=torch.float64))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("count", [127, 128, 200])
def test_the_exponential_discount_of_long_lists(count):
    scores = draw(1, count)
    labels = -torch.arange(count, dtype=torch.float64)[None]
    got = p_list_mle(scores.float(), labels, where=torch.ones(1, count, dtype=torch.bool)).sum()
    weights = [2 ** (count - rank) - 1 for rank in range(1, count + 1)]  # exact in Python
    expected = by_loops(scores, labels, lambda rank, _: weights[rank - 1] / sum(weights))
    require_equal("long", differentiate(expected, [scores]), differentiate(got, [scores]), 1e-5)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("make", [ListMLELoss, PListMLELoss])
@pytest.mark.parametrize("counts", [(0, 0), (0, 2), (1, 1, 1)], ids=str)
def test_short_lists_are_finite_and_connected(make, counts):
    scores = torch.randn(sum(counts), dtype=torch.float64, requires_grad=True)
    column = Output(scores, lists=counts, parts={"weight": torch.ones(sum(counts))})
    value = make().compute([column], torch.zeros(sum(counts)), slice(0, len(counts)))
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()
    assert bool(value) == (max(counts) > 1)


@pytest.mark.parametrize("make", [ListMLELoss, PListMLELoss])
def test_single_documents_teach_nothing_and_stay_connected(make, caplog):
    toy = ToyEncoder("cross-encoder")
    with caplog.at_level(logging.WARNING, "losskit"):
        value = make(toy)([["q", "r"], [["a"], ["b"]]], [torch.tensor([1.0]), torch.tensor([0.0])])
    value.backward()
    assert value == 0
    assert toy.head.weight.grad is not None
    assert not toy.head.weight.grad.any()
    assert "every list has one document" in caplog.text


def test_no_rows_cost_nothing():
    scores = draw(3)
    value = PListMLELoss().compute([Output(scores, lists=(2, 1))], torch.zeros(3), slice(1, 1))
    value.backward()
    assert value == 0


def test_relevance_of_minus_infinity_comes_last():
    scores = draw(2, 3)
    labels = torch.tensor([[-math.inf, 1.0, 0.0], [0.0, -math.inf, 0.0]])
    where = torch.tensor([[True, True, True], [True, True, False]])
    rows = [[scores[0, 0], scores[0, 1], scores[0, 2]], [scores[1, 0], scores[1, 1]]]
    expected = by_loops(rows, [labels[0].tolist(), labels[1, :2].tolist()])
    got = list_mle(scores, labels, where=where).mean()
    require_equal("last", differentiate(expected, [scores]), differentiate(got, [scores]))


RISING = r"labels for {}: expected ones that fall along each list, whose order is respected, got 1 after 0.5 in list 2"


@pytest.mark.parametrize("make", [ListMLELoss, PListMLELoss])
def test_refuses_labels_that_rise_along_a_list_whose_order_is_respected(make):
    message = RISING.format(make.__name__)
    texts = [["q", "r"], [["a"], ["b", "c", "d"]]]
    labels = [torch.tensor([0.0]), torch.tensor([2.0, 0.5, 1.0])]
    for family in ("cross-encoder", "dense"):
        loss = make(ToyEncoder(family), respect_input_order=True)
        rows = [
            {"query": query, "documents": documents, "label": wanted.tolist()}
            for query, documents, wanted in zip(*texts, labels, strict=True)
        ]
        with pytest.raises(LossError, match=message):
            Collator(loss)(rows)
        Collator(loss)([{**row, "label": sorted(row["label"], reverse=True)} for row in rows])
        Collator(make(ToyEncoder(family)))(rows)
    with pytest.raises(LossError, match=message):
        make(ToyEncoder("cross-encoder"), respect_input_order=True)(texts, labels)
    columns = [torch.randn(2, 3) for _ in range(3)]
    for given in (torch.tensor([[1.0, 1.0], [0.5, 1.0]]), torch.tensor([1.0, 1.0, 0.5, 1.0])):
        with pytest.raises(LossError, match=message):
            make(respect_input_order=True).compute_loss_from_embeddings(columns, given)
    falling = torch.tensor([[0, -1], [5, 5]])
    assert make(respect_input_order=True).compute_loss_from_embeddings(columns, falling).isfinite()


def test_refuses_unknown_discounts():
    expected = "expected None, a function, or one of exponential, logarithmic, reciprocal, got"
    for value in ("linear", 3, ["reciprocal"]):
        with pytest.raises(LossError, match=re.escape(f"PListMLELoss.rank_discount: {expected} {value!r}")):
            PListMLELoss(rank_discount=value)
    assert build({"name": "p-list-mle", "rank_discount": None}).rank_discount is None


@pytest.mark.parametrize(
    ("discount", "wrong"),
    [
        (lambda ranks, counts: 1.0, r"a tensor that broadcasts to \[2, 3\], got float"),
        (lambda ranks, counts: ranks.T, r"a tensor that broadcasts to \[2, 3\], got float64 of shape \[3, 1\]"),
        (lambda ranks, counts: 2 - ranks, "finite numbers from 0, got some from -1 to 1"),
        (lambda ranks, counts: 1 / (ranks - 1), "finite numbers from 0, got some from 0 to inf"),
        (lambda ranks, counts: ranks * math.nan, "finite numbers from 0, got some from nan to nan"),
    ],
)
def test_refuses_discounts_that_give_no_weights(discount, wrong):
    column, loss = Output(draw(4), lists=(1, 3)), PListMLELoss(rank_discount=discount)
    with pytest.raises(LossError, match=f"^the weights of rank_discount: expected {wrong}$"):
        loss.compute([column], torch.zeros(4), slice(0, 2))


def test_a_discount_may_be_a_number_per_rank_and_is_not_asked_of_padding():
    column, labels, rows = Output(draw(4), lists=(1, 3)), torch.zeros(4), slice(0, 2)
    expected = PListMLELoss(rank_discount="reciprocal").compute([column], labels, rows)
    for discount in (lambda ranks, counts: 1 / ranks[0], lambda ranks, counts: (1 / ranks).where(ranks <= counts, -1)):
        assert torch.equal(PListMLELoss(rank_discount=discount).compute([column], labels, rows), expected)


def test_refuses_a_discount_that_nothing_would_train():
    with pytest.raises(LossError, match=r"PListMLELoss.rank_discount: expected constant weights, got Linear with"):
        PListMLELoss(rank_discount=torch.nn.Linear(1, 1))


def test_without_rows_there_is_nothing_to_add_up():
    assert p_list_mle(torch.zeros(0, 3), torch.zeros(0, 3)).tolist() == []


def test_refuses_a_second_derivative():
    scores = draw(1, 3)
    with pytest.raises(LossError, match="a second derivative of a loss"):
        torch.autograd.grad(list_mle(scores, torch.ones(1, 3)).sum(), scores, create_graph=True)
