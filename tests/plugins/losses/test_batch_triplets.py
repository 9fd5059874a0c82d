"""The triplet losses over the classes of a batch: the laws, the formulas in loops, ties, batches without triplets."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.batch_all_triplet import BatchAllTripletLoss
from losskit_plugins.losses.batch_hard_soft_margin_triplet import BatchHardSoftMarginTripletLoss
from losskit_plugins.losses.batch_hard_triplet import BatchHardTripletLoss
from losskit_plugins.losses.batch_semi_hard_triplet import BatchSemiHardTripletLoss

LOSSES = [BatchAllTripletLoss, BatchHardSoftMarginTripletLoss, BatchHardTripletLoss, BatchSemiHardTripletLoss]
WITH_MARGIN = [each for each in LOSSES if each is not BatchHardSoftMarginTripletLoss]
SUBJECTS = [subject for make in LOSSES for subject in subjects(make)]
SUBJECTS += [subject for make in LOSSES for subject in subjects(partial(make, similarity="cosine"), families=["dense"])]
SUBJECTS += [
    subject
    for make in (BatchAllTripletLoss, BatchSemiHardTripletLoss)
    for subject in subjects(partial(make, margin=0.1, similarity="manhattan"), families=["dense"])
]


@pytest.mark.parametrize("make", LOSSES)
def test_classes_may_be_true_and_false(make):
    vectors = torch.arange(8.0).reshape(4, 2).sin()
    numbers = torch.tensor([1, 0, 1, 0])
    assert make().compute_loss_from_embeddings([vectors], numbers.bool()) == make().compute_loss_from_embeddings(
        [vectors], numbers
    )


@pytest.mark.usefixtures("warn_always")
@pytest.mark.parametrize("make", LOSSES)
def test_classes_may_lie_apart_in_memory(make):
    """A copy made inside would be warned about."""
    vectors = torch.arange(8.0).reshape(4, 2).sin()
    numbers = torch.tensor([1, 0, 1, 0])
    apart = torch.stack([numbers, numbers], 1)[:, 0]
    assert not apart.is_contiguous()
    assert make().compute_loss_from_embeddings([vectors], apart) == make().compute_loss_from_embeddings(
        [vectors], numbers
    )


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def similarities(vectors, name):
    """[n, n]; the Euclidean distance of an item with itself is not looked at."""
    if name == "cosine":
        unit = vectors / vectors.norm(dim=1, keepdim=True)
        return unit @ unit.T
    if name == "dot":
        return vectors @ vectors.T
    apart = vectors[:, None] - vectors[None] + torch.eye(len(vectors), dtype=vectors.dtype)[..., None]
    return -apart.norm(dim=-1)


def relu(value):
    return value if value > 0 else value * 0


def mean(values, like):
    return torch.stack(values).mean() if values else like.sum() * 0


def others(labels, anchor):
    """The positives and negatives of an anchor."""
    places = range(len(labels))
    return (
        [p for p in places if p != anchor and labels[p] == labels[anchor]],
        [n for n in places if labels[n] != labels[anchor]],
    )


def batch_all(s, labels, margin):
    found = []
    for a in range(len(labels)):
        positives, negatives = others(labels, a)
        found += [s[a, n] - s[a, p] + margin for p in positives for n in negatives if s[a, n] - s[a, p] + margin > 0]
    return mean(found, s)


def hardest(s, labels):
    for a in range(len(labels)):
        positives, negatives = others(labels, a)
        if positives and negatives:
            yield max((s[a, n] for n in negatives), key=Tensor.item) - min(
                (s[a, p] for p in positives), key=Tensor.item
            )


def batch_hard(s, labels, margin):
    return mean([relu(difference + margin) for difference in hardest(s, labels)], s)


def batch_hard_soft_margin(s, labels, margin):
    return mean([(1 + difference.exp()).log() for difference in hardest(s, labels)], s)


def batch_semi_hard(s, labels, margin):
    found = []
    for a in range(len(labels)):
        positives, negatives = others(labels, a)
        for p in positives if negatives else []:
            farther = [s[a, n] for n in negatives if s[a, n] < s[a, p]]
            chosen = max(farther, key=Tensor.item) if farther else min((s[a, n] for n in negatives), key=Tensor.item)
            found.append(relu(chosen - s[a, p] + margin))
    return mean(found, s)


FORMULAS = dict(zip(LOSSES, [batch_all, batch_hard_soft_margin, batch_hard, batch_semi_hard], strict=True))
LABELS = {
    "even": [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
    "uneven": [7, 7, 3, 7, 7, 7, 9, 3, 7, 7, 7, 7],
    "singles": [0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 9],
    "two": [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
}


def made(loss, margin, similarity):
    options = {} if loss is BatchHardSoftMarginTripletLoss else {"margin": margin}
    return loss(similarity=similarity, **options)


@pytest.mark.parametrize("similarity", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_the_formula_in_loops(loss, labels, similarity):
    torch.manual_seed(0)
    vectors = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    for margin in (0.2, 5.0):
        expected = differentiate(FORMULAS[loss](similarities(vectors, similarity), labels, margin), [vectors])
        for given in (torch.tensor(labels), torch.tensor(labels)[:, None]):
            got = made(loss, margin, similarity).compute_loss_from_embeddings([vectors], given)
            require_equal("loops", expected, differentiate(got, [vectors]))


@pytest.mark.parametrize("loss", LOSSES)
def test_many_tiles_equal_one(loss, monkeypatch):
    torch.manual_seed(0)
    vectors = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (40,))
    whole = differentiate(loss().compute_loss_from_embeddings([vectors], labels), [vectors])
    monkeypatch.setattr("losskit.math.contrastive.TILE_ROWS", 7)
    require_equal("tiles of 6", whole, differentiate(loss().compute_loss_from_embeddings([vectors], labels), [vectors]))


def test_ties_of_scores_and_margin_are_not_active():
    # Similarities are whole numbers: at a margin of 1 the first negative is just in order, the second is not.
    vectors = torch.tensor([[1.0], [3.0], [2.0], [4.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1])
    expected = batch_all(similarities(vectors, "dot"), labels.tolist(), 1.0)
    got = BatchAllTripletLoss(margin=1.0, similarity="dot").compute_loss_from_embeddings([vectors], labels)
    require_equal("ties", differentiate(expected, [vectors]), differentiate(got, [vectors]))


def test_a_negative_as_far_as_the_positive_is_not_semi_hard():
    vectors = torch.tensor([[1.0], [2.0], [2.0], [-3.0], [4.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2])
    expected = batch_semi_hard(similarities(vectors, "dot"), labels.tolist(), 3.0)
    got = BatchSemiHardTripletLoss(margin=3.0, similarity="dot").compute_loss_from_embeddings([vectors], labels)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([3, 3, 3, 3], "all rows are of one class, so there are no negatives"),
        ([0, 1, 2, 3], "no two rows are of one class, so there are no positives"),
        ([5], "all rows are of one class, so there are no negatives"),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_triplets_costs_nothing_and_is_named(loss, labels, reason, caplog):
    torch.manual_seed(0)
    vectors = torch.randn(len(labels), 3, requires_grad=True)
    found = differentiate(loss().compute_loss_from_embeddings([vectors], torch.tensor(labels)), [vectors])
    assert found.value == 0
    assert not found.gradients[0].any()
    assert f"{loss.__name__}: a batch teaches nothing: {reason}" in caplog.text


@pytest.mark.parametrize("loss", [each for each in LOSSES if each.card.row_wise])
def test_no_rows_cost_nothing(loss):
    vectors = torch.randn(4, 3, requires_grad=True)
    value = loss().compute([Output(vectors)], torch.tensor([0, 0, 1, 1]), slice(2, 2))
    value.backward()
    assert value == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_texts_of_two_classes_have_a_finite_gradient(loss):
    vectors = torch.ones(4, 3, requires_grad=True)
    (gradient,) = differentiate(
        loss().compute_loss_from_embeddings([vectors], torch.tensor([0, 0, 1, 1])), [vectors]
    ).gradients
    assert not gradient.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_refuses_what_does_not_fit(loss):
    vectors, name = torch.randn(3, 4), loss.__name__
    with pytest.raises(LossError, match=rf"labels for {name}: expected integers, one per class, got float32"):
        loss().compute_loss_from_embeddings([vectors], torch.tensor([0.5, 1.0, 1.0]))
    with pytest.raises(LossError, match=rf"the batch for {name}: expected columns \(text\), got 2 columns"):
        loss().compute_loss_from_embeddings([vectors, vectors], torch.tensor([0, 1, 1]))
    with pytest.raises(LossError, match=rf"labels for {name}: expected class, got none"):
        loss().compute_loss_from_embeddings([vectors])


@pytest.mark.parametrize("loss", WITH_MARGIN)
def test_refuses_a_margin_that_is_not_positive(loss):
    with pytest.raises(LossError, match=rf"{loss.__name__}.margin: expected a positive number, got 0"):
        loss(margin=0)
