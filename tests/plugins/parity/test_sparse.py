"""FLOPS and SPLADE around every sparse loss beside sentence-transformers 6.2: equal, or in the table of differences."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from parity import TEXTS, Stub, embeddings, require_as_near, require_different, through

import losskit
from losskit import GradCache, LossError, Output
from losskit.clock import Clock
from losskit.testing import Result, differentiate, require_equal, total
from losskit_plugins.regularizers.flops import FlopsRegularizer, flops
from losskit_plugins.wrappers.splade import SpladeLoss

original = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
callbacks = pytest.importorskip("sentence_transformers.sparse_encoder.callbacks")

SCORES = torch.tensor([0.125, 0.875, 0.25, 0.25], dtype=torch.float64)
TEACHER = torch.linspace(-1, 1, 12, dtype=torch.float64).cos().view(4, 3)
LOSSES = {
    "SparseMultipleNegativesRankingLoss": ("multiple-negatives-ranking", 3, None),
    "SparseCoSENTLoss": ({"name": "cosent", "similarity": "cosine"}, 2, SCORES),
    "SparseAnglELoss": ("angle", 2, SCORES),
    "SparseCosineSimilarityLoss": ("cosine-similarity", 2, SCORES),
    "SparseMarginMSELoss": ("margin-mse", 3, SCORES),
    "SparseDistillKLDivLoss": ({"name": "distill-kl-div", "temperature": 2.0}, 3, TEACHER[:, :2]),
    "SparseTripletLoss": ({"name": "triplet", "similarity": "euclidean", "margin": 5}, 3, None),
}
"""The incumbent's classes with their defaults, what they are here, columns and labels."""
WEIGHTS = {"document_regularizer_weight": 0.3, "query_regularizer_weight": 0.2}
OPTIONS = {
    "weights": WEIGHTS,
    "documents": {"document_regularizer_weight": 0.3},
    "thresholds": WEIGHTS | {"document_regularizer_threshold": 3, "query_regularizer_threshold": 2},
    "only": {"document_regularizer_weight": 0.3, "use_document_regularizer_only": True},
}


def stub():
    model = Stub("sparse")
    model.family = "sparse"
    return model


def theirs_around(name, **options):
    """The incumbent's on a model of its own."""
    model = stub()
    return model, original.SpladeLoss(model, getattr(original, name)(model), **options)


def ours_around(name, **options):
    """Ours on a model that is like the other."""
    model = stub()
    return model, SpladeLoss(model, losskit.build(LOSSES[name][0], model), **options)


def pair(name, **options):
    return theirs_around(name, **options), ours_around(name, **options)


@pytest.mark.parametrize("columns", [1, 7])
@pytest.mark.parametrize("threshold", [None, 0, 2, 3.0, 6])
def test_flops(threshold, columns):
    (batch,) = embeddings(1, columns)
    sparse = batch.detach().relu().requires_grad_()
    for each in (batch, sparse):
        theirs = differentiate(original.FlopsLoss(None, threshold).compute_loss_from_embeddings(each), [each])
        require_equal("function", theirs, differentiate(flops(each, threshold=threshold), [each]))
        regularizer = FlopsRegularizer(threshold)
        require_equal("regularizer", theirs, differentiate(regularizer(None, Output(each)), [each]))


class Alone:
    """A penalty as a loss of one column."""

    def __init__(self, penalty):
        self.penalty = penalty

    def parameters(self):
        return []

    def compute_loss_from_embeddings(self, columns, labels=None):
        return self.penalty(columns[0])


@pytest.mark.parametrize("threshold", [None, 3])
def test_flops_is_as_near_in_float32(threshold):
    theirs = Alone(original.FlopsLoss(None, threshold).compute_loss_from_embeddings)
    require_as_near(theirs, Alone(partial(flops, threshold=threshold)), 1, rows=300)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_splade(name, options):
    _, columns, labels = LOSSES[name]
    theirs, ours = (through(*each, columns, labels) for each in pair(name, **OPTIONS[options]))
    require_equal(f"{name}, {options}", theirs, ours)


