"""The same constructor calls on both libraries: equal values and gradients in float64, equal settings."""

from __future__ import annotations

import pytest
import torch
from compat import embeddings, run, sentence_transformer, write_folder
from parity import on

from losskit.testing import require_equal

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
util = pytest.importorskip("sentence_transformers.util")
compat = pytest.importorskip("losskit_compat.sentence_transformer.losses")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
BINARY = torch.tensor([0, 1, 1, 0, 1, 0])
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
TEACHER = torch.linspace(-1, 1, 6 * 48, dtype=torch.float64).cos().view(6, 3, 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sentence_transformer(write_folder(tmp_path_factory.mktemp("compat") / "tiny"))


def bilinear(a, b):
    """A similarity of nobody's: it is called as it is."""
    return 0.1 * (a @ b.T) - 0.01 * (a**2).sum(1)[:, None]


def rowwise(a, b):
    return 0.1 * (a * b).sum(1) - 0.01 * (a**2).sum(1)


def chebyshev(a, b):
    return (a - b).abs().amax(1)


def within(embeddings):
    return (embeddings[:, None] - embeddings[None]).square().mean(-1)


DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
BOTH = ("query_to_doc", "doc_to_query")

# Class, columns, labels, and the constructor's arguments, given the module of losses.
CASES = [
    ("MultipleNegativesRankingLoss", 2, None, lambda lib: {}),
    ("MultipleNegativesRankingLoss", 4, None, lambda lib: {"scale": 5.0, "directions": DIRECTIONS}),
    ("MultipleNegativesRankingLoss", 3, None, lambda lib: {"scale": 0.5, "similarity_fct": util.dot_score}),
    ("MultipleNegativesRankingLoss", 3, None, lambda lib: {"scale": 2.0, "similarity_fct": bilinear}),
    ("MultipleNegativesRankingLoss", 2, None, lambda lib: {"directions": BOTH, "partition_mode": "per_direction"}),
    (
        "MultipleNegativesRankingLoss",
        3,
        None,
        lambda lib: {"hardness_mode": "all_negatives", "hardness_strength": 3.0},
    ),
    ("MultipleNegativesSymmetricRankingLoss", 2, None, lambda lib: {}),
    ("MultipleNegativesSymmetricRankingLoss", 3, None, lambda lib: {"scale": 7.0, "similarity_fct": util.cos_sim}),
    ("CoSENTLoss", 2, SCORES, lambda lib: {}),
    ("CoSENTLoss", 2, SCORES, lambda lib: {"scale": 2.0, "similarity_fct": util.pairwise_dot_score}),
    ("CoSENTLoss", 2, SCORES, lambda lib: {"similarity_fct": rowwise}),
]


def named(value):
    return value if isinstance(value, str) else ""


def both(name, model, options):
    return tuple(getattr(lib, name)(model, **options(lib)) for lib in (original, compat))


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_texts(model, name, columns, labels, options):
    theirs, ours = both(name, model, options)
    require_equal(name, run(model, theirs, columns, labels), run(model, ours, columns, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_embeddings(model, name, columns, labels, options):
    theirs, ours = both(name, None, options)
    batch = embeddings(columns)
    require_equal(name, on(theirs, batch, labels), on(ours, batch, labels))


CACHED = [
    ("CachedMultipleNegativesRankingLoss", 3, lambda lib: {"mini_batch_size": 2, "directions": DIRECTIONS}),
    ("CachedMultipleNegativesRankingLoss", 2, lambda lib: {"mini_batch_num_tokens": 12, "scale": 3.0}),
    ("CachedMultipleNegativesSymmetricRankingLoss", 2, lambda lib: {"mini_batch_size": 4}),
]


@pytest.mark.parametrize(("name", "columns", "options"), CACHED, ids=named)
def test_gradient_caching(model, name, columns, options):
    theirs, ours = both(name, model, options)
    require_equal(name, run(model, theirs, columns), run(model, ours, columns))
    assert ours.get_config_dict() == theirs.get_config_dict()


INNER = [
    ("MultipleNegativesRankingLoss", 3, None, {"matryoshka_dims": [4, 16, 8], "matryoshka_weights": [0.5, 1, 2]}),
    ("CachedMultipleNegativesRankingLoss", 2, None, {"matryoshka_dims": [16, 3]}),
    ("CoSENTLoss", 2, SCORES, {"matryoshka_dims": (16, 8), "n_dims_per_step": 5}),
]


@pytest.mark.parametrize(("name", "columns", "labels", "options"), INNER, ids=named)
def test_matryoshka(model, name, columns, labels, options):
    theirs, ours = (lib.MatryoshkaLoss(model, getattr(lib, name)(model), **options) for lib in (original, compat))
    require_equal(name, run(model, theirs, columns, labels), run(model, ours, columns, labels))
    for attribute in ("matryoshka_dims", "matryoshka_weights"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
