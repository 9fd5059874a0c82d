"""Losses on documents and whole lists beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cross_parity import (
    Table,
    incumbent_table,
    lists,
    ours_on,
    pairs,
    require_cross_as_near,
    require_cross_equal,
    theirs_on,
)
from parity import require_different
from torch import nn

from losskit_plugins.losses.binary_cross_entropy import BinaryCrossEntropyLoss
from losskit_plugins.losses.cross_entropy import CrossEntropyLoss
from losskit_plugins.losses.list_mle import ListMLELoss
from losskit_plugins.losses.list_net import ListNetLoss
from losskit_plugins.losses.p_list_mle import PListMLELoss
from losskit_plugins.losses.score_mse import ScoreMSELoss

original = pytest.importorskip("sentence_transformers.cross_encoder.losses")

ACTIVATIONS = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "relu": nn.ReLU()}
EACH_ACTIVATION = pytest.mark.parametrize("activation", ACTIVATIONS)
# Labels of which float32 loses nothing, as the original casts them.
SCORES = torch.tensor([0.25, 0.0, 1.0, 0.5, 0.75])
CLASSES = torch.tensor([0, 2, 1, 1, 0])
DISTRIBUTIONS = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.125, 0.125, 0.75]], dtype=torch.float64)
RAGGED = lists([0, 2, 1], [-1, 1], [3], [0.5, 5, 1.25, 4, 0])
FALLING = lists([2, 1, 0], [1, 0], [3], [1, 1], [5, 4, 1.25, 0.5, 0.5])
LONG = lists([*range(300, 0, -1)], [*range(5, 0, -1)], [*range(128, 0, -1)])
NORMALISED = 1e-9
"""The original adds 1e-10 to the sum of its weights."""


@EACH_ACTIVATION
@pytest.mark.parametrize("weight", [None, 0.5, 4.0])
@pytest.mark.parametrize("labels", [SCORES, SCORES[:, None], SCORES.round().long()], ids=["flat", "column", "binary"])
def test_binary_cross_entropy(labels, weight, activation):
    tensor = None if weight is None else torch.tensor(weight)
    theirs = partial(original.BinaryCrossEntropyLoss, activation_fn=ACTIVATIONS[activation], pos_weight=tensor)
    require_cross_equal(
        theirs, partial(BinaryCrossEntropyLoss, pos_weight=weight, activation=activation), pairs(labels)
    )


@EACH_ACTIVATION
def test_score_mse(activation):
    theirs = partial(original.MSELoss, activation_fn=ACTIVATIONS[activation])
    require_cross_equal(theirs, partial(ScoreMSELoss, activation=activation), pairs(4 * SCORES))


@EACH_ACTIVATION
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None], DISTRIBUTIONS], ids=["flat", "column", "distributions"])
def test_cross_entropy(labels, weights, smoothing, activation):
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    options = {"label_smoothing": smoothing, "weight": tensor}
    theirs = partial(original.CrossEntropyLoss, activation_fn=ACTIVATIONS[activation], **options)
    ours = partial(CrossEntropyLoss, label_smoothing=smoothing, class_weights=weights, activation=activation)
    require_cross_equal(theirs, ours, pairs(labels, classes=3))


@EACH_ACTIVATION
@pytest.mark.parametrize("batch", [RAGGED, FALLING, LONG], ids=["ragged", "ties", "long"])
def test_list_net(batch, activation):
    theirs = partial(original.ListNetLoss, activation_fn=ACTIVATIONS[activation])
    require_cross_equal(theirs, partial(ListNetLoss, activation=activation), batch)


@EACH_ACTIVATION
@pytest.mark.parametrize("ordered", [True, False], ids=["as they come", "by labels"])
def test_list_mle(ordered, activation):
    options = {"respect_input_order": ordered}
    theirs = partial(original.ListMLELoss, activation_fn=ACTIVATIONS[activation], **options)
    ours = partial(ListMLELoss, activation=activation, **options)
    for batch in (FALLING, LONG) if ordered else (RAGGED, LONG):
        require_cross_equal(theirs, ours, batch)


def own_discount(mask):
    return mask / (1 + mask.cumsum(1).double())


DISCOUNTS = {
    "exponential": (original.PListMLELambdaWeight, "exponential"),
    "none": (lambda: None, None),
    "own": (partial(original.PListMLELambdaWeight, own_discount), lambda ranks, counts: 1 / (1 + ranks)),
    "logarithmic": (
        partial(original.PListMLELambdaWeight, lambda mask: mask / torch.log2(1 + mask.cumsum(1).double())),
        "logarithmic",
    ),
}


@pytest.mark.parametrize("discount", DISCOUNTS)
@pytest.mark.parametrize("ordered", [True, False], ids=["as they come", "by labels"])
def test_p_list_mle(ordered, discount):
    weight, name = DISCOUNTS[discount]
    theirs = partial(original.PListMLELoss, lambda_weight=weight(), respect_input_order=ordered)
    ours = partial(PListMLELoss, rank_discount=name, respect_input_order=ordered)
    for batch in (FALLING, LONG) if ordered else (RAGGED, LONG):
        require_cross_equal(theirs, ours, batch, tolerance=NORMALISED)


IN_FLOAT32 = {
    "binary-cross-entropy": (original.BinaryCrossEntropyLoss, BinaryCrossEntropyLoss, pairs(SCORES)),
    "score-mse": (original.MSELoss, ScoreMSELoss, pairs(SCORES)),
    "cross-entropy": (original.CrossEntropyLoss, CrossEntropyLoss, pairs(CLASSES, classes=3)),
    "list-net": (original.ListNetLoss, ListNetLoss, LONG),
    "list-mle": (original.ListMLELoss, ListMLELoss, LONG),
    "p-list-mle": (original.PListMLELoss, PListMLELoss, LONG),
}


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_in_float32(name):
    require_cross_as_near(*IN_FLOAT32[name])


def on(theirs, ours, batch):
    return lambda: theirs_on(theirs, batch), lambda: ours_on(ours, batch)


def on_built(theirs, ours, logits):
    """Whether a loss can be built."""
    return lambda: bool(theirs(incumbent_table()(logits))), lambda: bool(ours(Table(logits)))


def on_single_documents(theirs, ours):
    """Whether the gradient of the logits is there, if zero."""
    batch = lists([1], [0])

    def connected(make, model):
        make(model)([list(column) for column in batch.columns], batch.labels).backward()
        return model.logits.grad is not None

    return lambda: connected(theirs, incumbent_table()(batch.logits)), lambda: connected(ours, Table(batch.logits))


def listwise(name, ours):
    """What the table says of list-mle and p-list-mle."""
    theirs = getattr(original, name)
    ordered = partial(theirs, respect_input_order=True), partial(ours, respect_input_order=True)
    return {
        (name, "order"): partial(on, theirs, ours, RAGGED),
        (name, "rising-labels"): partial(on, *ordered, RAGGED),
        (name, "single-documents"): partial(on_single_documents, theirs, ours),
    }


DIFFERENCES = {
    ("BinaryCrossEntropyLoss", "labels"): partial(
        on, original.BinaryCrossEntropyLoss, BinaryCrossEntropyLoss, pairs(4 * SCORES)
    ),
    ("CrossEntropyLoss", "ignored-class"): partial(
        on, original.CrossEntropyLoss, CrossEntropyLoss, pairs([0, -100, 2], classes=3)
    ),
    ("CrossEntropyLoss", "one-output"): partial(
        on_built, original.CrossEntropyLoss, CrossEntropyLoss, torch.zeros(2, 2)
    ),
    **listwise("ListMLELoss", ListMLELoss),
    **listwise("PListMLELoss", PListMLELoss),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_differences(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
