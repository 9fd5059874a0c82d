"""LambdaLoss and RankNet: the laws, the formula in loops, weightings of all sorts, lists without pairs."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from losskit import Format, LossError, NotFoundError, Output, build
from losskit.math import ranked
from losskit.score_loss import ScoredLists
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.lambda_loss import LambdaLoss, lambda_loss
from losskit_plugins.losses.rank_net import RankNetLoss

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
COLUMNS = Format(["query", "positive", "negative*"], labels="scores", outputs=1)
SUBJECTS = [
    *subjects(LambdaLoss, families=["dense", "cross-encoder"], form=LISTS),
    *subjects(LambdaLoss, families=["cross-encoder"], form=COLUMNS, negatives=2),
    *subjects(partial(LambdaLoss, average="queries"), families=["dense"], form=LISTS, weights=True),
    *subjects(partial(LambdaLoss, weighting="ndcg-loss1", k=2), families=["cross-encoder"], form=LISTS),
    *subjects(
        partial(RankNetLoss, k=1, sigma=2.0, activation="tanh", reduction_log="natural"),
        families=["cross-encoder"],
        form=LISTS,
    ),
    *subjects(partial(RankNetLoss, similarity="dot", scale=3.0), families=["sparse"], form=LISTS),
]
COUNTS = (4, 1, 0, 2, 5, 3)
LABELS = torch.tensor([2, 0, 0, 1, 3, -1, 2, 0, 1, 1, 0, 2, 0.5, 0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def step(distance):
    """By how much 1 / log2(1 + rank) falls from the rank `distance` to the next."""
    return 1 / math.log2(1 + distance) - 1 / math.log2(2 + distance) if distance else 0.0


def exchange(i, j):
    """By how much 1 / log2(1 + rank) differs between the ranks i and j."""
    return abs(1 / math.log2(1 + i) - 1 / math.log2(1 + j))


WEIGHTS = {
    "no-weighting": lambda i, j, gain_i, gain_j: 1.0,
    "ndcg-loss1": lambda i, j, gain_i, gain_j: gain_i / math.log2(1 + i),
    "ndcg-loss2": lambda i, j, gain_i, gain_j: step(abs(i - j)) * abs(gain_i - gain_j),
    "lambda-rank": lambda i, j, gain_i, gain_j: exchange(i, j) * abs(gain_i - gain_j),
    "ndcg-loss2pp": lambda *pair: 10 * WEIGHTS["ndcg-loss2"](*pair) + WEIGHTS["lambda-rank"](*pair),
}


def terms_by_loops(scores, labels, *, weighting, k=None, sigma=1.0, eps=1e-10, base=2.0):
    """The terms of one list's pairs, ranks counted from 1."""
    values = scores.tolist()
    ranks = {place: rank for rank, place in enumerate(sorted(range(len(values)), key=lambda p: -values[p]), 1)}
    raised = [2 ** max(float(label), 0.0) - 1 for label in labels]
    best = sorted(raised, reverse=True)[:k]
    ideal = max(eps, sum(gain / math.log2(1 + rank) for rank, gain in enumerate(best, 1)))
    terms = []
    for i, first in ranks.items():
        for j, second in ranks.items():
            inside = k is None or min(first, second) <= k
            if inside and (labels[i] > labels[j] or weighting == "ndcg-loss1"):
                weight = WEIGHTS[weighting](first, second, raised[i] / ideal, raised[j] / ideal)
                terms.append(-weight * torch.sigmoid(sigma * (scores[i] - scores[j])).log() / math.log(base))
    return terms


def by_loops(scores, labels, counts, average, **options):
    lists = zip(scores.split(list(counts)), labels.split(list(counts)), strict=True)
    terms = [terms_by_loops(own, wanted, **options) for own, wanted in lists]
    if average == "queries":
        return sum(sum(own) / max(1, len(own)) for own in terms) / len(terms)
    return sum(sum(own) for own in terms) / sum(map(len, terms))


@pytest.mark.parametrize("average", ["pairs", "queries"])
@pytest.mark.parametrize("k", [None, 1, 3, 10])
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_equals_the_formula_in_loops(weighting, k, average):
    torch.manual_seed(0)
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    loss = LambdaLoss(weighting=weighting, k=k, average=average)
    got = loss.compute([Output(scores, lists=COUNTS)], LABELS, slice(0, len(COUNTS)))
    expected = by_loops(scores, LABELS, COUNTS, average, weighting=weighting, k=k)
    require_equal("loops", differentiate(expected, [scores]), differentiate(got, [scores]))


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"sigma": 0.3}, {"sigma": 0.3}),
        ({"reduction_log": "natural"}, {"base": math.e}),
        ({"eps": 2.0}, {"eps": 2.0}),
    ],
)
def test_options_are_those_of_the_formula(options, known):
    torch.manual_seed(0)
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    for loss, name in ((LambdaLoss(weighting="lambda-rank", **options), "lambda-rank"),
                       (RankNetLoss(**options), "no-weighting")):  # fmt: skip
        got = loss.compute([Output(scores, lists=COUNTS)], LABELS, slice(0, len(COUNTS)))
        expected = by_loops(scores, LABELS, COUNTS, "pairs", weighting=name, **known)
        require_equal(name, differentiate(expected, [scores]), differentiate(got, [scores]))


