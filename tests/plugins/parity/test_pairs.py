"""Losses on pairs, triplets and scores of teachers beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

import warnings

import pytest
import torch
from parity import embeddings, on, one_zero_vector, require_as_near, require_different
from torch import nn

from losskit.testing import require_equal
from losskit_plugins.losses.angle import AnglELoss
from losskit_plugins.losses.contrastive import ContrastiveLoss
from losskit_plugins.losses.cosine_similarity import CosineSimilarityLoss
from losskit_plugins.losses.distill_kl_div import DistillKLDivLoss
from losskit_plugins.losses.margin_mse import MarginMSELoss
from losskit_plugins.losses.online_contrastive import OnlineContrastiveLoss
from losskit_plugins.losses.triplet import TripletLoss

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
util = pytest.importorskip("sentence_transformers.util")

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25], dtype=torch.float64)  # the original rounds some to float32
BINARY = torch.tensor([1, 0, 0, 1, 0])
TEACHER = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def norm(order):
    """A distance without the 1e-6 that the original's contrastive losses add to differences."""
    return lambda x, y: torch.linalg.vector_norm(x - y, ord=order, dim=-1)


DISTANCES = {
    "cosine": lambda x, y: 1 - util.pairwise_cos_sim(x, y),
    "euclidean": norm(2),
    "manhattan": norm(1),
}
FUNCTIONS = {"cosine": util.pairwise_cos_sim, "dot": util.pairwise_dot_score}


def same(theirs, ours, columns, labels=None):
    batch = embeddings(columns)
    require_equal(type(ours).__name__, on(theirs, batch, labels), on(ours, batch, labels))


@pytest.mark.parametrize("scale", [20.0, 3.0])
def test_angle(scale):
    theirs, ours = original.AnglELoss(None, scale=scale), AnglELoss(scale=scale)
    same(theirs, ours, 2, SCORES)
    for columns in (3, 5):
        same(theirs, ours, columns)
        same(theirs, ours, columns, SCORES)


ACTIVATIONS = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "relu": nn.ReLU()}
CRITERIA = {"squared": nn.MSELoss(), "absolute": nn.L1Loss()}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_cosine_similarity(criterion, activation):
    theirs = original.CosineSimilarityLoss(None, CRITERIA[criterion], ACTIVATIONS[activation])
    same(theirs, CosineSimilarityLoss(criterion=criterion, activation=activation), 2, SCORES)
    functions = {"criterion": CRITERIA[criterion], "activation": ACTIVATIONS[activation]}
    same(theirs, CosineSimilarityLoss(**functions), 2, SCORES)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("margin", [0.5, 1.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_contrastive(reduction, margin, name):
    theirs = original.ContrastiveLoss(None, DISTANCES[name], margin, size_average=reduction == "mean")
    same(theirs, ContrastiveLoss(margin=margin, reduction=reduction, similarity=name), 2, BINARY)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("margin", [0.5, 3.0])
@pytest.mark.parametrize("labels", [BINARY, torch.ones(5), torch.zeros(5)], ids=["both", "ones", "zeros"])
def test_online_contrastive(labels, margin, name):
    theirs = original.OnlineContrastiveLoss(None, DISTANCES[name], margin)
    same(theirs, OnlineContrastiveLoss(margin=margin, similarity=name), 2, labels)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("margin", [0.3, 5.0])
def test_triplet(margin, name):
    metric = getattr(original.TripletDistanceMetric, name.upper())
    same(original.TripletLoss(None, metric, margin), TripletLoss(margin=margin, similarity=name), 3)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("columns", "labels"), [(3, SCORES), (3, TEACHER[:, :2]), (4, TEACHER[:, :2]), (4, TEACHER)])
def test_margin_mse(columns, labels, name):
    same(original.MarginMSELoss(None, FUNCTIONS[name]), MarginMSELoss(similarity=name), columns, labels)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 2.0},
        {"temperature": 2.0, "student_temperature": 0.5},
        {"student_temperature": 3.0, "teacher_temperature": 0.5},
    ],
    ids=str,
)
def test_distill_kl_div(options, name):
    ours = DistillKLDivLoss(similarity=name, **options)
    same(original.DistillKLDivLoss(None, FUNCTIONS[name], **options), ours, 4, TEACHER)
    excluding = TEACHER.index_fill(1, torch.tensor([2]), float("-inf"))
    same(original.DistillKLDivLoss(None, FUNCTIONS[name], **options), ours, 4, excluding)


