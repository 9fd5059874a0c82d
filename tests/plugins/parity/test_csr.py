"""CSR beside sentence-transformers 6.2 on the same weights, in float64: equal, or in the table of differences."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from compat import COLUMNS, WIDTH, write_folder
from parity import require_different
from torch import nn

from losskit import GradCache, LosskitError, Output, build
from losskit.testing import Result, differentiate, require_equal
from losskit_plugins.encoders.auto_encoder import SparseAutoEncoder
from losskit_plugins.encoders.csr import CSREncoder
from losskit_plugins.losses.csr_reconstruction import CSRReconstructionLoss
from losskit_plugins.wrappers.csr import CSRLoss

original = pytest.importorskip("sentence_transformers.sparse_encoder.losses")

SIZES = {"hidden_dim": 56, "k": 6, "k_aux": 11}
DEAD = slice(0, 40)
PARTS = {
    "backbone": "sentence_embedding_backbone",
    "decoded_k": "decoded_embedding_k",
    "decoded_4k": "decoded_embedding_4k",
    "decoded_aux": "decoded_embedding_aux",
    "decoded_k_pre_bias": "decoded_embedding_k_pre_bias",
}


@cache
def folder(**sizes) -> str:
    """A SparseEncoder's, whose biases matter; kept as long as the process lives."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder as Theirs

    place = tempfile.TemporaryDirectory()
    KEPT.append(place)
    torch.manual_seed(2)
    code = Theirs(WIDTH, **{**SIZES, **sizes})
    for bias in (code.pre_bias, code.latent_bias):
        nn.init.normal_(bias, std=0.3)
    stack = [Transformer(write_folder(Path(place.name) / "plain")), Pooling(WIDTH), code]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SparseEncoder(modules=stack, device="cpu").save_pretrained(f"{place.name}/model", create_model_card=False)
    return f"{place.name}/model"


KEPT: list[tempfile.TemporaryDirectory] = []


def both(dtype=torch.float64, *, dead=False, train=False, **sizes):
    """The two encoders of a folder; theirs finds other latents dead as soon as it counts, which it does in training."""
    from sentence_transformers import SparseEncoder

    theirs, ours = SparseEncoder(folder(**sizes), device="cpu"), CSREncoder(folder(**sizes))
    for model in (theirs, ours):
        model.to(dtype).train(train)
    if dead:
        theirs[2].stats_last_nonzero[DEAD] = ours.auto_encoder.stats_last_nonzero[DEAD] = 99
    return theirs, ours


def parameters(model) -> list[nn.Parameter]:
    """Alike for both."""
    if isinstance(model, CSREncoder):
        code, inside = model.auto_encoder, model.transformer
        return [code.weight, code.pre_bias, code.latent_bias, *inside.parameters()]
    code, inside = model[2], model[0].auto_model
    return [code.encoder.weight, code.pre_bias, code.latent_bias, *inside.parameters()]


def run(model, loss, columns: int, labels=None) -> Result:
    features = [model.preprocess(column) for column in COLUMNS[:columns]]
    return differentiate(loss(features, labels), parameters(model))


SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
INNER = {
    "ranking": ("SparseMultipleNegativesRankingLoss", "multiple-negatives-ranking", 2, None),
    "ranking with negatives": ("SparseMultipleNegativesRankingLoss", "multiple-negatives-ranking", 4, None),
    "cosent": ("SparseCoSENTLoss", {"name": "cosent", "similarity": "cosine"}, 2, SCORES),
    "margins": ("SparseMarginMSELoss", "margin-mse", 3, SCORES),
}


def around(models, inner: str, **options):
    theirs, ours = models
    name, expression, columns, labels = INNER[inner]
    return (
        partial(run, theirs, original.CSRLoss(theirs, getattr(original, name)(theirs), **options), columns, labels),
        partial(run, ours, CSRLoss(ours, build(expression, ours), **options), columns, labels),
    )


@pytest.mark.parametrize("normalize", [False, True], ids=["as they are", "normalized"])
@pytest.mark.parametrize("inner", INNER)
def test_csr(inner, normalize):
    theirs, ours = around(both(dead=True, normalize=normalize), inner, beta=0.7, gamma=1.3)
    require_equal(inner, theirs(), ours())


@pytest.mark.parametrize("sizes", [{}, {"k_aux": 0}, {"k_aux": 50}, {"k": 14}, {"k": 1, "k_aux": 1}], ids=str)
@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
def test_sizes(sizes, dead):
    theirs, ours = around(both(dead=dead, **sizes), "ranking")
    require_equal("csr", theirs(), ours())


@pytest.mark.parametrize("normalize", [False, True], ids=["as they are", "normalized"])
def test_the_first_step_of_a_training(normalize):
    """When nothing is dead yet for either."""
    theirs, ours = around(both(train=True, normalize=normalize), "ranking with negatives")
    require_equal("csr", theirs(), ours())


