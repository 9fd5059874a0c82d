"""Batch triplets and global orthogonal regularization beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from parity import embeddings, on, require_as_near, require_different

from losskit.testing import require_equal
from losskit_plugins.losses.batch_all_triplet import BatchAllTripletLoss
from losskit_plugins.losses.batch_hard_soft_margin_triplet import BatchHardSoftMarginTripletLoss
from losskit_plugins.losses.batch_hard_triplet import BatchHardTripletLoss
from losskit_plugins.losses.batch_semi_hard_triplet import BatchSemiHardTripletLoss
from losskit_plugins.losses.global_orthogonal_regularization import GlobalOrthogonalRegularizationLoss

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
util = pytest.importorskip("sentence_transformers.util")


@pytest.mark.parametrize("rows", [2, 5, 13, 40])
@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_global_orthogonal(columns, rows, aggregation):
    batch = embeddings(columns, rows)
    for similarity, function in (("cosine", util.cos_sim), ("dot", util.dot_score), ("euclidean", util.euclidean_sim)):
        for weights in ((1.0, 1.0), (0.5, None), (0.0, 2.0)):
            theirs = original.GlobalOrthogonalRegularizationLoss(None, function, *weights, aggregation)
            ours = GlobalOrthogonalRegularizationLoss(None, *weights, aggregation, similarity)
            require_equal(f"{similarity} {weights}", on(theirs, batch), on(ours, batch))


@pytest.mark.parametrize("rows", [5, 12, 13, 100, 1000])
def test_global_orthogonal_is_as_near_in_float32(rows):
    theirs, ours = original.GlobalOrthogonalRegularizationLoss(None), GlobalOrthogonalRegularizationLoss()
    require_as_near(theirs, ours, 2, rows=rows)


def test_global_orthogonal_of_crowded_embeddings_is_as_near_in_float32():
    generator = torch.Generator().manual_seed(0)
    singles = [(torch.randn(300, 16, generator=generator) + 2.0).requires_grad_()]
    doubles = [column.detach().double().requires_grad_() for column in singles]
    theirs, ours = original.GlobalOrthogonalRegularizationLoss(None), GlobalOrthogonalRegularizationLoss()
    (truth,) = on(ours, doubles).gradients
    errors = [
        float((on(each, singles).gradients[0] - truth).abs().max() / truth.abs().max()) for each in (theirs, ours)
    ]
    assert errors[1] <= max(1.5 * errors[0], 1e-5), errors


TRIPLETS = {
    BatchAllTripletLoss: original.BatchAllTripletLoss,
    BatchHardTripletLoss: original.BatchHardTripletLoss,
    BatchHardSoftMarginTripletLoss: original.BatchHardSoftMarginTripletLoss,
    BatchSemiHardTripletLoss: original.BatchSemiHardTripletLoss,
}
DISTANCES = {
    "euclidean": original.BatchHardTripletLossDistanceFunction.euclidean_distance,
    "cosine": original.BatchHardTripletLossDistanceFunction.cosine_distance,
}
CLASSES = torch.tensor([4, 0, 1, 4, 0, 1, 0, 1, 4, 4, 0, 0])


def pair(ours, margin=5.0, similarity="euclidean"):
    """Both losses."""
    options = {} if ours is BatchHardSoftMarginTripletLoss else {"margin": margin}
    theirs = TRIPLETS[ours](torch.nn.Identity(), DISTANCES[similarity], **options)
    return theirs, ours(similarity=similarity, **options)


@pytest.mark.parametrize("similarity", DISTANCES)
@pytest.mark.parametrize("margin", [0.3, 5.0])
@pytest.mark.parametrize("loss", TRIPLETS)
def test_batch_triplets(loss, margin, similarity):
    batch = embeddings(1, 12)
    theirs, ours = pair(loss, margin, similarity)
    require_equal(similarity, on(theirs, batch, CLASSES), on(ours, batch, CLASSES))


@pytest.mark.parametrize("similarity", DISTANCES)
@pytest.mark.parametrize("loss", TRIPLETS)
def test_batch_triplets_are_as_near_in_float32(loss, similarity):
    require_as_near(*pair(loss, 0.5, similarity), 1, CLASSES, rows=12)


def lonely(ours):
    """The difference that a text without others of its class makes."""
    theirs, found = pair(ours)
    batch, classes = embeddings(1, 12), CLASSES.index_fill(0, torch.tensor(2), 9)
    return lambda: on(theirs, batch, classes), lambda: on(found, batch, classes)


def one_class(ours):
    """The difference that a batch of one class makes."""
    theirs, found = pair(ours)
    batch, classes = embeddings(1, 12), torch.zeros(12, dtype=torch.int64)
    return lambda: on(theirs, batch, classes), lambda: on(found, batch, classes)


DIFFERENCES = {
    ("BatchHardSoftMarginTripletLoss", "lonely-anchors"): partial(lonely, BatchHardSoftMarginTripletLoss),
    ("BatchHardSoftMarginTripletLoss", "one-class"): partial(one_class, BatchHardSoftMarginTripletLoss),
    ("BatchHardTripletLoss", "lonely-anchors"): partial(lonely, BatchHardTripletLoss),
    ("BatchHardTripletLoss", "one-class"): partial(one_class, BatchHardTripletLoss),
    ("BatchSemiHardTripletLoss", "one-class"): partial(one_class, BatchSemiHardTripletLoss),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_differences(case):
    require_different(*DIFFERENCES[case]())