def test_defaults():
    for name, ours, columns, labels in PAIRS:
        same(getattr(original, name)(None), ours, columns, labels)


PAIRS = [
    ("AnglELoss", AnglELoss(), 2, SCORES),
    ("CosineSimilarityLoss", CosineSimilarityLoss(), 2, SCORES),
    ("ContrastiveLoss", ContrastiveLoss(), 2, BINARY),
    ("OnlineContrastiveLoss", OnlineContrastiveLoss(), 2, BINARY),
    ("TripletLoss", TripletLoss(), 3, None),
    ("MarginMSELoss", MarginMSELoss(), 3, SCORES),
    ("DistillKLDivLoss", DistillKLDivLoss(), 4, TEACHER),
]


@pytest.mark.parametrize(("name", "ours", "columns", "labels"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_float32_is_as_near_to_the_truth(name, ours, columns, labels):
    require_as_near(getattr(original, name)(None), ours, columns, labels)


# Deliberate differences: (class, case) -> the original and ours.


def both(name, columns, labels):
    """What the original and ours give of like data; the original may warn."""
    ours = next(ours for known, ours, _, _ in PAIRS if known == name)

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return on(getattr(original, name)(None), embeddings(columns), labels)

    return theirs, lambda: on(ours, embeddings(columns), labels)


def zero_vector(name):
    ours, columns, labels = next(found[1:] for found in PAIRS if found[0] == name)
    similar = labels.index_fill(0, torch.tensor([0]), 1)  # the zero vector to its partner
    return one_zero_vector(getattr(original, name)(None), ours, columns, similar)


def exact_distances(name, cls):
    theirs = getattr(original, name)(None, original.SiameseDistanceMetric.EUCLIDEAN, 5.0)
    ours = cls(margin=5.0, similarity="euclidean")
    return tuple(lambda loss=loss: on(loss, embeddings(2), BINARY) for loss in (theirs, ours))


DIFFERENCES = {
    ("AnglELoss", "labels"): lambda: both("AnglELoss", 3, 5 * SCORES),
    ("ContrastiveLoss", "exact-distances"): lambda: exact_distances("ContrastiveLoss", ContrastiveLoss),
    ("ContrastiveLoss", "labels"): lambda: both("ContrastiveLoss", 2, SCORES),
    ("ContrastiveLoss", "zero-vectors"): lambda: zero_vector("ContrastiveLoss"),
    ("CosineSimilarityLoss", "extra-columns"): lambda: both("CosineSimilarityLoss", 3, SCORES),
    ("CosineSimilarityLoss", "labels"): lambda: both("CosineSimilarityLoss", 2, 5 * SCORES),
    ("CosineSimilarityLoss", "zero-vectors"): lambda: zero_vector("CosineSimilarityLoss"),
    ("OnlineContrastiveLoss", "exact-distances"): lambda: exact_distances(
        "OnlineContrastiveLoss", OnlineContrastiveLoss
    ),
    ("OnlineContrastiveLoss", "extra-columns"): lambda: both("OnlineContrastiveLoss", 3, BINARY),
    ("OnlineContrastiveLoss", "labels"): lambda: both("OnlineContrastiveLoss", 2, SCORES),
    ("OnlineContrastiveLoss", "zero-vectors"): lambda: zero_vector("OnlineContrastiveLoss"),
    ("TripletLoss", "labels"): lambda: both("TripletLoss", 3, SCORES),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
