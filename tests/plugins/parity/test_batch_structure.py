"""Global orthogonal regularization beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

import pytest
import torch
from parity import embeddings, on, require_as_near

from losskit.testing import require_equal
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
