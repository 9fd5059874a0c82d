"""ADR-MSE: the laws, the formula in loops, ties, lists of one document and of none."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from losskit import Format, LossError, Output
from losskit.math import ranked
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.adr_mse import ADRMSELoss

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
COLUMNS = Format(["query", "positive", "negative*"], labels="scores", outputs=1)
SUBJECTS = [
    *subjects(partial(ADRMSELoss, alpha=2.0), families=["dense", "cross-encoder"], form=LISTS),
    *subjects(ADRMSELoss, families=["sparse"], form=COLUMNS, negatives=2),
    *subjects(partial(ADRMSELoss, average="queries"), families=["cross-encoder"], form=LISTS, weights=True),
]
COUNTS = (4, 1, 0, 2, 5, 3)
LABELS = torch.tensor([2, 0, 0, 1, 3, -1, 2, 0, 1, 1, 0, 2, 0.5, 0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def terms_by_loops(scores, labels, alpha):
    terms = []
    for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
        equal = sum(float(other == label) for other in labels)
        rank = sum(float(other > label) for other in labels) + (equal + 1) / 2
        soft = 1 + sum(torch.sigmoid(alpha * (other - score)) for j, other in enumerate(scores) if j != i)
        terms.append((rank - soft) ** 2 / math.log2(rank + 1))
    return terms


@pytest.mark.parametrize("pairs", [1, 40, 1000])
@pytest.mark.parametrize("average", ["documents", "queries"])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_equals_the_formula_in_loops(monkeypatch, alpha, average, pairs):
    monkeypatch.setattr(ranked, "PAIRS", pairs)
    torch.manual_seed(0)
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    loss = ADRMSELoss(alpha=alpha, average=average)
    got = loss.compute([Output(scores, lists=COUNTS)], LABELS, slice(0, len(COUNTS)))
    lists = zip(scores.split(list(COUNTS)), LABELS.split(list(COUNTS)), strict=True)
    terms = [terms_by_loops(own, labels, alpha) for own, labels in lists]
    if average == "queries":
        expected = sum(sum(own) / max(1, len(own)) for own in terms) / len(terms)
    else:
        expected = sum(map(sum, terms)) / sum(COUNTS)
    require_equal("loops", differentiate(expected, [scores]), differentiate(got, [scores]))


def test_documents_of_equal_labels_share_a_rank_that_equal_scores_reach():
    scores = torch.zeros(1, 4, requires_grad=True)
    value = ADRMSELoss().score(scores, torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert not scores.grad.any()


def test_a_label_of_minus_infinity_is_the_lowest():
    labels = torch.tensor([[0.0, -torch.inf, 1.0, 9.0]], dtype=torch.float64)
    where = torch.tensor([[True, True, True, False]])
    scores = torch.randn(1, 4, dtype=torch.float64)
    expected = ADRMSELoss().score(scores, labels.clamp(min=-1), where)
    torch.testing.assert_close(ADRMSELoss().score(scores, labels, where), expected)


@pytest.mark.parametrize("counts", [(1, 1), (0, 0)])
def test_a_list_of_one_document_is_in_order(counts):
    scores = torch.randn(sum(counts), requires_grad=True)
    loss, labels = ADRMSELoss(), torch.zeros(sum(counts))
    value = loss.compute([Output(scores, lists=counts)], labels, slice(0, 2))
    value.backward()
    assert value == 0
    assert not scores.grad.any()
    assert loss.idle(2, 1, labels) == "every list has one document"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, r"ADRMSELoss.alpha: expected a positive number, got 0.0"),
        ({"average": "pairs"}, r"ADRMSELoss.average: expected documents or queries, got 'pairs'"),
    ],
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(LossError, match=message):
        ADRMSELoss(**options)
