"""A cross-encoder's in-batch negatives beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cross_parity import (
    Batch,
    Table,
    draw_logits,
    incumbent_table,
    ours_on,
    require_cross_as_near,
    require_cross_equal,
    theirs_on,
    tuples,
)
from parity import require_different
from torch import nn

from losskit.testing import differentiate, require_equal
from losskit_plugins.losses.cross_multiple_negatives_ranking import CrossMultipleNegativesRankingLoss as Ours

original = pytest.importorskip("sentence_transformers.cross_encoder.losses")
Theirs = original.MultipleNegativesRankingLoss

ACTIVATIONS = {"sigmoid": nn.Sigmoid(), "identity": nn.Identity(), "tanh": nn.Tanh(), "relu": nn.ReLU()}


@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize("count", [None, 100])
@pytest.mark.parametrize("scale", [10, 0.5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_all_negatives(activation, scale, count, negatives):
    theirs = partial(Theirs, num_negatives=count, scale=scale, activation_fn=ACTIVATIONS[activation])
    ours = partial(Ours, num_negatives=count, scale=scale, activation=activation)
    require_cross_equal(theirs, ours, tuples(5, negatives))


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("count", [1, 4])
def test_with_the_same_draws(count, negatives):
    """Both score as many pairs of each anchor; on the original's, ours gives the original's loss."""
    batch = tuples(6, negatives)
    model = incumbent_table()(batch.logits)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = differentiate(Theirs(model, num_negatives=count)(batch.columns, None), [model.logits])
    asked = sorted(pair for forward in model.asked for pair in forward)
    own = Table(batch.logits)
    loss = Ours(own, num_negatives=count)
    lists = (1 + negatives + count,) * 6
    _, drawn = loss.drawn_pairs(batch.columns)
    assert drawn == lists
    # The positive, whose number is the anchor's, comes first of those of its row as a sorted pair does not.
    positive_first = sorted(asked, key=lambda pair: (pair[0], pair[1] != pair[0]))
    got = loss([own.preprocess([map(str, pair) for pair in positive_first]) | {"lists": lists}])
    require_equal("on the pairs of the original", expected, differentiate(got, [own.logits]))


def test_in_float32():
    require_cross_as_near(partial(Theirs, num_negatives=None), partial(Ours, num_negatives=None), tuples(5, 1))


def on_duplicates():
    """Two rows with one positive, which is no negative of either."""
    batch = Batch((["0", "1", "2"], ["0", "0", "1"]), None, draw_logits(3, 2))
    theirs, ours = (partial(cls, num_negatives=None) for cls in (Theirs, Ours))
    return lambda: theirs_on(theirs, batch), lambda: ours_on(ours, batch)


def on_labels():
    batch = tuples(4, 1, torch.ones(4))
    theirs, ours = (partial(cls, num_negatives=None) for cls in (Theirs, Ours))
    return lambda: theirs_on(theirs, batch), lambda: ours_on(ours, batch)


def on_draws():
    """Whether a batch has the same negatives whenever it is asked for."""
    batch = tuples(8)

    def repeated(make, model):
        loss = make(model, num_negatives=2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            values = {loss([list(column) for column in batch.columns], None).item() for _ in range(4)}
        return len(values) == 1

    return lambda: repeated(Theirs, incumbent_table()(batch.logits)), lambda: repeated(Ours, Table(batch.logits))


def on_a_scale_of_0():
    batch = tuples(4)
    theirs, ours = (partial(cls, num_negatives=None, scale=0) for cls in (Theirs, Ours))
    return lambda: theirs_on(theirs, batch), lambda: ours_on(ours, batch)


NAME = "MultipleNegativesRankingLoss of cross-encoders"
DIFFERENCES = {
    (NAME, "draws"): on_draws,
    (NAME, "duplicates"): on_duplicates,
    (NAME, "labels"): on_labels,
    (NAME, "scale-0"): on_a_scale_of_0,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids=lambda case: case[1])
def test_differences(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
