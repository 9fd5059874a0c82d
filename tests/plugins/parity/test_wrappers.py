"""Adaptive layers beside sentence-transformers 6.2, in float64: equal, or in the table of differences."""

from __future__ import annotations

import random
import tempfile

import pytest
import torch
from compat import COLUMNS, WIDTH, run, sentence_transformer, write_folder
from parity import require_different

from losskit import GradCache
from losskit.testing import require_equal, total
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.adaptive_layer import AdaptiveLayerLoss
from losskit_plugins.wrappers.matryoshka_2d import Matryoshka2dLoss

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)


@pytest.fixture(scope="module", name="model")
def _model():
    return model()


def model():
    """Three layers, and the embedding layer."""
    with tempfile.TemporaryDirectory() as folder:
        return sentence_transformer(write_folder(folder))


def theirs_around(model, name="MultipleNegativesRankingLoss", **options):
    return original.AdaptiveLayerLoss(model, getattr(original, name)(model), **options)


def ours_around(model, inner=MultipleNegativesRankingLoss, **options):
    return AdaptiveLayerLoss(model, inner(model), **options)


ALL = {"n_layers_per_step": -1}, {"layers_per_step": -1, "kl_over": "dimensions"}
WITHOUT = {"kl_temperature": 0.0}, {"kl_weight": 0.0}


@pytest.mark.parametrize("weighting", ["uniform", "log", "linear"])
@pytest.mark.parametrize(("name", "inner", "labels"), [
    ("MultipleNegativesRankingLoss", MultipleNegativesRankingLoss, None), ("CoSENTLoss", CoSENTLoss, SCORES),
])  # fmt: skip
def test_adaptive_layers(model, name, inner, labels, weighting):
    options = {"last_layer_weight": 2.0, "prior_layers_weight": 0.5, "layer_weighting": weighting}
    theirs = run(model, theirs_around(model, name, **ALL[0], **WITHOUT[0], **options), 2, labels)
    ours = run(model, ours_around(model, inner, **ALL[1], **WITHOUT[1], **options), 2, labels)
    require_equal(name, theirs, ours)


def test_the_papers_divergence_is_three_times_as_large_in_the_original(model):
    """The sum over the three layers, where ours is their mean."""
    theirs = run(model, theirs_around(model, **ALL[0], kl_div_weight=0.5, kl_temperature=0.7), 3)
    ours = ours_around(model, **ALL[1], kl_weight=1.5, kl_temperature=0.7)
    require_equal("divergence", theirs, run(model, ours, 3))
    ours.execution = GradCache(mini_batch_size=4)
    require_equal("cached", theirs, run(model, ours, 3))


def test_both_dimensions(model):
    dims = [WIDTH, 5, 2]
    inner = original.MultipleNegativesRankingLoss(model)
    options = {"n_layers_per_step": -1, "n_dims_per_step": -1}
    theirs = original.Matryoshka2dLoss(model, inner, dims, [1.0, 0.5, 0.25], kl_div_weight=0.5, **options)
    ours = Matryoshka2dLoss(
        model, MultipleNegativesRankingLoss(model), tuple(dims), (1.0, 0.5, 0.25), -1, -1, kl_weight=1.5,
        kl_over="dimensions",
    )  # fmt: skip
    require_equal("2d", run(model, theirs, 2), run(model, ours, 2))


@pytest.mark.parametrize(("name", "inner", "labels"), [
    ("MultipleNegativesRankingLoss", MultipleNegativesRankingLoss, None), ("CoSENTLoss", CoSENTLoss, SCORES),
])  # fmt: skip
def test_float32_is_as_near_to_the_truth(name, inner, labels):
    made = model()
    theirs = theirs_around(made, name, **ALL[0], kl_div_weight=0.5, kl_temperature=0.7)
    ours = ours_around(made, inner, **ALL[1], kl_weight=1.5, kl_temperature=0.7)

    def gradient(loss):
        return torch.cat([each.double().flatten() for each in run(made, loss, 2, labels).gradients])

    truth = gradient(ours)
    made.float()
    errors = [float((gradient(loss) - truth).abs().max() / truth.abs().max()) for loss in (theirs, ours)]
    assert errors[1] <= max(1.5 * errors[0], 1e-5), errors


# Deliberate differences: (class, case) -> the original and ours.


def components():
    made = model()

    def kind(loss):
        return type(loss([made.preprocess(column) for column in COLUMNS[:2]], None))

    return lambda: kind(theirs_around(made)), lambda: kind(ours_around(made))


def divergence():
    made = model()
    made[0].auto_model.encoder.layer = made[0].auto_model.encoder.layer[:1]  # one layer before the last
    theirs, paper, ours = theirs_around(made), ours_around(made, kl_over="dimensions"), ours_around(made)
    require_equal("the paper's", run(made, theirs, 2), run(made, paper, 2))
    return lambda: run(made, theirs, 2), lambda: run(made, ours, 2)


def divergence_of_layers():
    made = model()
    theirs, ours = theirs_around(made, **ALL[0]), ours_around(made, **ALL[1])
    return lambda: run(made, theirs, 2), lambda: run(made, ours, 2)


def evaluation_draws(theirs, ours):
    features = [theirs.model.preprocess(column) for column in COLUMNS[:2]]

    def distinct(loss):
        loss.model.eval()
        random.seed(0)
        with torch.no_grad():
            return len({float(total(loss([dict(each) for each in features], None))) for _ in range(12)}) > 1

    seen = distinct(theirs), distinct(ours)
    assert seen == (True, False)
    return lambda: seen[0], lambda: seen[1]


def layer_draws():
    made = model()
    return evaluation_draws(theirs_around(made), ours_around(made))


def too_many_layers():
    made = model()
    return lambda: run(made, theirs_around(made, n_layers_per_step=9), 2), lambda: run(
        made, ours_around(made, layers_per_step=9), 2
    )


DIFFERENCES = {
    ("AdaptiveLayerLoss", "components"): components,
    ("AdaptiveLayerLoss", "divergence"): divergence,
    ("AdaptiveLayerLoss", "divergence-of-layers"): divergence_of_layers,
    ("AdaptiveLayerLoss", "evaluation-draws"): layer_draws,
    ("AdaptiveLayerLoss", "too-many-layers"): too_many_layers,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
