"""Value and gradient beside sentence-transformers 6.2, in float64: equal, or in the table of differences."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch
from parity import (
    DIM,
    FLOAT32,
    TEXTS,
    Stub,
    cached,
    embeddings,
    on,
    one_zero_vector,
    require_as_near,
    require_different,
    through,
)
from torch import nn

from losskit import Direct, GradCache
from losskit.testing import differentiate, require_equal, total
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.list_net import ListNetLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
original_cross = pytest.importorskip("sentence_transformers.cross_encoder.losses")
util = pytest.importorskip("sentence_transformers.util")

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.2], dtype=torch.float64)
DIRECTIONS = ["query_to_query", "doc_to_query", "doc_to_doc"]
OPTIONS = [
    {"directions": ("query_to_doc", *(name for name, chosen in zip(DIRECTIONS, picks, strict=True) if chosen))}
    for picks in product((False, True), repeat=3)
]
OPTIONS += [{"directions": ("query_to_doc",), "partition_mode": "per_direction"}]
OPTIONS += [{"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}]
OPTIONS += [
    {"directions": directions, "hardness_mode": mode, "hardness_strength": 3.0}
    for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")
    for directions in (("query_to_doc",), ("query_to_doc", "doc_to_doc"))
]


@pytest.mark.parametrize("columns", [2, 3, 5])
@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda o: "-".join(map(str, [*o["directions"], *list(o.values())[1:]]))
)
def test_multiple_negatives_ranking(options, columns):
    batch = embeddings(columns)
    for scale, similarity, function in ((20.0, "cosine", util.cos_sim), (0.5, "dot", util.dot_score)):
        theirs = original.MultipleNegativesRankingLoss(None, scale=scale, similarity_fct=function, **options)
        ours = MultipleNegativesRankingLoss(scale=scale, similarity=similarity, **options)
        require_equal(similarity, on(theirs, batch), on(ours, batch))


def test_multiple_negatives_ranking_by_default():
    batch = embeddings(3)
    require_equal(
        "defaults", on(original.MultipleNegativesRankingLoss(None), batch), on(MultipleNegativesRankingLoss(), batch)
    )


def test_multiple_negatives_ranking_with_distances():
    batch = embeddings(3)
    for name, function in (("euclidean", util.euclidean_sim), ("manhattan", util.manhattan_sim)):
        theirs = original.MultipleNegativesRankingLoss(None, scale=1.0, similarity_fct=function)
        require_equal(name, on(theirs, batch), on(MultipleNegativesRankingLoss(similarity=name), batch), 1e-7)


@pytest.mark.parametrize("labels", [SCORES, SCORES > 0.3, (SCORES * 10).long()], ids=["floats", "booleans", "integers"])
def test_cosent(labels):
    batch = embeddings(2)
    require_equal("defaults", on(original.CoSENTLoss(None), batch, labels), on(CoSENTLoss(), batch, labels))
    theirs = original.CoSENTLoss(None, scale=3.0, similarity_fct=util.pairwise_dot_score)
    require_equal("dot", on(theirs, batch, labels), on(CoSENTLoss(scale=3.0, similarity="dot"), batch, labels))


@pytest.mark.parametrize("options", [{"mini_batch_size": 3}, {"mini_batch_num_tokens": 9}], ids=str)
def test_cached_multiple_negatives_ranking(options):
    model = Stub()
    theirs = cached(
        model, original.CachedMultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_doc"), **options)
    )
    execution = GradCache(mini_batch_size=3, mini_batch_tokens=options.get("mini_batch_num_tokens"))
    ours = MultipleNegativesRankingLoss(model, directions=("query_to_doc", "doc_to_doc"), execution=execution)
    require_equal("cached", theirs, through(model, ours))


def test_a_model_of_the_incumbent_gives_the_incumbents_loss():
    model = Stub()
    theirs = through(model, original.MultipleNegativesRankingLoss(model))
    for execution in (None, Direct(merge=False), Direct(tokens=12)):
        require_equal(repr(execution), theirs, through(model, MultipleNegativesRankingLoss(model, execution=execution)))


DIMS, WEIGHTS = (DIM, 4, 2), (1.0, 0.5, 0.25)


def matryoshka(model, similarity="cosine", normalize=None):
    inner = MultipleNegativesRankingLoss(model, similarity=similarity)
    return MatryoshkaLoss(model, inner, DIMS, WEIGHTS, normalize=normalize)


def original_matryoshka(model, **options):
    return original.MatryoshkaLoss(model, original.MultipleNegativesRankingLoss(model, **options), DIMS, WEIGHTS)


def test_matryoshka():
    model = Stub()
    theirs = through(model, original_matryoshka(model))
    for normalize in (None, True):
        require_equal(f"normalize={normalize}", theirs, through(model, matryoshka(model, normalize=normalize)))


def test_matryoshka_around_a_cached_loss():
    model = Stub()
    inner = original.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3)
    theirs = cached(model, original.MatryoshkaLoss(model, inner, DIMS, WEIGHTS))
    ours = matryoshka(model)
    ours.execution = GradCache(mini_batch_size=3)
    require_equal("cached", theirs, through(model, ours))


QUERIES, LISTS = ["a b", "c"], [["d e", "f", "g h i"], ["j"]]
RELEVANCE = [torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)]


@pytest.mark.parametrize(("name", "module"), [("identity", nn.Identity()), ("sigmoid", nn.Sigmoid())])
def test_list_net(name, module):
    model = Stub("cross-encoder")
    parameters = list(model.parameters())
    theirs = original_cross.ListNetLoss(model, activation_fn=module)([QUERIES, LISTS], RELEVANCE)
    ours = ListNetLoss(model.toy, activation=name)([QUERIES, LISTS], RELEVANCE)
    require_equal(name, differentiate(theirs, parameters), differentiate(ours, parameters), FLOAT32)


PAIRS = [
    (original.MultipleNegativesRankingLoss(None), MultipleNegativesRankingLoss(), None),
    (original.CoSENTLoss(None), CoSENTLoss(), SCORES),
]


@pytest.mark.parametrize(("theirs", "ours", "labels"), PAIRS, ids=lambda value: type(value).__name__)
def test_float32_is_as_near_to_the_truth(theirs, ours, labels):
    require_as_near(theirs, ours, 2, labels)


# Deliberate differences: (class, case) -> the original and ours.


def evaluation_draws():
    model = Stub().eval()
    features = [model.preprocess(column) for column in TEXTS]
    inner = original.MultipleNegativesRankingLoss(model)
    theirs = original.MatryoshkaLoss(model, inner, DIMS, n_dims_per_step=1)
    ours = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), DIMS, dims_per_step=1)

    def distinct(loss):
        random.seed(0)
        return len({float(total(loss([dict(each) for each in features], None))) for _ in range(10)}) > 1

    with torch.no_grad():
        seen = distinct(theirs), distinct(ours)
    assert seen == (True, False)
    return lambda: seen[0], lambda: seen[1]


def half_precision():
    def nearly_solved(loss):
        first = embeddings(2, dtype=torch.float32)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return on(loss, [first, (first.detach() * 1.1).requires_grad_()])

    return lambda: nearly_solved(PAIRS[0][0]), lambda: nearly_solved(PAIRS[0][1])


def dot_products():
    model = Stub()
    theirs = original_matryoshka(model, scale=1.0, similarity_fct=util.dot_score)
    return lambda: through(model, theirs), lambda: through(model, matryoshka(model, "dot"))


def components():
    model = Stub()
    features = [model.preprocess(column) for column in TEXTS]
    return lambda: type(original_matryoshka(model)(features, None)), lambda: type(matryoshka(model)(features))


def labels_for_ranking():
    return tuple(lambda loss=loss: on(loss, embeddings(2), SCORES) for loss in PAIRS[0][:2])


def extra_columns():
    return tuple(lambda loss=loss: on(loss, embeddings(3), SCORES) for loss in PAIRS[1][:2])


DIFFERENCES = {
    ("CoSENTLoss", "extra-columns"): extra_columns,
    ("CoSENTLoss", "zero-vectors"): lambda: one_zero_vector(*PAIRS[1][:2], 2, PAIRS[1][2]),
    ("MatryoshkaLoss", "components"): components,
    ("MatryoshkaLoss", "dot-products"): dot_products,
    ("MatryoshkaLoss", "evaluation-draws"): evaluation_draws,
    ("MultipleNegativesRankingLoss", "half-precision"): half_precision,
    ("MultipleNegativesRankingLoss", "labels"): labels_for_ranking,
    ("MultipleNegativesRankingLoss", "zero-vectors"): lambda: one_zero_vector(*PAIRS[0][:2], 2),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
