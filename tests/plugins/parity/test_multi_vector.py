"""Losses by MaxSim, its mean and XTR beside the multi-vector losses of sentence-transformers 6.2.

The original sums scores in float32, whatever the tokens are; in float64 ours are compared with loops, in
tests/plugins/similarities and tests/plugins/losses.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from parity import FLOAT32, Stub, cached, embeddings, on, require_as_near, require_different, through
from torch import nn

from losskit import GradCache, Output
from losskit.testing import Result, differentiate, require_equal
from losskit_plugins.losses.distill_kl_div import DistillKLDivLoss
from losskit_plugins.losses.margin_mse import MarginMSELoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.similarities.xtr import XTRSimilarity

original = pytest.importorskip("sentence_transformers.multi_vector_encoder.losses")
scoring = pytest.importorskip("sentence_transformers.multi_vector_encoder.scoring")

WIDTH = 2
"""Of a token; the tokens of an item lie one after another in its row."""
EMPTY = 3
"""The row whose last document has no tokens."""


def masks(columns, rows, tokens, empty=False):
    """Which tokens count: a different number in each item, and at least one, unless a document is to be empty."""
    made = [torch.arange(tokens) < 1 + (torch.arange(rows)[:, None] + column) % tokens for column in range(columns)]
    if empty:
        made[-1][EMPTY] = False
    return made


class Passing(nn.Module):
    """A model of the incumbent whose features are its token embeddings."""

    def forward(self, features, task=None):
        return features


class Through:
    """A loss of either library on tokens that stand in rows."""

    def __init__(self, loss, empty=False):
        self.loss, self.empty = loss, empty

    def parameters(self):
        return ()

    def compute_loss_from_embeddings(self, columns, labels):
        tokens = [column.unflatten(1, (-1, WIDTH)) for column in columns]
        rows = len(tokens[0])
        counted = masks(len(tokens), rows, tokens[0].shape[1], self.empty)
        if type(self.loss).__module__.startswith("sentence_transformers"):
            pairs = zip(tokens, counted, strict=True)
            return self.loss([{"token_embeddings": a, "attention_mask": b} for a, b in pairs], labels)
        return self.loss.compute(list(map(Output, tokens, counted)), labels, slice(0, rows))


class OfTokens(Stub):
    """A toy encoder as the incumbent's multi-vector losses see models."""

    def __init__(self):
        super().__init__("multi-vector")
        self.toy.float()

    def forward(self, features, task=None):
        made = self.toy(features)
        return {**features, "token_embeddings": made.embedding, "attention_mask": made.mask}


MODEL = Passing()
RANKING = {
    "maxsim": ({}, {}),
    "scaled": ({"scale": 0.3}, {"scale": 0.3}),
    "in-chunks": ({"score_mini_batch_size": 2}, {}),
    "mean": (
        {"similarity_fct": scoring.mean_colbert_scores, "scale": 9.0},
        {"similarity": "mean-maxsim", "scale": 9.0},
    ),
    "xtr-2": ({"similarity_fct": scoring.XTRScores(2)}, {"similarity": XTRSimilarity(2), "scale": 1.0}),
    "xtr-all": ({"similarity_fct": scoring.XTRScores(999)}, {"similarity": XTRSimilarity(999), "scale": 1.0}),
}
DISTILLATION = {
    "maxsim": ({}, {}),
    "temperatures": (
        {"student_temperature": 2.0, "teacher_temperature": 0.5},
        {"student_temperature": 2.0, "teacher_temperature": 0.5},
    ),
    "mean": ({"similarity_fct": scoring.mean_colbert_kd_scores}, {"similarity": "mean-maxsim"}),
    "xtr": ({"similarity_fct": scoring.XTRKDScores(3)}, {"similarity": XTRSimilarity(3)}),
}
MARGINS = {
    "maxsim": ({}, {}),
    "mean": ({"similarity_fct": scoring.mean_colbert_scores_pairwise}, {"similarity": "mean-maxsim"}),
}


def ranking(name, loss=original.MultiVectorMultipleNegativesRankingLoss):
    theirs, ours = RANKING[name]
    return loss(MODEL, **theirs), MultipleNegativesRankingLoss(**{"similarity": "maxsim", "scale": 1.0, **ours})


def distillation(name):
    theirs, ours = DISTILLATION[name]
    return original.MultiVectorDistillKLDivLoss(MODEL, **theirs), DistillKLDivLoss(**{"similarity": "maxsim", **ours})


def margins(name):
    theirs, ours = MARGINS[name]
    return original.MultiVectorMarginMSELoss(MODEL, **theirs), MarginMSELoss(**{"similarity": "maxsim", **ours})


def require_same(what, pair, columns, labels=None, empty=False):
    """Equal in value and gradient, to the precision in which the original sums scores."""
    for dtype in (torch.float32, torch.float64):
        batch = embeddings(columns, dtype=dtype, dim=6 * WIDTH)
        expected, got = (on(Through(loss, empty), batch, labels) for loss in pair)
        require_equal(what, expected, got, tolerance=FLOAT32)


@pytest.mark.parametrize("columns", [2, 3, 5])
@pytest.mark.parametrize("name", RANKING)
def test_multiple_negatives_ranking(name, columns):
    require_same(name, ranking(name), columns)


