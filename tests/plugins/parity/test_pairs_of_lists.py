"""Losses on the pairs of a list beside sentence-transformers 6.2: equal, or in the table."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from cross_parity import lists, ours_on, require_cross_as_near, require_cross_equal, theirs_on
from parity import require_different
from torch import nn

from losskit import build
from losskit_plugins.losses.adr_mse import ADRMSELoss
from losskit_plugins.losses.lambda_loss import LambdaLoss
from losskit_plugins.losses.rank_net import RankNetLoss

original = pytest.importorskip("sentence_transformers.cross_encoder.losses")

INFINITY = float("inf")
GRADES = ([2, 0, 1, 1, 3], [0, 1], [3], [0, 0, 0], [2, 1, 1, 0, 0, 1, 2], [0.5, 0.25, 0.75])
BATCHES = {
    "grades": lists(*GRADES),
    "below 0": lists([-1, 0, 2], [-3, -2], [1, -0.5, 0.25, 0]),
    "equal scores": lists(*GRADES, logits=torch.zeros(6, 7, dtype=torch.float64)),
    "far scores": lists(*GRADES, logits=400 * torch.linspace(-3, 3, 42, dtype=torch.float64).cos().view(6, 7)),
    "nothing to order": lists([1, 1], [2], [0, 0, 0]),
    "minus infinity": lists([1, -INFINITY, 0], [-INFINITY, -INFINITY, 2, 1]),
    "lists of 40": lists(*([place * row % 5 for place in range(40 - row)] for row in range(8))),
}
WEIGHTINGS = {
    "no-weighting": original.NoWeightingScheme(),
    "ndcg-loss1": original.NDCGLoss1Scheme(),
    "ndcg-loss2": original.NDCGLoss2Scheme(),
    "lambda-rank": original.LambdaRankScheme(),
    "ndcg-loss2pp": original.NDCGLoss2PPScheme(),
}
ACTIVATIONS = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}
batches = pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)


@batches
@pytest.mark.parametrize("k", [None, 2, 50])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_lambda(weighting, k, batch):
    theirs = partial(original.LambdaLoss, weighting_scheme=WEIGHTINGS[weighting], k=k)
    require_cross_equal(theirs, partial(LambdaLoss, weighting=weighting, k=k), batch)


@pytest.mark.parametrize(
    "options", [{"sigma": 0.25}, {"eps": 5.0}, {"reduction_log": "natural"}, {"sigma": 3.0, "k": 3}], ids=str
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_options_of_lambda(activation, options):
    theirs = partial(original.LambdaLoss, activation_fn=ACTIVATIONS[activation], **options)
    require_cross_equal(theirs, partial(LambdaLoss, activation=activation, **options), BATCHES["grades"])


def test_options_of_a_weighting():
    theirs = partial(original.LambdaLoss, weighting_scheme=original.NDCGLoss2PPScheme(mu=0.5))
    weighting = build({"name": "ndcg-loss2pp", "mu": 0.5}, kind="weighting")
    require_cross_equal(theirs, partial(LambdaLoss, weighting=weighting), BATCHES["grades"])


@batches
@pytest.mark.parametrize("options", [{}, {"k": 1, "sigma": 2.0, "reduction_log": "natural"}], ids=str)
def test_rank_net(options, batch):
    require_cross_equal(partial(original.RankNetLoss, **options), partial(RankNetLoss, **options), batch)


# Far scores have ranks without a gradient in float32, in which the original computes.
@pytest.mark.parametrize("batch", [name for name in BATCHES if name != "far scores"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("alpha", [1.0, 0.3, 5.0])
def test_adr_mse(alpha, activation, batch):
    theirs = partial(original.ADRMSELoss, alpha=alpha, activation_fn=ACTIVATIONS[activation])
    require_cross_equal(theirs, partial(ADRMSELoss, alpha=alpha, activation=activation), BATCHES[batch])


@pytest.mark.parametrize("name", ["LambdaLoss", "RankNetLoss", "ADRMSELoss"])
def test_in_float32(name):
    ours = {"LambdaLoss": LambdaLoss, "RankNetLoss": RankNetLoss, "ADRMSELoss": ADRMSELoss}[name]
    for batch in ("grades", "lists of 40"):
        require_cross_as_near(getattr(original, name), ours, BATCHES[batch])


def on(theirs, ours, batch, **options):
    """Both on a batch with the same options."""
    makers = partial(theirs, **options), partial(ours, **options)
    return lambda: theirs_on(makers[0], batch), lambda: ours_on(makers[1], batch)


FAR = lists([0, 1, 2], logits=torch.tensor([[3e8, 0.0, 1.0]], dtype=torch.float64))
NO_NUMBER = lists([0, 1, 2], logits=torch.tensor([[torch.nan, 0.0, 1.0]], dtype=torch.float64))
NO_LABEL = lists([0, torch.nan, 2], [1, 0])
PAIRWISE = {"LambdaLoss": LambdaLoss, "RankNetLoss": RankNetLoss}
DIFFERENCES = {
    **{
        (name, case): partial(on, getattr(original, name), ours, batch, **options)
        for name, ours in PAIRWISE.items()
        for case, batch, options in (
            ("far-scores", FAR, {}),
            ("k-0", BATCHES["grades"], {"k": 0}),
            ("missing-labels", NO_LABEL, {}),
            ("missing-scores", NO_NUMBER, {}),
            ("sigma", BATCHES["grades"], {"sigma": -1.0}),
        )
    },
    ("ADRMSELoss", "alpha"): partial(on, original.ADRMSELoss, ADRMSELoss, BATCHES["grades"], alpha=-1.0),
    ("ADRMSELoss", "missing-labels"): partial(on, original.ADRMSELoss, ADRMSELoss, NO_LABEL),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_differences(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