@pytest.mark.parametrize("name", LOSSES)
def test_splade_has_the_same_components(name):
    _, columns, labels = LOSSES[name]
    found = []
    for model, loss in pair(name, **WEIGHTS):
        value = loss([model.preprocess(column) for column in TEXTS[:columns]], labels)
        found.append({key: each.item() for key, each in value.items()})
    assert found[0] == pytest.approx(found[1])
    assert list(found[0]) == list(found[1])


@pytest.mark.parametrize("size", [2, 3, 32])
@pytest.mark.parametrize("name", LOSSES)
def test_cached_splade(name, size):
    expression, columns, labels = LOSSES[name]
    theirs, ours = stub(), stub()
    inner = getattr(original, name)(theirs)
    wanted = original.CachedSpladeLoss(theirs, inner, **WEIGHTS, mini_batch_size=size)
    value = total(wanted([theirs.preprocess(column) for column in TEXTS[:columns]], labels))
    value.backward()
    gradients = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in theirs.parameters())
    loss = SpladeLoss(ours, losskit.build(expression, ours), **WEIGHTS, execution=GradCache(mini_batch_size=size))
    found = through(ours, loss, columns, labels)
    # The incumbent's components are in float32, and its first carries the gradient of all.
    assert found.value.item() == pytest.approx(value.item(), rel=1e-6)
    require_equal("gradients", Result(found.value, gradients), found)


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_scheduled_weights(kind):
    """The incumbent's callback beside a schedule, at each step of a training of thirty."""
    steps, name = 30, "SparseMultipleNegativesRankingLoss"
    theirs, wanted = theirs_around(name, **WEIGHTS)
    callback = callbacks.SpladeRegularizerWeightSchedulerCallback(wanted, kind, warmup_ratio=0.5)
    ours = stub()
    schedules = {key: {"schedule": kind, "to": weight, "warmup": 0.5} for key, weight in WEIGHTS.items()}
    found = SpladeLoss(ours, losskit.build(LOSSES[name][0], ours), **schedules)

    class State:
        max_steps, global_step = steps, 0

    callback.on_train_begin(None, State, None)
    for step in range(0, steps, 4):
        State.global_step = step
        callback.on_step_begin(None, State, None)
        found.set_clock(Clock(step=step, progress=step / steps))
        require_equal(f"step {step}", through(theirs, wanted), through(ours, found))


# Deliberate differences: (class, case) -> the original and ours.


def given(**options):
    """Options that the original takes."""
    name = "SparseMultipleNegativesRankingLoss"
    return lambda: through(*theirs_around(name, **options)), lambda: through(*ours_around(name, **options))


def beside_a_regularizer():
    theirs, wanted = theirs_around("SparseMultipleNegativesRankingLoss", **WEIGHTS)

    def ours():
        inner = losskit.build("multiple-negatives-ranking")
        return SpladeLoss(None, inner, **WEIGHTS, document_regularizer="flops", document_regularizer_threshold=3)

    def original_with_both():
        regularizer = original.FlopsLoss(theirs)
        loss = original.SpladeLoss(
            theirs, wanted.loss, **WEIGHTS, document_regularizer=regularizer, document_regularizer_threshold=3
        )
        return through(theirs, loss)

    return original_with_both, ours


DIFFERENCES = {
    ("SpladeLoss", "query-weight"): partial(
        given, document_regularizer_weight=0.3, query_regularizer_weight=0.2, use_document_regularizer_only=True
    ),
    ("SpladeLoss", "negative-weight"): partial(given, document_regularizer_weight=-0.3),
    ("SpladeLoss", "thresholds"): beside_a_regularizer,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_differences(case):
    require_different(*DIFFERENCES[case]())


def test_refuses_what_the_original_cannot_add_up():
    with pytest.raises(LossError, match=r"^SpladeLoss.loss: expected a losskit.Loss, got FlopsLoss"):
        SpladeLoss(None, original.FlopsLoss(None), 0.1)