@pytest.mark.parametrize("normalize", [False, True], ids=["as they are", "normalized"])
def test_components(normalize):
    theirs, ours = both(dead=True, normalize=normalize)
    pairs = (theirs, original.CSRLoss(theirs)), (ours, CSRLoss(ours, build("multiple-negatives-ranking", ours)))
    expected, got = (loss([model.preprocess(column) for column in COLUMNS[:2]], None) for model, loss in pairs)
    assert list(got) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-12, atol=1e-12, msg=key)


@pytest.mark.parametrize("normalize", [False, True], ids=["as they are", "normalized"])
def test_gradient_caching(normalize):
    """Which the original does not have for CSR."""
    models = both(dead=True, normalize=normalize)
    theirs, ours = around(models, "ranking")
    ours.args[1].execution = GradCache(mini_batch_size=4)
    require_equal("cached", theirs(), ours())


def random_records(rows: int = 5, dtype=torch.float64):
    """Embeddings and their reconstructions, as the original has them and as ours."""
    generator = torch.Generator().manual_seed(rows)
    made = [
        {name: torch.randn(rows, 7, generator=generator, dtype=torch.float64).to(dtype) for name in PARTS}
        for _ in range(3)
    ]
    leaves = [part.requires_grad_() for each in made for part in each.values()]
    theirs = [{PARTS[name]: part for name, part in each.items()} for each in made]
    return leaves, theirs, [Output(None, parts=each) for each in made]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_reconstruction(rows):
    leaves, theirs, ours = random_records(rows)
    expected = original.CSRReconstructionLoss(None, beta=0.3).compute_loss_from_embeddings(theirs)
    got = CSRReconstructionLoss(beta=0.3).compute(ours, None, slice(0, rows))
    require_equal("reconstruction", differentiate(expected, leaves), differentiate(got, leaves))


def test_reconstruction_of_equal_residuals():
    leaves, theirs, ours = random_records(4)
    with torch.no_grad():
        for each in theirs:
            each["sentence_embedding_backbone"].fill_(0.3)
            each["decoded_embedding_k_pre_bias"].fill_(0.1)
    expected = original.CSRReconstructionLoss(None).compute_loss_from_embeddings(theirs)
    got = CSRReconstructionLoss().compute(ours, None, slice(0, 4))
    require_equal("reconstruction", differentiate(expected, leaves), differentiate(got, leaves))


@pytest.mark.parametrize("normalize", [False, True], ids=["as they are", "normalized"])
def test_float32_is_as_near_to_the_truth(normalize):
    _, truth = around(both(dead=True, normalize=normalize), "ranking")
    wanted = flat(truth())
    errors = [
        float((flat(found()) - wanted).abs().max() / wanted.abs().max())
        for found in around(both(torch.float32, dead=True, normalize=normalize), "ranking")
    ]
    assert errors[1] <= max(1.5 * errors[0], 1e-5), errors


def flat(result: Result) -> torch.Tensor:
    return torch.cat([gradient.double().flatten() for gradient in result.gradients])


# Deliberate differences: (class, case) -> the original and ours.


def dead_latents():
    models = both(train=True)

    def counted(found, code):
        found()
        return code.stats_last_nonzero.tolist()

    theirs, ours = around(models, "ranking")
    return partial(counted, theirs, models[0][2]), partial(counted, ours, models[1].auto_encoder)


def too_few_latents():
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder as Theirs

    def made(kind):
        try:
            return kind(4, 16, 5).k
        except LosskitError:
            return "refused"

    return partial(made, Theirs), partial(made, SparseAutoEncoder)


def half_precision():
    theirs, ours = both(torch.bfloat16)

    def kind(model, of):
        with torch.no_grad():
            return of(model(model.preprocess(COLUMNS[0]))).dtype

    return (
        partial(kind, theirs, lambda made: made["sentence_embedding"]),
        partial(kind, ours, lambda made: made.embedding),
    )


def inner_losses():
    def run_around(model, make):
        try:
            return len(make(model)([model.preprocess(column) for column in COLUMNS[:2]], None))
        except AttributeError:
            return "fails"

    def theirs(model):
        from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

        inner = original.SparseMultipleNegativesRankingLoss(model)
        return original.CSRLoss(model, MatryoshkaLoss(model, inner, [56, 20]))

    def ours(model):
        inner = {"name": "matryoshka", "dims": [56, 20], "loss": "multiple-negatives-ranking"}
        return CSRLoss(model, build(inner, model))

    models = both()
    return partial(run_around, models[0], theirs), partial(run_around, models[1], ours)


def alone():
    theirs, ours = both()

    def trains(model, loss):
        try:
            return loss([model.preprocess(COLUMNS[0])]) is not None
        except NotImplementedError:
            return False

    return (
        partial(trains, theirs, original.CSRReconstructionLoss(theirs)),
        partial(trains, ours, CSRReconstructionLoss(ours)),
    )


DIFFERENCES = {
    ("CSRLoss", "dead-latents"): dead_latents,
    ("CSRLoss", "half-precision"): half_precision,
    ("CSRLoss", "inner-losses"): inner_losses,
    ("CSRLoss", "too-few-latents"): too_few_latents,
    ("CSRReconstructionLoss", "alone"): alone,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
