"""The same constructor calls of sparse losses on both libraries: equal values, gradients and settings."""

from __future__ import annotations

import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from parity import TEXTS, Stub, on, require_different, through
from torch import nn

from losskit.testing import differentiate, require_equal

original = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
util = pytest.importorskip("sentence_transformers.util")
compat = pytest.importorskip("losskit_compat.sparse_encoder.losses")
their_callbacks = pytest.importorskip("sentence_transformers.sparse_encoder.callbacks.splade_callbacks")
our_callbacks = pytest.importorskip("losskit_compat.sparse_encoder.callbacks.splade_callbacks")
triplets = pytest.importorskip("sentence_transformers.sentence_transformer.losses").TripletDistanceMetric

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.25], dtype=torch.float64)
TEACHER = torch.linspace(-1, 1, 24, dtype=torch.float64).cos().view(4, 6)
NAMES = {
    "sentence_embedding_backbone": "backbone",
    **{f"decoded_embedding_{part}": f"decoded_{part}" for part in ("k", "4k", "aux", "k_pre_bias")},
}


class AutoEncoder(Stub):
    """A toy with reconstructions, as the incumbent names them; without dead latents if `alive`."""

    def __init__(self, alive=False):
        super().__init__("sparse")
        self.alive = alive

    def forward(self, features):
        made = self.toy({key: features[key] for key in ("input_ids", "attention_mask")}, tuple(NAMES.values()))
        parts = {theirs: made.parts[ours] for theirs, ours in NAMES.items()}
        if self.alive:
            parts["decoded_embedding_aux"] = None
        return {**features, "sentence_embedding": made.embedding, **parts}


@pytest.fixture(scope="module")
def model():
    return Stub("sparse")


def codes(columns):
    """Random sparse embeddings, the same each time."""
    generator = torch.Generator().manual_seed(columns)
    drawn = [torch.randn(4, 12, generator=generator, dtype=torch.float64).relu() for _ in range(columns)]
    return [column.requires_grad_() for column in drawn]


def rowwise(a, b):
    """A similarity of nobody's: it is called as it is."""
    return 0.1 * (a * b).sum(1) - 0.01 * (a**2).sum(1)


def bilinear(a, b):
    return 0.1 * (a @ b.T) - 0.01 * (a**2).sum(1)[:, None]


def chebyshev(a, b):
    return (a - b).abs().amax(1)


# Class, columns, labels, and the constructor's arguments.
CASES = [
    ("SparseMultipleNegativesRankingLoss", 2, None, {}),
    ("SparseMultipleNegativesRankingLoss", 3, None, {"scale": 3.0, "similarity_fct": util.cos_sim}),
    ("SparseMultipleNegativesRankingLoss", 3, None, {"similarity_fct": bilinear, "hardness_mode": "all_negatives",
                                                     "hardness_strength": 2.0}),
    ("SparseMultipleNegativesRankingLoss", 2, None, {"directions": ("query_to_doc", "doc_to_query"),
                                                     "partition_mode": "per_direction"}),
    ("SparseCoSENTLoss", 2, SCORES, {}),
    ("SparseCoSENTLoss", 2, SCORES, {"scale": 2.0, "similarity_fct": util.pairwise_dot_score}),
    ("SparseCoSENTLoss", 2, SCORES, {"similarity_fct": rowwise}),
    ("SparseAnglELoss", 2, SCORES, {"scale": 5.0}),
    ("SparseCosineSimilarityLoss", 2, SCORES, {}),
    ("SparseCosineSimilarityLoss", 2, SCORES, {"loss_fct": nn.L1Loss(), "cos_score_transformation": nn.Sigmoid()}),
    ("SparseMarginMSELoss", 3, SCORES, {}),
    ("SparseMarginMSELoss", 3, TEACHER[:, :2], {"similarity_fct": rowwise}),
    ("SparseDistillKLDivLoss", 3, TEACHER[:, :2], {}),
    ("SparseDistillKLDivLoss", 3, TEACHER[:, :2], {"similarity_fct": util.pairwise_cos_sim, "temperature": 1.0,
                                                   "student_temperature": 0.5, "teacher_temperature": 3.0}),
    ("SparseTripletLoss", 3, None, {}),
    ("SparseTripletLoss", 3, None, {"distance_metric": triplets.MANHATTAN, "triplet_margin": 2}),
    ("SparseTripletLoss", 3, None, {"distance_metric": chebyshev}),
]  # fmt: skip


