"""The same constructor calls of multi-vector losses on both libraries: equal values, gradients and settings."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from unittest import mock

import pytest
import torch
from parity import TEXTS, Stub, cached, require_different, through
from torch import nn

from losskit.testing import require_equal

original = pytest.importorskip("sentence_transformers.multi_vector_encoder.losses")
their_scoring = pytest.importorskip("sentence_transformers.multi_vector_encoder.scoring")
compat = pytest.importorskip("losskit_compat.multi_vector_encoder.losses")
our_scoring = pytest.importorskip("losskit_compat.multi_vector_encoder.scoring")
functions = pytest.importorskip("losskit_compat.functions")

SCORING = {original: their_scoring, compat: our_scoring}
TEACHER = torch.linspace(-2, 2, 12, dtype=torch.float64).cos().view(4, 3)
RANKING, CACHED = "MultiVectorMultipleNegativesRankingLoss", "CachedMultiVectorMultipleNegativesRankingLoss"
DISTILLATION, MARGINS = "MultiVectorDistillKLDivLoss", "MultiVectorMarginMSELoss"


class OfTokens(Stub):
    """A toy encoder as multi-vector losses see models."""

    def __init__(self):
        super().__init__("multi-vector")

    def forward(self, features, task=None):
        made = self.toy({key: features[key] for key in ("input_ids", "attention_mask")})
        tokens = made.embedding + 1.0 if task == "query" else made.embedding
        return {**features, "token_embeddings": tokens, "attention_mask": made.mask.long()}


@pytest.fixture(scope="module")
def model():
    return OfTokens()


@contextmanager
def in_float64():
    """The original sums scores in float32, whatever the tokens are; here it sums them in float64."""
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


def smooth(queries_embeddings, documents_embeddings, queries_mask, documents_mask):
    """Scores of nobody's: of all pairs, they are called as they are."""
    documents, mask = documents_embeddings.flatten(0, 1), documents_mask.flatten(0, 1)
    scores = torch.einsum("qid,njd->qnij", queries_embeddings, documents)
    scores = scores.masked_fill(~mask[None, :, None], -torch.inf).logsumexp(-1)
    return (scores * queries_mask[:, None]).sum(-1)


def smooth_lists(queries_embeddings, documents_embeddings, queries_mask, documents_mask):
    number = documents_embeddings.shape[1]
    scores = smooth(queries_embeddings, documents_embeddings, queries_mask, documents_mask)
    return scores.unflatten(1, (-1, number)).diagonal().T


def smooth_pairs(queries_embeddings, documents_embeddings, queries_mask, documents_mask):
    return smooth_lists(
        queries_embeddings, documents_embeddings[:, None], queries_mask, documents_mask[:, None]
    ).squeeze(1)


# Class, columns, labels, and the constructor's arguments, given the module of scoring functions.
CASES = [
    (RANKING, 2, None, lambda lib: {}),
    (RANKING, 3, None, lambda lib: {"scale": 0.5, "mini_batch_size": 3, "score_mini_batch_size": 2}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": lib.colbert_scores, "gather_across_devices": True}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": lib.mean_colbert_scores}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": partial(lib.colbert_scores, length_normalize=True)}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": lib.xtr_scores}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": partial(lib.xtr_scores, top_k=3)}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": lib.XTRScores(top_k=4)}),
    (RANKING, 3, None, lambda lib: {"similarity_fct": smooth, "scale": 0.25}),
    (DISTILLATION, 3, TEACHER[:, :2], lambda lib: {}),
    (DISTILLATION, 4, TEACHER, lambda lib: {"similarity_fct": lib.mean_colbert_kd_scores, "mini_batch_size": 2}),
    (DISTILLATION, 3, TEACHER[:, :2], lambda lib: {"temperature": 2.0, "similarity_fct": lib.XTRKDScores(3)}),
    (DISTILLATION, 3, TEACHER[:, :2], lambda lib: {"student_temperature": 0.5, "teacher_temperature": 3.0}),
    (DISTILLATION, 3, TEACHER[:, :2], lambda lib: {"similarity_fct": partial(lib.colbert_kd_scores)}),
    (DISTILLATION, 4, TEACHER, lambda lib: {"similarity_fct": partial(lib.xtr_kd_scores, top_k=5)}),
    (DISTILLATION, 4, TEACHER, lambda lib: {"similarity_fct": smooth_lists}),
    (MARGINS, 3, TEACHER[:, 0], lambda lib: {}),
    (MARGINS, 4, TEACHER[:, :2], lambda lib: {"similarity_fct": lib.mean_colbert_scores_pairwise}),
    (MARGINS, 4, TEACHER, lambda lib: {"mini_batch_size": 4}),
    (MARGINS, 3, TEACHER[:, :1], lambda lib: {"similarity_fct": lib.xtr_scores_pairwise}),
    (MARGINS, 4, TEACHER, lambda lib: {"similarity_fct": partial(lib.xtr_scores_pairwise, top_k=2)}),
    (MARGINS, 4, TEACHER, lambda lib: {"similarity_fct": smooth_pairs}),
]


