"""What goes wrong with sparse encoders in sentence-transformers 6.2 without an error does not here."""

from __future__ import annotations

import pytest
import torch
from matrix import LOSSES, MODELS, REFUSED, SETTINGS

import losskit
from losskit.clock import Clock
from losskit.testing import ToyEncoder, random_batch, total
from losskit_plugins.wrappers.splade import SpladeLoss

SPARSE = [
    name
    for name in LOSSES
    if "sparse" in losskit.get("loss", name).card.encoders and name not in MODELS and (name, "splade") not in REFUSED
]
WEIGHTS = {"document_regularizer_weight": 0.3, "query_regularizer_weight": 0.2}


def settings(model):
    """All that is set on a model and its parts, beside parameters, buffers and parts."""
    plain = (str, int, float, bool, type(None))
    return [
        {key: each for key, each in vars(part).items() if key[0] != "_" and (isinstance(each, plain) or callable(each))}
        for part in model.modules()
    ]


@pytest.mark.parametrize("wrapper", ["", "splade"])
@pytest.mark.parametrize("name", SPARSE)
def test_neither_building_nor_calling_changes_the_model(name, wrapper):
    """An order of pairs and cosines made the incumbent's models ones of another similarity."""
    model = ToyEncoder("sparse")
    model.similarity_fn_name = "dot"
    before = settings(model)
    expression = {"name": name, **SETTINGS.get(name, {})}
    loss = losskit.build({"name": "splade", **WEIGHTS, "loss": expression} if wrapper else expression, model)
    assert settings(model) == before
    batch = random_batch(loss.formats[0], negatives=2)
    total(loss(batch.features(loss), batch.flat_labels)).backward()
    assert settings(model) == before


@pytest.mark.parametrize("name", ["mse", "embed-distill"])
def test_the_rows_of_a_teacher_inside_splade_are_not_taken_for_columns(name):
    """With as many columns as rows, where nothing but the meaning of the axes tells."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.rand(2, 4, generator=generator) for _ in range(2)]
    teacher = torch.rand(2, 4, generator=generator)
    inner = losskit.build(name)
    alone = inner.compute_loss_from_embeddings(columns, teacher)
    row_wise = [[column[row : row + 1] for column in columns] for row in range(2)]
    apart = [inner.compute_loss_from_embeddings(row, teacher[place : place + 1]) for place, row in enumerate(row_wise)]
    torch.testing.assert_close(alone, sum(apart) / 2)
    found = SpladeLoss(None, inner, **WEIGHTS).compute_loss_from_embeddings(columns, teacher)
    assert found["base_loss"] == alone


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_losses_of_an_evaluation_can_be_compared_over_a_warm_up(kind):
    model = ToyEncoder("sparse", seed=0)
    schedules = {key: {"schedule": kind, "to": weight} for key, weight in WEIGHTS.items()}
    loss = losskit.build({"name": "splade", **schedules, "loss": "multiple-negatives-ranking"}, model)
    whole = losskit.build({"name": "splade", **WEIGHTS, "loss": "multiple-negatives-ranking"}, model)
    features = random_batch(loss.formats[0]).features(loss)
    found = []
    for progress in (0.0, 0.3, 1.0):
        loss.set_clock(Clock(progress=progress))
        loss(features)  # a training step lies between
        model.eval()
        found.append(loss(features))
        model.train()
    assert found == [whole(features)] * 3
