"""Losses on pairs and triplets: the laws, the formulas in loops, and what they refuse."""

from __future__ import annotations

import logging
import math
from functools import partial

import pytest
import torch
from torch import nn

from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.angle import AnglELoss
from losskit_plugins.losses.contrastive import ContrastiveLoss
from losskit_plugins.losses.cosine_similarity import CosineSimilarityLoss
from losskit_plugins.losses.online_contrastive import OnlineContrastiveLoss
from losskit_plugins.losses.triplet import TripletLoss

SUBJECTS = [
    *subjects(AnglELoss, negatives=2),
    *subjects(ContrastiveLoss, weights=True),
    *subjects(partial(ContrastiveLoss, reduction="sum", similarity="euclidean"), families=["dense"]),
    *subjects(CosineSimilarityLoss, weights=True),
    *subjects(partial(CosineSimilarityLoss, criterion="absolute", activation="tanh"), families=["dense"]),
    *subjects(OnlineContrastiveLoss),
    *subjects(TripletLoss, weights=True),
    *subjects(partial(TripletLoss, similarity="cosine", margin=0.5), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


ROWS = 6
Y = [1.0, 0.0, 0.5, 0.5, -0.5, 1.0]
BINARY = torch.tensor([1, 0, 0, 1, 1, 0])


def embeddings(columns, width=4):
    generator = torch.Generator().manual_seed(columns)
    drawn = torch.randn(columns, ROWS, width, generator=generator, dtype=torch.float64)
    return [column.clone().requires_grad_() for column in drawn]


def cosine(x, y):
    return (x @ y) / (x.norm() * y.norm())


def angle(x, y):
    half = len(x) // 2
    c = sum(torch.complex(x[i], x[i + half]) * torch.complex(y[i], -y[i + half]) for i in range(half))
    return (c.real + c.imag).abs() / (x.norm() * y.norm())


def require_as_in_loops(expected, loss, columns, labels=None):
    got = loss.compute_loss_from_embeddings(columns, labels)
    require_equal("loops", differentiate(expected, columns), differentiate(got, columns))


def by_pairs(pairs):
    """CoSENT of (score, label)."""
    total = torch.ones((), dtype=torch.float64)
    for s_i, y_i in pairs:
        for s_j, y_j in pairs:
            if y_i < y_j:
                total = total + (s_i - s_j).exp()
    return total.log()


def test_angle_of_pairs():
    a, b = columns = embeddings(2)
    pairs = [(5 * angle(x, y), label) for x, y, label in zip(a, b, Y, strict=True)]
    require_as_in_loops(by_pairs(pairs), AnglELoss(scale=5.0), columns, torch.tensor(Y))


@pytest.mark.parametrize("labels", [None, [1.0, 0.0, 0.5, 0.75, 0.25, 1.0]], ids=["none", "scores"])
def test_angle_of_tuples(labels):
    a, p, *negatives = columns = embeddings(4)
    pairs = []
    for row, y in enumerate(labels or [1.0] * ROWS):
        pairs.append((20 * angle(a[row], p[row]), y))
        pairs += [(20 * angle(a[row], n[row]), 1 - y) for n in negatives]
    require_as_in_loops(by_pairs(pairs), AnglELoss(), columns, None if labels is None else torch.tensor(labels))


@pytest.mark.parametrize("criterion", ["squared", "absolute"])
def test_cosine_similarity(criterion):
    a, b = columns = embeddings(2)
    error = {"squared": lambda e: e * e, "absolute": abs}[criterion]
    total = sum(error(torch.tanh(cosine(x, y)) - label) for x, y, label in zip(a, b, Y, strict=True))
    loss = CosineSimilarityLoss(criterion=criterion, activation="tanh")
    require_as_in_loops(total / ROWS, loss, columns, torch.tensor(Y)[:, None])


def test_cosine_similarity_with_functions():
    a, b = columns = embeddings(2)
    expected = sum(0.5 * (cosine(x, y).exp() - label).square() for x, y, label in zip(a, b, Y, strict=True)) / ROWS
    huber = nn.HuberLoss(delta=100.0)
    require_as_in_loops(expected, CosineSimilarityLoss(criterion=huber, activation=torch.exp), columns, torch.tensor(Y))


def contrastive_terms(columns, margin, distance):
    for x, y, label in zip(*columns, BINARY.tolist(), strict=True):
        d = distance(x, y)
        yield d.square() if label else (margin - d).clamp(min=0).square(), d, label


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("similarity", "distance", "margin"),
    [
        (None, lambda x, y: 1 - cosine(x, y), 1.1),
        ("euclidean", lambda x, y: (x - y).square().sum().sqrt(), 3.0),
        ("manhattan", lambda x, y: (x - y).abs().sum(), 5.0),
    ],
    ids=["cosine", "euclidean", "manhattan"],
)
def test_contrastive(similarity, distance, margin, reduction):
    columns = embeddings(2)
    total = sum(term for term, _, _ in contrastive_terms(columns, margin, distance)) / 2
    loss = ContrastiveLoss(margin=margin, reduction=reduction, similarity=similarity)
    require_as_in_loops(total / ROWS if reduction == "mean" else total, loss, columns, BINARY)


@pytest.mark.parametrize(
    "labels", [BINARY, torch.ones(ROWS), torch.zeros(ROWS)], ids=["both", "positives", "negatives"]
)
def test_online_contrastive(labels):
    a, b = columns = embeddings(2)
    pairs = [(1 - cosine(x, y), int(label)) for x, y, label in zip(a, b, labels, strict=True)]
    positives, negatives = ([d for d, label in pairs if label == kind] for kind in (1, 0))
    mean = sum(d for d, _ in pairs) / ROWS
    near = min(negatives) if negatives else mean
    far = max(positives) if positives else mean
    hard = [d.square() for d in positives if d > near] + [(1.2 - d).clamp(min=0).square() for d in negatives if d < far]
    assert 0 < len(hard) < ROWS
    require_as_in_loops(sum(hard), OnlineContrastiveLoss(margin=1.2), columns, labels)


@pytest.mark.parametrize("labels", [BINARY, torch.ones(ROWS), torch.zeros(ROWS)], ids=["both", "ones", "zeros"])
@pytest.mark.parametrize("row", range(2))
def test_online_contrastive_of_nan_is_nan(labels, row):
    a, b = embeddings(2)
    spoilt = a.detach().index_fill(0, torch.tensor([row]), math.nan)
    assert OnlineContrastiveLoss().compute_loss_from_embeddings([spoilt, b], labels).isnan()


@pytest.mark.parametrize(
    ("similarity", "score", "margin"),
    [
        (None, lambda x, y: -(x - y).square().sum().sqrt(), 0.5),
        ("cosine", cosine, 0.2),
        ("dot", lambda x, y: x @ y, 1.0),
    ],
    ids=["euclidean", "cosine", "dot"],
)
def test_triplet(similarity, score, margin):
    columns = embeddings(3)
    terms = [(score(a, n) - score(a, p) + margin).clamp(min=0) for a, p, n in zip(*columns, strict=True)]
    assert {term.item() > 0 for term in terms} == {True, False}
    require_as_in_loops(sum(terms) / ROWS, TripletLoss(margin=margin, similarity=similarity), columns)


WEIGHTED = [
    (CosineSimilarityLoss, 2, torch.tensor(Y)),
    (ContrastiveLoss, 2, BINARY),
    (TripletLoss, 3, None),
]


@pytest.mark.parametrize(("cls", "columns", "labels"), WEIGHTED, ids=lambda value: getattr(value, "__name__", ""))
def test_sample_weights_multiply_the_losses_of_rows(cls, columns, labels):
    weights = torch.arange(1.0, 1 + ROWS)
    records = [Output(column) for column in embeddings(columns)]
    alone = [cls().compute(records, labels, slice(row, row + 1)) for row in range(ROWS)]
    records[0] = Output(records[0].embedding, parts={"weight": weights})
    expected = sum(weight * value for weight, value in zip(weights, alone, strict=True)) / ROWS
    torch.testing.assert_close(cls().compute(records, labels, slice(0, ROWS)), expected)


def test_no_rows_cost_nothing():
    for cls, count, labels in WEIGHTED:
        columns = embeddings(count)
        value = cls().compute([Output(column) for column in columns], labels, slice(2, 2))
        value.backward()
        assert value == 0


@pytest.mark.parametrize("cls", [ContrastiveLoss, OnlineContrastiveLoss])
def test_a_distance_needs_a_highest_similarity(cls):
    with pytest.raises(LossError, match=rf"{cls.__name__}.similarity: expected one with a highest value.*got dot"):
        cls(similarity="dot")


@pytest.mark.parametrize("cls", [ContrastiveLoss, OnlineContrastiveLoss])
def test_binary_labels_are_0_or_1(cls):
    for labels in (torch.tensor([0.5, 1, 0, 1, 0, 1]), torch.tensor([2, 1, 0, 1, 0, 1])):
        with pytest.raises(LossError, match=rf"labels for {cls.__name__}: expected 0 or 1, got {labels[0]:g}"):
            cls().compute_loss_from_embeddings(embeddings(2), labels)
    floats = cls().compute_loss_from_embeddings(embeddings(2), BINARY.float())
    assert floats == cls().compute_loss_from_embeddings(embeddings(2), BINARY.bool())


def test_labels_beyond_what_can_be_reached():
    with pytest.raises(LossError, match=r"CosineSimilarityLoss: expected scores in \[-1, 1\].*got some from 0 to 5"):
        CosineSimilarityLoss().compute_loss_from_embeddings(embeddings(2), torch.arange(6.0))
    CosineSimilarityLoss(activation=lambda s: 5 * s).compute_loss_from_embeddings(embeddings(2), torch.arange(6.0) / 2)
    with pytest.raises(LossError, match=r"AnglELoss: expected scores in \[0, 1\] of tuples.*got some from 0 to 5"):
        AnglELoss().compute_loss_from_embeddings(embeddings(3), torch.arange(6.0))
    with pytest.raises(LossError, match="labels for AnglELoss: expected numbers, got NaN"):
        AnglELoss().compute_loss_from_embeddings(embeddings(2), torch.tensor([float("nan"), 0, 0, 0, 0, 1]))


@pytest.mark.parametrize("labels", [torch.full((ROWS,), 0.5)])
def test_equal_labels_teach_the_angle_nothing(labels, caplog):
    with caplog.at_level(logging.WARNING, "losskit"):
        for columns in (2, 3):
            value = AnglELoss().compute_loss_from_embeddings(embeddings(columns), labels)
            value.backward()
            assert value == 0
    assert [record.message.count("all labels are equal") for record in caplog.records] == [1, 1]


def test_a_mean_over_rows_takes_no_sample_weights():
    records = [Output(column) for column in embeddings(2)]
    records[0] = Output(records[0].embedding, parts={"weight": torch.ones(ROWS)})
    with pytest.raises(LossError, match="expected a criterion with one error per row, got one that returns their mean"):
        CosineSimilarityLoss(criterion=nn.MSELoss()).compute(records, torch.tensor(Y), slice(0, ROWS))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnglELoss(scale=0), "AnglELoss.scale: expected a positive number, got 0"),
        (lambda: ContrastiveLoss(margin=-1), "ContrastiveLoss.margin: expected 0 or more, got -1"),
        (lambda: ContrastiveLoss(reduction="max"), "ContrastiveLoss.reduction: expected 'mean' or 'sum', got 'max'"),
        (lambda: OnlineContrastiveLoss(margin=-1), "OnlineContrastiveLoss.margin: expected 0 or more, got -1"),
        (lambda: TripletLoss(margin=-1), "TripletLoss.margin: expected 0 or more, got -1"),
        (
            lambda: CosineSimilarityLoss(criterion="cubed"),
            "criterion: expected a function, or one of squared, absolute, got 'cu",
        ),
        (lambda: CosineSimilarityLoss(activation="exp"), "activation: expected a function, or one of identity, sigmo"),
    ],
)
def test_refuses_impossible_options(make, message):
    with pytest.raises(LossError) as error:
        make()
    assert message in str(error.value)


def test_columns_beyond_those_declared():
    for loss, count, labels in (
        (TripletLoss(), 4, None),
        (ContrastiveLoss(), 3, BINARY),
        (CosineSimilarityLoss(), 3, torch.tensor(Y)),
    ):
        with pytest.raises(LossError, match=f"the batch for {type(loss).__name__}: expected columns"):
            loss.compute_loss_from_embeddings(embeddings(count), labels)