def named(value):
    return value if isinstance(value, str) else ""


def both(name, model, options):
    return tuple(getattr(lib, name)(model, **options) for lib in (original, compat))


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_embeddings(model, name, columns, labels, options):
    theirs, ours = both(name, model, options)
    batch = codes(columns)
    require_equal(name, on(theirs, batch, labels), on(ours, batch, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_inside_splade(model, name, columns, labels, options):
    weights = {"document_regularizer_weight": 0.5, "query_regularizer_weight": 0.25}
    theirs, ours = (
        lib.SpladeLoss(model, getattr(lib, name)(model, **options), **weights) for lib in (original, compat)
    )
    require_equal(name, through(model, theirs, columns, labels), through(model, ours, columns, labels))


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_inside_csr(name, columns, labels, options):
    model = AutoEncoder()
    theirs, ours = (lib.CSRLoss(model, getattr(lib, name)(model, **options), 0.5, 2.0) for lib in (original, compat))
    require_equal(name, through(model, theirs, columns, labels), through(model, ours, columns, labels))


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_alone(model, name, columns, labels, options):
    """What the original refuses is what it computes of the embeddings."""
    loss = getattr(compat, name)(model, **options)

    def of_embeddings(features, labels):
        return loss.compute_loss_from_embeddings([model(each)["sentence_embedding"] for each in features], labels)

    require_equal(name, through(model, of_embeddings, columns, labels), through(model, loss, columns, labels))


@pytest.mark.parametrize("columns", [1, 3])
def test_embeddings_of_a_teacher(model, columns):
    theirs, ours = both("SparseMSELoss", model, {})
    require_equal("alone", through(model, theirs, columns, TEACHER), through(model, ours, columns, TEACHER))
    batch, targets = [column[:, :6].detach().requires_grad_() for column in codes(columns)], [TEACHER] * columns
    require_equal("embeddings", on(theirs, batch, targets), on(ours, batch, targets))
    assert ours.get_config_dict() == theirs.get_config_dict()


class Lasso(nn.Module):
    """A regularizer of the user's own, written for the incumbent."""

    threshold = 3

    def compute_loss_from_embeddings(self, embeddings):
        return embeddings.abs().sum(1).mean()


class TwoParts(nn.Module):
    """A loss of the user's own with components, for sparse wrappers."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def compute_loss_from_embeddings(self, embeddings, labels=None):
        queries, documents = embeddings[:2]
        return {"near": -(queries * documents).sum(1).mean(), "far": (queries @ documents.T).mean()}


def splade_options(lib, model):
    """Constructor calls of SpladeLoss."""
    ranking = lib.SparseMultipleNegativesRankingLoss(model)
    return {
        "documents": {"loss": ranking, "document_regularizer_weight": 0.3},
        "both": {"loss": ranking, "document_regularizer_weight": 0.3, "query_regularizer_weight": 0.7},
        "no weight": {"loss": ranking, "document_regularizer_weight": 0.0, "query_regularizer_weight": 0.0},
        "thresholds": {
            "loss": ranking, "document_regularizer_weight": 2.0, "query_regularizer_weight": 3.0,
            "document_regularizer_threshold": 3, "query_regularizer_threshold": 2,
        },
        "one side": {"loss": ranking, "document_regularizer_weight": 2.0, "use_document_regularizer_only": True,
                     "query_regularizer_weight": 1.0},
        "own regularizers": {
            "loss": ranking, "document_regularizer_weight": 2.0, "query_regularizer_weight": 3.0,
            "document_regularizer": Lasso(), "query_regularizer": lib.FlopsLoss(model, 1),
            "document_regularizer_threshold": 9,
        },
        "own loss": {"loss": TwoParts(model), "document_regularizer_weight": 2.0},
        "loss of the incumbent": {
            "loss": original.SparseMultipleNegativesRankingLoss(model), "document_regularizer_weight": 2.0,
            "document_regularizer": original.FlopsLoss(model),
        },
    }  # fmt: skip


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("case", [
    "documents", "both", "no weight", "thresholds", "one side", "own regularizers", "own loss", "loss of the incumbent"
])  # fmt: skip
def test_splade(model, case, cached):
    theirs, ours = (lib.SpladeLoss(model, **splade_options(lib, model)[case]) for lib in (original, compat))
    if cached:
        ours = compat.CachedSpladeLoss(model, **splade_options(compat, model)[case], mini_batch_size=3)
    features = [model.preprocess(column) for column in TEXTS]
    expected, got = theirs(features), ours(features)
    assert list(got) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-10, atol=1e-10, msg=key)
    require_equal(case, through(model, theirs), through(model, ours))
    if case != "loss of the incumbent":  # whose regularizer is not ours
        settings = theirs.get_config_dict()
        assert described(ours.get_config_dict()) == described(settings) | ({} if not cached else sizes(3))


def described(settings):
    return {key: type(value).__name__ if isinstance(value, nn.Module) else value for key, value in settings.items()}


def sizes(size):
    return {"mini_batch_size": size, "mini_batch_num_tokens": None}


def test_the_cached_original_has_the_same_settings(model):
    theirs, ours = (
        lib.CachedSpladeLoss(model, lib.SparseCoSENTLoss(model), 1.0, mini_batch_num_tokens=9)
        for lib in (original, compat)
    )
    assert described(ours.get_config_dict()) == described(theirs.get_config_dict())
    assert list(ours.get_config_dict()) == list(theirs.get_config_dict())


@pytest.mark.parametrize("threshold", [None, 0, 5, 7])
def test_flops(model, threshold):
    theirs, ours = both("FlopsLoss", model, {"threshold": threshold})
    (batch,) = codes(1)
    require_equal(
        "flops", *(differentiate(loss.compute_loss_from_embeddings(batch), [batch]) for loss in (theirs, ours))
    )
    assert (ours.model, ours.threshold, ours.get_config_dict()) == (model, threshold, theirs.get_config_dict())


@pytest.mark.parametrize("alive", [False, True], ids=["dead", "alive"])
@pytest.mark.parametrize("own", [False, True], ids=["default", "own"])
def test_csr(alive, own):
    model = AutoEncoder(alive)
    theirs, ours = (
        lib.CSRLoss(model, TwoParts(model), beta=0.5, gamma=3.0) if own else lib.CSRLoss(model)
        for lib in (original, compat)
    )
    features = [model.preprocess(column) for column in TEXTS]
    expected, got = theirs(features), ours(features)
    assert list(got) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-10, atol=1e-10, msg=key)
    require_equal("csr", through(model, theirs), through(model, ours))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize("alive", [False, True], ids=["dead", "alive"])
def test_csr_reconstruction(alive):
    model = AutoEncoder(alive)
    theirs, ours = both("CSRReconstructionLoss", model, {"beta": 2.0})

    def found(loss):
        made = [model(model.preprocess(column)) for column in TEXTS]
        return differentiate(loss.compute_loss_from_embeddings(made), list(model.parameters()))

    require_equal("outputs", found(theirs), found(ours))
    require_equal("alone", found(theirs), through(model, ours))
    assert ours.get_config_dict() == theirs.get_config_dict()


SCHEDULES = [{}, {"scheduler_type": "linear"}, {"scheduler_type": "quadratic", "warmup_ratio": 0.55}]


@pytest.mark.parametrize("options", SCHEDULES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_schedules(model, options, steps):
    """The weights of each step, and those that are logged after it."""
    found = []
    for lib, callbacks in ((original, their_callbacks), (compat, our_callbacks)):
        loss = lib.SpladeLoss(model, lib.SparseCoSENTLoss(model), 3.0, None if steps == 2 else 5.0)
        callback = callbacks.SpladeRegularizerWeightSchedulerCallback(loss, **options)
        state, weights = SimpleNamespace(global_step=0, max_steps=steps), []
        callback.on_train_begin(None, state, None)
        for step in range(steps):
            state.global_step = step
            callback.on_step_begin(None, state, None)
            weights.append((loss.document_regularizer_weight, loss.query_regularizer_weight))
            state.global_step = step + 1
            callback.on_step_end(None, state, None)
            callback.on_log(None, state, None, logs=(logs := {}))
            weights.append(tuple(sorted(logs.items())))
        found.append(weights)
    for theirs, ours in zip(*found, strict=True):
        assert flat(ours) == pytest.approx(flat(theirs), rel=1e-12)


def flat(pairs):
    return [number for pair in pairs for number in (pair if isinstance(pair, tuple) else (pair,)) if is_number(number)]


def is_number(value):
    return isinstance(value, float)


# Deliberate differences: (class, case) -> the original and ours.


def alone():
    model = Stub("sparse")
    features = [model.preprocess(column) for column in TEXTS[:2]]

    def run(lib):
        try:
            lib.SparseCoSENTLoss(model)(features, SCORES)
        except AttributeError:
            return "refused"
        return "trains"

    return partial(run, original), partial(run, compat)


def similarity_of_the_model():
    def run(lib):
        model = Stub("sparse")
        model.similarity_fn_name = "dot"
        lib.SparseCoSENTLoss(model)
        lib.SparseCosineSimilarityLoss(model)
        return model.similarity_fn_name

    return partial(run, original), partial(run, compat)


def teacher_inside_splade():
    model = Stub("sparse")

    def run(lib):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of broadcasting, in the original
            return through(model, lib.SpladeLoss(model, lib.SparseMSELoss(model), 1.0), 3, TEACHER)

    return partial(run, original), partial(run, compat)


def weights_in_evaluation():
    def run(lib, callbacks):
        model = Stub("sparse")
        loss = lib.SpladeLoss(model, lib.SparseCoSENTLoss(model), 3.0)
        callback = callbacks.SpladeRegularizerWeightSchedulerCallback(loss)
        state = SimpleNamespace(global_step=1, max_steps=30)
        callback.on_train_begin(None, state, None)
        callback.on_step_begin(None, state, None)
        callback.on_step_end(None, state, None)
        return loss.document_regularizer_weight

    return partial(run, original, their_callbacks), partial(run, compat, our_callbacks)


def unknown_schedule():
    def run(lib, callbacks):
        model = Stub("sparse")
        loss = lib.SpladeLoss(model, lib.SparseCoSENTLoss(model), 3.0)
        return callbacks.SpladeRegularizerWeightSchedulerCallback(loss, "cubic").scheduler_type.value

    return partial(run, original, their_callbacks), partial(run, compat, our_callbacks)


def gradients_of_components():
    model = Stub("sparse")

    def run(lib):
        loss = lib.CachedSpladeLoss(model, lib.SparseCoSENTLoss(model), 3.0)
        made = loss([model.preprocess(column) for column in TEXTS[:2]], SCORES)
        return [value.requires_grad for value in made.values()]

    return partial(run, original), partial(run, compat)


DIFFERENCES = {
    ("CachedSpladeLoss", "components"): gradients_of_components,
    ("SparseCoSENTLoss", "similarity-of-the-model"): similarity_of_the_model,
    ("SparseMSELoss", "inside-splade"): teacher_inside_splade,
    ("SpladeRegularizerWeightSchedulerCallback", "evaluation"): weights_in_evaluation,
    ("SpladeRegularizerWeightSchedulerCallback", "unknown-schedules"): unknown_schedule,
    ("all of sparse encoders", "alone"): alone,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())


def test_a_teacher_inside_splade_is_the_teacher_alone(model):
    """Ours of the difference that the table lists: SpladeLoss adds its penalty, no more."""
    loss = compat.SparseMSELoss(model)
    features = [model.preprocess(column) for column in TEXTS]
    inside = compat.SpladeLoss(model, loss, 1.0)(features, TEACHER)
    torch.testing.assert_close(inside["base_loss"], loss(features, TEACHER))