@pytest.mark.parametrize("pairs", [1, 30, 60, 1000])
def test_blocks_of_any_size_give_the_same(monkeypatch, pairs):
    torch.manual_seed(0)
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    columns, rows = [Output(scores, lists=COUNTS)], slice(0, len(COUNTS))
    expected = differentiate(LambdaLoss(k=2).compute(columns, LABELS, rows), [scores])
    monkeypatch.setattr(ranked, "PAIRS", pairs)
    require_equal("in blocks", expected, differentiate(LambdaLoss(k=2).compute(columns, LABELS, rows), [scores]))


def test_rank_net_is_lambda_without_weighting():
    scores, labels = torch.randn(4, 5), torch.randint(0, 3, (4, 5))
    loss = LambdaLoss(weighting="no-weighting", k=2, sigma=0.5)
    where = torch.ones(4, 5, dtype=torch.bool)
    assert torch.equal(loss.score(scores, labels, where), RankNetLoss(k=2, sigma=0.5).score(scores, labels, where))


def test_equal_scores_rank_in_the_order_in_which_they_came():
    labels = torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)
    scores = torch.zeros(1, 3, dtype=torch.float64)
    loss = LambdaLoss(weighting="lambda-rank")
    expected = sum(terms_by_loops(scores[0], labels[0], weighting="lambda-rank")) / 3
    torch.testing.assert_close(loss.score(scores, labels, labels >= 0), expected)


def test_hopelessly_wrong_pairs_keep_their_gradient():
    scores = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    value = RankNetLoss(reduction_log="natural").score(scores, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2).bool())
    value.backward()
    assert value == 1000.0
    assert scores.grad.tolist() == [[-1.0, 1.0]]


def test_a_label_of_minus_infinity_is_in_no_pair():
    labels = torch.tensor([[1.0, -torch.inf, 0.0]], dtype=torch.float64)
    scores = torch.tensor([[0.5, 2.0, 1.0]], dtype=torch.float64)
    for weighting, pairs in (("no-weighting", 1), ("ndcg-loss1", 4)):
        sums, numbers = lambda_loss(ScoredLists(scores, labels), build(weighting, kind="weighting"))
        assert numbers.tolist() == [pairs]
        assert sums.isfinite().all()


NOTHING = {
    "single documents": ((1, 1), [1.0, 0.0], "every list has one document"),
    "no documents": ((0, 0), [], "every list has one document"),
    "equal labels": ((3, 2), [1.0] * 5, "all labels are equal, and equal labels are not put in order"),
}


@pytest.mark.parametrize("average", ["pairs", "queries"])
@pytest.mark.parametrize("case", NOTHING)
def test_without_pairs_nothing_is_learned(case, average):
    counts, labels, reason = NOTHING[case]
    scores = torch.randn(len(labels), requires_grad=True)
    loss = RankNetLoss(average=average)
    value = loss.compute([Output(scores, lists=counts)], torch.tensor(labels), slice(0, 2))
    value.backward()
    assert value == 0
    assert not scores.grad.any()
    assert loss.idle(2, 1, torch.tensor(labels)) == reason


def test_without_gains_there_is_nothing_to_weigh():
    labels = torch.tensor([0.0, -1.0, 0.0])
    scores = torch.randn(3, requires_grad=True)
    loss = LambdaLoss(weighting="ndcg-loss1")
    value = loss.compute([Output(scores, lists=(2, 1))], labels, slice(0, 2))
    value.backward()
    assert value == 0
    assert not scores.grad.any()
    assert loss.idle(2, 1, labels) == "no document is relevant"
    assert loss.idle(2, 1, torch.ones(3)) == ""
    assert LambdaLoss().idle(2, 1, labels) == ""


class OfFirst:
    """A stranger's weighting: only the first rank counts, and what is said elsewhere is not read."""

    def __call__(self, gain, discount, true_sorted):
        weights = torch.full((*gain.shape, gain.shape[1]), torch.nan, dtype=gain.dtype)
        above = true_sorted[:, :, None] > true_sorted[:, None, :]
        weights[above] = 0.0
        weights[:, 0] = torch.where(above[:, 0], 1.0, weights[:, 0])
        return weights


def test_takes_a_strangers_weighting():
    scores = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    got = LambdaLoss(weighting=OfFirst()).score(scores, labels, labels >= 0)
    torch.testing.assert_close(got, torch.tensor(-math.log2(1 / (1 + math.exp(-2))) / 3, dtype=torch.float64))