def named(value):
    return value if isinstance(value, str) else ""


def texts(model, columns):
    return [model.preprocess(column) for column in [*TEXTS, TEXTS[0][::-1]][:columns]]


def found(model, loss, columns, labels):
    return through(model, lambda features, _: loss(texts(model, columns), labels))


@pytest.mark.parametrize("scorers", ["own", "theirs"])
@pytest.mark.parametrize(("name", "columns", "labels", "options"), CASES, ids=named)
def test_texts(model, name, columns, labels, options, scorers):
    theirs = getattr(original, name)(model, **options(their_scoring))
    ours = getattr(compat, name)(model, **options(our_scoring if scorers == "own" else their_scoring))
    with in_float64():
        require_equal(name, found(model, theirs, columns, labels), found(model, ours, columns, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("size", [{"mini_batch_size": 3}, {"mini_batch_num_tokens": 7}, {"score_mini_batch_size": 2}])
def test_gradient_caching(model, columns, size):
    theirs, ours = (getattr(lib, CACHED)(model, scale=0.5, **size) for lib in (original, compat))
    with in_float64():
        require_equal("cached", cached(model, theirs, columns), cached(model, ours, columns))
    assert ours.get_config_dict() == theirs.get_config_dict()


def test_tasks_are_those_of_the_features(model):
    """Columns that say what they are keep it: the toy treats queries unlike documents."""
    theirs, ours = (getattr(lib, RANKING)(model) for lib in (original, compat))
    results = []
    for loss in (theirs, ours):
        features = [{**each, "task": task} for each, task in zip(texts(model, 2), ("document", "query"), strict=True)]
        with in_float64():
            results.append(loss(features))
    torch.testing.assert_close(*results)
    assert results[1].item() != pytest.approx(ours(texts(model, 2)).item())


FUNCTIONS = sorted(name for name in our_scoring.__all__ if not name.startswith("XTR"))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scoring_functions(name, masked):
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(2, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 3, 2, 4, generator=generator) < 0.7
    queries, documents = tokens[0, :, 0] * mask[0, :, 0, :, None], tokens[1] * mask[1, ..., None]
    given = {"queries_mask": mask[0, :, 0], "documents_mask": mask[1]} if masked else {}
    if name.endswith("pairwise"):
        documents = documents[:, 0]
        given = {key: value if value.ndim == 2 else value[:, 0] for key, value in given.items()}
    with in_float64():
        expected = getattr(their_scoring, name)(queries, documents, **given)
    torch.testing.assert_close(getattr(our_scoring, name)(queries, documents, **given), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"xtr_scores_pairwise"}))
def test_scoring_functions_are_known(name):
    """Those of either library stand for the registered similarity, which is scored in blocks."""
    known = functions.as_similarity(getattr(our_scoring, name), None)
    assert known == functions.as_similarity(getattr(their_scoring, name), None)
    assert known == ("xtr" if "xtr" in name else "mean-maxsim" if "mean" in name else "maxsim")


# Deliberate differences: (class, case) -> the original and ours.


class Images(nn.Module):
    """A model whose images lie end to end in one tensor, cut where `image_grid_thw` says."""

    def forward(self, features, task=None):
        rows = len(features["input_ids"])
        return {"token_embeddings": torch.ones(rows, 5, 8), "attention_mask": torch.ones(rows, 5)}


def images():
    grid = torch.tensor([[1, 2, 2], [1, 2, 4], [1, 2, 2], [1, 4, 3]])
    texts = {"input_ids": torch.ones(4, 5, dtype=torch.long)}
    flat = {"pixel_values": torch.ones(28, 6), "image_grid_thw": grid, "num_images_per_sample": torch.ones(4).long()}

    def run(lib):
        with torch.no_grad():
            return getattr(lib, CACHED)(Images(), mini_batch_size=2)([texts, texts | flat]).item()

    return partial(run, original), partial(run, compat)


DIFFERENCES = {("all with gradient caching", "images"): images}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
