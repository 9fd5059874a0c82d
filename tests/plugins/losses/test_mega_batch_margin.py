"""Mega-batch margin: the laws, the formula in loops, ties, and a batch without negatives."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError, Output
from losskit.math import contrastive
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.mega_batch_margin import MegaBatchMarginLoss

SUBJECTS = [
    *subjects(MegaBatchMarginLoss, families=["dense", "sparse"]),
    *subjects(
        partial(MegaBatchMarginLoss, positive_margin=-0.2, negative_margin=-2.0, similarity="euclidean"),
        families=["dense"],
    ),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def vectors(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_()


def by_loops(anchors, positives, similarity, near, far):
    total = 0.0
    for i, anchor in enumerate(anchors):
        total = total + (near - similarity(anchor, positives[i])).clamp(min=0)
        others = [similarity(anchor, other) for j, other in enumerate(positives) if j != i]
        if others:
            total = total + (max(others) - far).clamp(min=0)
    return total / len(anchors)


SIMILARITIES = {
    "cosine": lambda a, b: a @ b / (a.norm() * b.norm()),
    "dot": lambda a, b: a @ b,
    "manhattan": lambda a, b: -(a - b).abs().sum(),
}


@pytest.mark.parametrize("tile_rows", [1, 3, 100])
@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_equals_the_formula_in_loops(name, rows, tile_rows, monkeypatch):
    monkeypatch.setattr(contrastive, "TILE_ROWS", tile_rows)
    anchors, positives = vectors(rows, 0), vectors(rows, 1)
    near, far = (0.8, 0.3) if name != "manhattan" else (-0.5, -4.0)
    loss = MegaBatchMarginLoss(None, near, far, similarity=name)
    expected = by_loops(anchors, positives, SIMILARITIES[name], near, far)
    got = loss.compute_loss_from_embeddings([anchors, positives])
    leaves = [anchors, positives]
    require_equal("loops", differentiate(expected, leaves), differentiate(got, leaves))


def test_a_row_is_told_from_positives_of_other_slices():
    anchors, positives = vectors(5, 0), vectors(5, 1)
    got = MegaBatchMarginLoss().compute([Output(anchors), Output(positives)], None, slice(3, 5))
    similarity = SIMILARITIES["cosine"]
    expected = 0.0
    for i in (3, 4):
        hardest = max(similarity(anchors[i], positives[j]) for j in range(5) if j != i)
        expected = expected + (0.8 - similarity(anchors[i], positives[i])).relu() + (hardest - 0.3).relu()
    torch.testing.assert_close(got, expected / 2)


def test_one_row_has_no_negative(caplog):
    anchors, positives = vectors(1, 0), vectors(1, 1)
    value = MegaBatchMarginLoss(positive_margin=2.0).compute_loss_from_embeddings([anchors, positives])
    torch.testing.assert_close(value, 2.0 - SIMILARITIES["cosine"](anchors[0], positives[0]))
    assert "one row has no negative" in caplog.text


def test_no_rows_cost_nothing():
    columns = [vectors(3, 0), vectors(3, 1)]
    value = MegaBatchMarginLoss().compute([Output(column) for column in columns], None, slice(2, 2))
    value.backward()
    assert value == 0


def test_refuses_what_it_would_ignore():
    embedding = torch.randn(3, 4)
    with pytest.raises(LossError, match=r"expected columns \(anchor, positive\), got 3 columns"):
        MegaBatchMarginLoss().compute_loss_from_embeddings([embedding] * 3)
    with pytest.raises(LossError, match="expected none, for it learns from the columns alone"):
        MegaBatchMarginLoss().compute_loss_from_embeddings([embedding] * 2, torch.zeros(3))
