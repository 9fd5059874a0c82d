"""Losses on multi-vector encoders: the laws for all whose card names them, and contrastive formulas in loops."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from matrix import LOSSES, combination

import losskit
from losskit import LossError, Output
from losskit.math import contrastive
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects

XTR = {"name": "xtr", "top_k": 5}
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
ROWS, NEGATIVES, DIM = 5, 2, 4


def on_tokens(expression, **settings):
    return subjects(partial(losskit.build, expression), families=["multi-vector"], negatives=2, **settings)


def ranking(**options):
    return {"name": "multiple-negatives-ranking", **options}


ON_TOKENS = [name for name in LOSSES if "multi-vector" in losskit.get("loss", name).card.encoders]
FIRST = {f"{name}-{each}": each for name in ON_TOKENS for each in on_tokens(combination(name).expression)[:1]}
OTHERS = {f"{name}-{each}": each for name in ON_TOKENS for each in on_tokens(combination(name).expression)[1:]}
OPTIONS = {
    f"{name}-{each}": each
    for name, made in {
        "all-directions": on_tokens(ranking(directions=DIRECTIONS), weights=True),
        "lists": on_tokens(ranking(similarity="mean-maxsim", scale=9.0), lists=("positive", "negative"), weights=True),
        "hard": on_tokens(ranking(hardness_mode="all_negatives", hardness_strength=0.5)),
        "retrieved": on_tokens(ranking(similarity=XTR, scale=1.0)),
        "retrieved-mega-batch": on_tokens({"name": "mega-batch-margin", "similarity": XTR}),
        "retrieved-margins": on_tokens({"name": "margin-mse", "similarity": XTR}),
        "retrieved-distribution": on_tokens({"name": "distill-kl-div", "similarity": XTR}),
    }.items()
    for each in made[:1]
}
CASES = [
    *(pytest.param(each, id=name) for name, each in (FIRST | OPTIONS).items()),
    *(pytest.param(each, id=name, marks=pytest.mark.slow) for name, each in OTHERS.items()),
]
LAWS = [pytest.param(each, id=str(each), marks=[pytest.mark.slow] * (str(each) == "compiles")) for each in laws("loss")]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("subject", CASES)
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


WRAPPED = {
    f"{name}-{each}": each
    for name in ("multiple-negatives-ranking", "margin-mse")
    for each in on_tokens({"name": "matryoshka", "dims": [8, 5, 2], "loss": name}, kind="wrapper")[:1]
}


@pytest.mark.parametrize("law", [each for each in laws("wrapper") if str(each) != "compiles"], ids=str)
@pytest.mark.parametrize("subject", WRAPPED.values(), ids=WRAPPED)
def test_laws_under_matryoshka(subject, law):
    result = law(subject)
    assert result.fine, result


def columns():
    """Anchors of 3 tokens, documents of 6, each with its own mask."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for tokens in (3, *[6] * (1 + NEGATIVES)):
        embedding = torch.randn(ROWS, tokens, DIM, generator=generator, dtype=torch.float64).requires_grad_()
        mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (ROWS, 1), generator=generator)
        made.append(Output(embedding, mask))
    return made


def maxsim(query, document):
    """Of (record, item) each."""
    (a, i), (b, j) = query, document
    inside = b.embedding[j][b.mask[j]]
    return sum((inside @ token).max() for token in a.embedding[i][a.mask[i]])


def in_loops(batch, directions, scale):
    """mean over i of log sum exp(scale s) - scale s_ii; to a positive the others are the queries."""
    anchors, positives, *negatives = batch
    losses = []
    for i in range(ROWS):
        scores = [maxsim((anchors, i), (positives, j)) for j in range(ROWS)]
        positive = scores[i]
        scores += [maxsim((anchors, i), (column, j)) for column in negatives for j in range(ROWS)]
        others = [j for j in range(ROWS) if j != i]
        if "query_to_query" in directions:
            scores += [maxsim((anchors, i), (anchors, j)) for j in others]
        if "doc_to_query" in directions:
            scores += [maxsim((anchors, j), (positives, i)) for j in range(ROWS)]
        if "doc_to_doc" in directions:
            scores += [maxsim((column, j), (positives, i)) for column in batch[1:] for j in others]
        losses.append(torch.stack(scores).mul(scale).logsumexp(0) - scale * positive)
    return sum(losses) / ROWS


@pytest.mark.parametrize("small_tiles", [False, True])
@pytest.mark.parametrize("directions", [DIRECTIONS[:1], DIRECTIONS[::2], DIRECTIONS], ids="+".join)
def test_contrastive_equals_the_formula_in_loops(directions, small_tiles, monkeypatch):
    if small_tiles:
        monkeypatch.setattr(contrastive, "TILE_ROWS", 2)
    batch = columns()
    leaves = [column.embedding for column in batch]
    loss = losskit.build(ranking(directions=directions, similarity="maxsim", scale=0.5), None)
    expected = differentiate(in_loops(batch, directions, 0.5), leaves)
    require_equal("maxsim", expected, differentiate(loss.compute(batch, None, slice(0, ROWS)), leaves))


@pytest.mark.parametrize(("similarity", "divisor"), [(None, 1), ("mean-maxsim", 3)])
def test_the_default_scale_is_one(similarity, divisor):
    model = ToyEncoder("multi-vector", DIM, seed=0)
    batch = [Output(column.embedding) for column in columns()]
    loss = losskit.build(ranking(similarity=similarity), model)
    scores = losskit.math.maxsim(batch[0].embedding, None, Output.cat(batch[1:]).embedding, None) / divisor
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(ROWS))
    assert loss.compute(batch, None, slice(0, ROWS)).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["multiple-negatives-symmetric-ranking", "gist"])
def test_refuses_retrieval_among_documents_that_are_compared_with_each_other(name):
    loss = losskit.build(combination(name).expression | {"similarity": XTR}, ToyEncoder("multi-vector", DIM, seed=0))
    features = random_batch(loss.formats[0]).features(loss)
    with pytest.raises(LossError, match=r"XTRSimilarity: expected a loss that compares anchors with documents"):
        loss(features)


@pytest.mark.parametrize(
    ("family", "similarity", "got"),
    [
        ("dense", "maxsim", "maxsim, which is for multi-vector"),
        ("multi-vector", "cosine", "cosine, which is for dense and sparse"),
        ("sparse", losskit.get("similarity", "xtr").load()(), "XTRSimilarity, which is for multi-vector"),
    ],
    ids=["maxsim", "cosine", "object"],
)
@pytest.mark.parametrize("name", ["multiple-negatives-ranking", "margin-mse", "cosent"])
def test_refuses_similarities_of_another_family(name, family, similarity, got):
    with pytest.raises(LossError, match=rf"similarity: expected one for an encoder that is {family}, got {got}"):
        losskit.get("loss", name).load()(ToyEncoder(family, DIM, seed=0), similarity=similarity)
