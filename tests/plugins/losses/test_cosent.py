"""CoSENT: the laws, the formula in loops, ties."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses import cosent as module
from losskit_plugins.losses.cosent import CoSENTLoss, cosent

SUBJECTS = [
    *subjects(CoSENTLoss, families=["dense", "sparse"]),
    *subjects(partial(CoSENTLoss, similarity="angle"), families=["dense"]),
    *subjects(partial(CoSENTLoss, similarity="manhattan", scale=0.5), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(scores, labels):
    total = torch.ones((), dtype=scores.dtype)
    for s_i, y_i in zip(scores, labels, strict=True):
        for s_j, y_j in zip(scores, labels, strict=True):
            if y_i < y_j:
                total = total + (s_i - s_j).exp()
    return total.log()


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]),
        torch.tensor([1.0, 0.0, 1.0, 0.5, 0.5, 0.0, 0.5]),
        torch.tensor([3, 1, 2, 3, 1, 2, 2]),
        torch.tensor([True, False, True, True, False, False, True]),
        torch.tensor([[1.0], [0.0], [1.0], [0.5], [0.5], [0.0], [0.5]]),
    ],
    ids=["distinct", "ties", "integers", "booleans", "a column"],
)
def test_equals_the_formula_in_loops(labels):
    torch.manual_seed(0)
    embeddings = [torch.randn(7, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    a, b = embeddings
    scores = torch.stack([5 * (x @ y) / (x.norm() * y.norm()) for x, y in zip(a, b, strict=True)])
    expected = by_loops(scores, labels.reshape(-1).double())
    got = CoSENTLoss(scale=5.0).compute_loss_from_embeddings(embeddings, labels)
    require_equal("loops", differentiate(expected, embeddings), differentiate(got, embeddings))


@pytest.fixture(params=["pairs", "sorted"])
def path(request, monkeypatch):
    """All pairs, as in small batches, or sorted by label."""
    if request.param == "sorted":
        monkeypatch.setattr(module, "FEW", 0)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("bound", [None, 8.0])
def test_small_and_large_batches_agree(bound):
    scores = torch.linspace(-8, 8, 9, dtype=torch.float64)[torch.randperm(9)].requires_grad_()
    labels = torch.tensor([0.0, 0.5, 0.5, 1.0, 0.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    expected = differentiate(by_loops(scores, labels), [scores])
    require_equal("loops", expected, differentiate(cosent(scores, labels, bound=bound), [scores]))


@pytest.mark.usefixtures("path")
def test_equal_labels_cost_nothing():
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    value = cosent(scores, torch.ones(5, dtype=torch.float64))
    value.backward()
    assert value == 0
    assert not scores.grad.any()


def test_no_rows_cost_nothing():
    columns = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    value = CoSENTLoss().compute([Output(column) for column in columns], torch.zeros(3), slice(1, 1))
    value.backward()
    assert value == 0


@pytest.mark.usefixtures("path")
def test_a_wide_range_of_scores_loses_no_pair():
    # The worst pair among low scores would vanish beside exp(900).
    scores = torch.tensor([-900.0, -1000.0, 900.0], dtype=torch.float64, requires_grad=True)
    value = cosent(scores, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    value.backward()
    torch.testing.assert_close(value.detach(), torch.tensor(100.0, dtype=torch.float64))
    torch.testing.assert_close(scores.grad, torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))


def test_refuses_what_does_not_fit():
    embedding = torch.randn(3, 4)
    with pytest.raises(LossError, match=r"CoSENTLoss.scale: expected a positive number, got -1"):
        CoSENTLoss(scale=-1)
    with pytest.raises(
        LossError, match=r"labels for CoSENTLoss: expected score, got none\. Fix: name the label column"
    ):
        CoSENTLoss().compute_loss_from_embeddings([embedding, embedding])
    with pytest.raises(LossError, match=r"expected score of shape \[3\] or \[3, 1\], got \[2\]"):
        CoSENTLoss().compute_loss_from_embeddings([embedding, embedding], torch.zeros(2))
    with pytest.raises(LossError, match=r"expected columns \(text, text\), got 3 columns"):
        CoSENTLoss().compute_loss_from_embeddings([embedding] * 3, torch.zeros(3))