@pytest.mark.parametrize("columns", [3, 5])
@pytest.mark.parametrize("name", DISTILLATION)
def test_distill_kl_div(name, columns):
    labels = torch.randn(5, columns - 1, generator=torch.Generator().manual_seed(0))
    require_same(name, distillation(name), columns, labels)


@pytest.mark.parametrize("more", [0, 1], ids=["margins", "scores"])
@pytest.mark.parametrize("columns", [3, 5])
@pytest.mark.parametrize("name", MARGINS)
def test_margin_mse(name, columns, more):
    labels = torch.randn(5, columns - 2 + more, generator=torch.Generator().manual_seed(0))
    require_same(name, margins(name), columns, labels)


@pytest.mark.parametrize("name", RANKING)
def test_documents_without_tokens(name):
    require_same(name, ranking(name), 3, empty=True)


def test_queries_without_tokens_and_pairs_of_scores():
    """The scorers themselves, on masks of which some are empty on either side."""
    query, document = (each.unflatten(1, (-1, WIDTH)) for each in embeddings(2, rows=4, dim=6 * WIDTH))
    a, b = masks(2, 4, 6, empty=True)
    a[1] = False
    for theirs, name in ((scoring.colbert_scores, "maxsim"), (scoring.mean_colbert_scores, "mean-maxsim")):
        similarity = MarginMSELoss(similarity=name).scorer
        given = {"queries_mask": a, "documents_mask": b}
        pairs = getattr(scoring, f"{theirs.__name__}_pairwise")(query, document, **given)
        every = theirs(query, document[:, None], queries_mask=a, documents_mask=b[:, None])
        torch.testing.assert_close(similarity(Output(query, a), Output(document, b)).float(), every)
        torch.testing.assert_close(similarity.pairwise(Output(query, a), Output(document, b)).float(), pairs)


@pytest.mark.parametrize("columns", [2, 3])
def test_cached_multiple_negatives_ranking(columns):
    model = OfTokens()
    theirs = original.CachedMultiVectorMultipleNegativesRankingLoss(model, scale=0.5, mini_batch_size=3)
    ours = MultipleNegativesRankingLoss(model.toy, scale=0.5, execution=GradCache(mini_batch_size=3))
    expected, got = cached(model, theirs, columns), through(model, ours, columns)
    require_equal("cached", expected, got, tolerance=FLOAT32)


NEAR = {
    "ranking": (ranking("maxsim"), 3, None),
    "mean": (ranking("mean"), 2, None),
    "retrieved": (ranking("xtr-2"), 3, None),
    "distillation": (distillation("maxsim"), 3, torch.arange(10.0).sin().view(5, 2)),
    "margins": (margins("maxsim"), 3, torch.arange(5.0).sin()),
}


@pytest.mark.parametrize("name", NEAR)
def test_float32_is_as_near_to_the_truth(name):
    (theirs, ours), columns, labels = NEAR[name]
    require_as_near(Through(theirs), Through(ours), columns, labels)


# Deliberate differences: (class, case) -> the original and ours.


def ignored_labels():
    model = OfTokens()
    losses = original.MultiVectorMultipleNegativesRankingLoss(model), MultipleNegativesRankingLoss(model.toy)
    return tuple(partial(through, model, loss, 2, torch.zeros(4)) for loss in losses)


def half_precision():
    def run(loss):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return on(Through(loss), embeddings(2, dtype=torch.float32, dim=6 * WIDTH))

    return tuple(partial(run, loss) for loss in ranking("maxsim"))


def single_candidates():
    model, labels = OfTokens(), torch.zeros(4, 1)

    def theirs():
        with pytest.raises(ValueError, match="at least 3"):
            through(model, original.MultiVectorDistillKLDivLoss(model), 2, labels)
        return "ValueError"

    return theirs, lambda: through(model, DistillKLDivLoss(model.toy), 2, labels)


def retrieved_margins():
    theirs = original.MultiVectorMarginMSELoss(MODEL, similarity_fct=partial(scoring.xtr_scores_pairwise, top_k=3))
    ours = MarginMSELoss(similarity=XTRSimilarity(3))
    batch, labels = embeddings(3, dtype=torch.float32, dim=6 * WIDTH), torch.zeros(5, 1)
    return tuple(partial(on, Through(loss), batch, labels) for loss in (theirs, ours))


def equal_matches():
    query = torch.tensor([[[1.0, 0.0]]], requires_grad=True)
    documents = torch.tensor([[[0.5, 0.0]], [[2.0, 0.0]], [[0.5, 0.0]], [[0.1, 0.0]]])

    def result(scores):
        return Result(scores.detach().sum(), differentiate(scores.sum(), [query]).gradients)

    theirs = scoring.XTRScores(2)
    return (
        lambda: result(theirs(query, documents[None])),
        lambda: result(XTRSimilarity(2)(Output(query), Output(documents))),
    )


DIFFERENCES = {
    ("MultiVectorDistillKLDivLoss", "single-candidates"): single_candidates,
    ("MultiVectorMarginMSELoss", "retrieval"): retrieved_margins,
    ("MultiVectorMultipleNegativesRankingLoss", "half-precision"): half_precision,
    ("MultiVectorMultipleNegativesRankingLoss", "labels"): ignored_labels,
    ("XTRScores", "equal-matches"): equal_matches,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