def test_a_module_is_a_weighting_too():
    class Module(torch.nn.Module):
        def forward(self, gain, discount, true_sorted):
            return gain.new_ones(())

    loss = LambdaLoss(weighting=Module())
    scores, labels = torch.randn(2, 4), torch.randint(0, 3, (2, 4))
    where = torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(loss.score(scores, labels, where), RankNetLoss().score(scores, labels, where))


@pytest.mark.parametrize("pairs", [1, 1000])
def test_a_weighting_may_write_into_what_it_gets(monkeypatch, pairs):
    def careless(gain, discount, true_sorted):
        return (gain.square_() / discount.add_(1.0))[:, :, None] + true_sorted.neg_()[:, None, :]

    def careful(gain, discount, true_sorted):
        return (gain.square() / (discount + 1.0))[:, :, None] - true_sorted[:, None, :]

    monkeypatch.setattr(ranked, "PAIRS", pairs)
    column, rows = Output(torch.randn(sum(COUNTS)), lists=COUNTS), slice(0, len(COUNTS))
    for average in ("pairs", "queries"):
        made = [LambdaLoss(weighting=each, average=average) for each in (careful, careless)]
        assert torch.equal(*(loss.compute([column], LABELS, rows) for loss in made))


@pytest.mark.parametrize(
    ("weights", "got"),
    [
        (lambda gain, discount, labels: gain, r"float32 of shape \[2, 3\]"),
        (lambda gain, discount, labels: gain.new_ones(2, 2, 3, 3), r"float32 of shape \[2, 2, 3, 3\]"),
        (lambda gain, discount, labels: None, "NoneType"),
    ],
)
def test_refuses_weights_that_are_none_of_pairs(weights, got):
    expected = r"the weights of a weighting: expected a tensor that broadcasts to \[2, 3, 3\], got "
    with pytest.raises(LossError, match=expected + got):
        LambdaLoss(weighting=weights).score(torch.randn(2, 3), torch.randn(2, 3), torch.ones(2, 3).bool())


def test_refuses_a_weighting_that_nothing_would_train_and_a_class():
    with pytest.raises(LossError, match=r"LambdaLoss.weighting: expected constant weights, got Linear with parameters"):
        LambdaLoss(weighting=torch.nn.Linear(1, 1))
    with pytest.raises(LossError, match=r"LambdaLoss.weighting: expected the name of a weighting, or one as an object"):
        LambdaLoss(weighting=OfFirst)


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_labels_of_which_the_power_is_no_number(weighting):
    scores = torch.tensor([0.3, -1.0, 0.5, 0.0, 2.0, 1.0, 0.0])
    labels = torch.tensor([200.0, 199.0, 0.0, 300.5, 300.0, 2.0, 1.0])
    counts, options = (3, 2, 2), {"weighting": weighting}
    got = LambdaLoss(**options).compute([Output(scores, lists=counts)], labels, slice(0, 3))
    expected = by_loops(scores.double(), labels.double(), counts, "pairs", **options)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)


def test_weightings_are_built_by_name_with_their_options():
    loss = build({"name": "lambda", "weighting": {"name": "ndcg-loss2pp", "mu": 5}, "k": 10})
    assert loss.scheme.mu == 5
    assert loss.get_config_dict()["weighting"] == {"name": "ndcg-loss2pp", "mu": 5.0}
    loss.weighting = "lambda-rank"
    assert type(loss.scheme).__name__ == "LambdaRank"


def test_weights_of_rows_need_a_mean_over_queries():
    toy = ToyEncoder("cross-encoder")
    features = toy.preprocess([("q", "a"), ("q", "b c"), ("r", "d"), ("r", "e f g")])
    batch = [{**features, "lists": (2, 2), "weight": torch.tensor([1.0, 0.0])}]
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    scores = toy(features).embedding
    got = RankNetLoss(toy, average="queries")(batch, labels)
    torch.testing.assert_close(got, -torch.sigmoid(scores[0] - scores[1]).log2() / 2)
    with pytest.raises(LossError, match="sample weights for RankNetLoss: expected none"):
        RankNetLoss(toy)(batch, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, r"LambdaLoss.k: expected a whole number from 1, or None, got 0"),
        ({"k": 2.5}, r"LambdaLoss.k: expected a whole number from 1, or None, got 2.5"),
        ({"sigma": 0.0}, r"LambdaLoss.sigma: expected a positive number, got 0.0"),
        ({"eps": -1.0}, r"LambdaLoss.eps: expected a positive number, got -1.0"),
        ({"reduction_log": "decimal"}, r"LambdaLoss.reduction_log: expected binary or natural, got 'decimal'"),
        ({"weighting": None}, r"LambdaLoss.weighting: expected the name of a weighting, or one as an object, got None"),
        ({"average": "documents"}, r"LambdaLoss.average: expected pairs or queries, got 'documents'"),
    ],
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(LossError, match=message):
        LambdaLoss(**options)


def test_refuses_an_unknown_weighting():
    with pytest.raises(NotFoundError, match="did you mean 'ndcg-loss2"):
        LambdaLoss(weighting="ndcg-loss3")
