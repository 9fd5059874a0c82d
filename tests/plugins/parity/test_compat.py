"""The same constructor calls on both libraries: equal values and gradients in float64, equal settings."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from compat import COLUMNS, WIDTH, embeddings, run, sentence_transformer, share_owned, write_folder
from parity import on, require_different
from tokenizers import Tokenizer, models
from torch import nn

from losskit.testing import require_equal

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
util = pytest.importorskip("sentence_transformers.util")
SentenceTransformer = pytest.importorskip("sentence_transformers").SentenceTransformer
StaticEmbedding = pytest.importorskip("sentence_transformers.sentence_transformer.modules").StaticEmbedding
compat = pytest.importorskip("losskit_compat.sentence_transformer.losses")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCORES = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
BINARY = torch.tensor([0, 1, 1, 0, 1, 0])
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
TEACHER = torch.linspace(-1, 1, 6 * 48, dtype=torch.float64).cos().view(6, 3, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("compat") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return sentence_transformer(folder)


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    return (
        sentence_transformer(write_folder(tmp_path_factory.mktemp("compat") / "guide", seed=6))
        .eval()
        .requires_grad_(False)
    )


def bilinear(a, b):
    """A similarity of nobody's: it is called as it is."""
    return 0.1 * (a @ b.T) - 0.01 * (a**2).sum(1)[:, None]


def squared(a, b):
    return 0.1 * (a @ b.T) - 0.05 * (a.square().sum(1)[:, None] + b.square().sum(1))


def rowwise(a, b):
    return 0.1 * (a * b).sum(1) - 0.01 * (a**2).sum(1)


def chebyshev(a, b):
    return (a - b).abs().amax(1)


def within(embeddings):
    return (embeddings[:, None] - embeddings[None]).square().mean(-1)


COSINES = util.pairwise_cos_sim
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
BOTH = ("query_to_doc", "doc_to_query")

COSINE_OF = {lib: lib.BatchHardTripletLossDistanceFunction.cosine_distance for lib in (original, compat)}

# Class, columns, labels, and the constructor's arguments, given the module of losses.
CASES = [
    ("MultipleNegativesRankingLoss", 2, None, lambda lib: {}),
    ("MultipleNegativesRankingLoss", 4, None, lambda lib: {"scale": 5.0, "directions": DIRECTIONS}),
    ("MultipleNegativesRankingLoss", 3, None, lambda lib: {"scale": 0.5, "similarity_fct": util.dot_score}),
    ("MultipleNegativesRankingLoss", 3, None, lambda lib: {"scale": 2.0, "similarity_fct": bilinear}),
    (
        "MultipleNegativesRankingLoss",
        4,
        None,
        lambda lib: {"scale": 2.0, "similarity_fct": bilinear, "directions": DIRECTIONS},
    ),
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
    ("AnglELoss", 2, SCORES, lambda lib: {}),
    ("AnglELoss", 4, SCORES, lambda lib: {"scale": 3.0}),
    ("AnglELoss", 3, None, lambda lib: {}),
    ("CosineSimilarityLoss", 2, SCORES, lambda lib: {}),
    ("CosineSimilarityLoss", 2, SCORES, lambda lib: {"loss_fct": nn.L1Loss()}),
    ("CosineSimilarityLoss", 2, BINARY, lambda lib: {"cos_score_transformation": nn.Sigmoid()}),
    ("ContrastiveLoss", 2, BINARY, lambda lib: {}),
    ("ContrastiveLoss", 2, BINARY, lambda lib: {"margin": 1.5, "size_average": False}),
    ("ContrastiveLoss", 2, BINARY, lambda lib: {"distance_metric": chebyshev, "margin": 3.0}),
    ("OnlineContrastiveLoss", 2, BINARY, lambda lib: {}),
    ("OnlineContrastiveLoss", 2, 0 * BINARY, lambda lib: {"margin": 2.0}),
    ("OnlineContrastiveLoss", 2, BINARY, lambda lib: {"distance_metric": chebyshev, "margin": 4.0}),
    ("TripletLoss", 3, None, lambda lib: {}),
    ("TripletLoss", 3, None, lambda lib: {"distance_metric": lib.TripletDistanceMetric.COSINE, "triplet_margin": 1}),
    ("TripletLoss", 3, None, lambda lib: {"distance_metric": lib.TripletDistanceMetric.MANHATTAN}),
    ("TripletLoss", 3, None, lambda lib: {"distance_metric": chebyshev, "triplet_margin": 2}),
    ("MarginMSELoss", 3, SCORES, lambda lib: {}),
    ("MarginMSELoss", 4, TEACHER[:, 0, :2], lambda lib: {"similarity_fct": util.pairwise_cos_sim}),
    ("MarginMSELoss", 4, TEACHER[:, 0, :3], lambda lib: {"similarity_fct": rowwise}),
    ("DistillKLDivLoss", 3, TEACHER[:, 0, :2], lambda lib: {}),
    (
        "DistillKLDivLoss",
        4,
        TEACHER[:, 0, :3],
        lambda lib: {"similarity_fct": COSINES, "temperature": 2.0},
    ),
    (
        "DistillKLDivLoss",
        4,
        TEACHER[:, 0, :3],
        lambda lib: {"similarity_fct": rowwise, "student_temperature": 0.5, "teacher_temperature": 3.0},
    ),
    ("GlobalOrthogonalRegularizationLoss", 1, None, lambda lib: {}),
    ("GlobalOrthogonalRegularizationLoss", 3, None, lambda lib: {"mean_weight": None, "aggregation": "sum"}),
    ("GlobalOrthogonalRegularizationLoss", 2, None, lambda lib: {"similarity_fct": util.dot_score, "mean_weight": 0.5}),
    ("GlobalOrthogonalRegularizationLoss", 2, None, lambda lib: {"similarity_fct": squared}),
    *[
        (f"Batch{kind}TripletLoss", 1, labels, options)
        for kind in ("All", "Hard", "HardSoftMargin", "SemiHard")
        for labels in (CLASSES, BINARY)
        for options in (
            lambda lib: {},
            lambda lib: {"distance_metric": lib.BatchHardTripletLossDistanceFunction.cosine_distance},
            lambda lib: {"distance_metric": within},
        )
    ],
    *[
        (f"Batch{kind}TripletLoss", 1, CLASSES, lambda lib: {"distance_metric": COSINE_OF[lib], "margin": 0.25})
        for kind in ("All", "Hard", "SemiHard")
    ],
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
    ("MegaBatchMarginLoss", 2, lambda lib: {}),
    ("MegaBatchMarginLoss", 2, lambda lib: {"mini_batch_size": 2, "positive_margin": 0.9, "negative_margin": 0.1}),
    ("MegaBatchMarginLoss", 2, lambda lib: {"use_mini_batched_version": False, "mini_batch_num_tokens": 9}),
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


LAYERS = [
    ("MultipleNegativesRankingLoss", 3, None, {"n_layers_per_step": -1, "kl_temperature": 0.0}),
    ("MultipleNegativesRankingLoss", 2, None, {"n_layers_per_step": 9, "layer_weighting": "log", "kl_div_weight": 0}),
    ("CoSENTLoss", 2, SCORES, {"n_layers_per_step": -1, "layer_weighting": "linear", "kl_div_weight": 0}),
    (
        "CoSENTLoss",
        2,
        SCORES,
        {"n_layers_per_step": 5, "last_layer_weight": 2.0, "prior_layers_weight": 0.5, "kl_temperature": -1},
    ),
    (
        "MultipleNegativesRankingLoss",
        2,
        None,
        {"n_layers_per_step": -1, "kl_temperature": 0, "layer_weighting": lambda layer: 0.5**layer},
    ),
]


@pytest.mark.parametrize(("name", "columns", "labels", "options"), LAYERS, ids=named)
def test_adaptive_layers(model, name, columns, labels, options):
    theirs, ours = (lib.AdaptiveLayerLoss(model, getattr(lib, name)(model), **options) for lib in (original, compat))
    require_equal(name, run(model, theirs, columns, labels), run(model, ours, columns, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()


def test_the_divergence_of_one_layer(model):
    """The mean over layers is the sum of the original where there is one."""
    model[0].auto_model.encoder.layer = nn.ModuleList(list(layers := model[0].auto_model.encoder.layer)[:1])
    try:
        options = {"kl_temperature": 0.5, "kl_div_weight": 2.0}
        theirs, ours = (
            lib.AdaptiveLayerLoss(model, lib.MultipleNegativesRankingLoss(model), **options)
            for lib in (original, compat)
        )
        require_equal("divergence", run(model, theirs, 2, SCORES), run(model, ours, 2, SCORES))
    finally:
        model[0].auto_model.encoder.layer = layers


def test_both_dimensions(model):
    options = {"matryoshka_dims": [16, 8], "n_layers_per_step": -1, "n_dims_per_step": -1, "kl_temperature": 0.0}
    theirs, ours = (
        lib.Matryoshka2dLoss(model, lib.MultipleNegativesRankingLoss(model), **options) for lib in (original, compat)
    )
    require_equal("2d", run(model, theirs, 3), run(model, ours, 3))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize("labels", [None, BINARY], ids=["tokens", "labels"])
def test_contrastive_tension(model, labels):
    theirs, ours = (lib.ContrastiveTensionLoss(model) for lib in (original, compat))
    require_equal("tension", run(model, theirs, 2, labels), run(model, ours, 2, labels))
    assert ours.model2 is model
    assert ours.model1 is not model


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 5.0, "similarity_fct": util.dot_score}, {"similarity_fct": squared}],
    ids=["default", "dot", "own"],
)
def test_contrastive_tension_in_batch(model, options):
    theirs, ours = (lib.ContrastiveTensionLossInBatchNegatives(model, **options) for lib in (original, compat))
    theirs.double()  # else its scale is rounded to float32
    with torch.no_grad():
        theirs.logit_scale.copy_(ours.logit_scale)
    require_equal("tension", run(model, theirs, 1), run(model, ours, 1))
    assert ours.get_config_dict() == theirs.get_config_dict()


def test_contrastive_tension_batches():
    for lib in (original, compat):
        random.seed(4)
        loader = lib.ContrastiveTensionDataLoader([f"sentence {i}" for i in range(70)], 16, 4)
        batches = [[(example.texts, example.label) for example in batch] for batch in loader]
        assert len(loader) == len(batches) == 2
        if lib is original:
            expected = batches
    assert batches == expected
    with pytest.raises(ValueError, match="multiple of pos_neg_ratio=8"):
        compat.ContrastiveTensionDataLoader(["a"], 12)


GUIDED = [
    {},
    {"temperature": 0.05, "margin": 0.1},
    {"margin_strategy": "relative", "margin": 0.3, "contrast_anchors": False},
    {"contrast_positives": False, "contrast_anchors": False, "margin": -0.2},
]


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("options", GUIDED, ids=str)
def test_gist(model, guide, options, columns):
    theirs, ours = (lib.GISTEmbedLoss(model, guide, **options) for lib in (original, compat))
    require_equal("gist", run(model, theirs, columns), run(model, ours, columns))
    assert ours.get_config_dict() == theirs.get_config_dict()


@pytest.mark.parametrize("columns", [2, 4])
def test_cached_gist(model, guide, columns):
    options = {"mini_batch_size": 4, "temperature": 0.1, "margin": 0.05}
    theirs, ours = (lib.CachedGISTEmbedLoss(model, guide, **options) for lib in (original, compat))
    require_equal("gist", run(model, theirs, columns), run(model, ours, columns))
    assert ours.get_config_dict() == theirs.get_config_dict()


SOFTMAX = [
    ({}, CLASSES),
    ({"concatenation_sent_rep": False, "concatenation_sent_multiplication": True}, CLASSES),
    ({"concatenation_sent_multiplication": True}, torch.eye(3, dtype=torch.float64)[CLASSES] * 0.75 + 0.25 / 3),
    ({"loss_fct": nn.CrossEntropyLoss(label_smoothing=0.25)}, CLASSES),
    ({"loss_fct": nn.MultiMarginLoss()}, CLASSES),
]


@pytest.mark.parametrize(("options", "labels"), SOFTMAX, ids=str)
def test_softmax(model, options, labels):
    theirs, ours = (lib.SoftmaxLoss(model, WIDTH, 3, **options).double() for lib in (original, compat))
    share_owned(theirs, ours, ["classifier"])
    require_equal("softmax", run(model, theirs, 2, labels), run(model, ours, 2, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()
    features = [model.preprocess(column) for column in COLUMNS[:2]]
    (their_vectors, their_logits), (vectors, logits) = theirs(features, None), ours(features, None)
    torch.testing.assert_close([*vectors, logits], [*their_vectors, their_logits], rtol=1e-10, atol=1e-10)


DISTILLED = [
    ("MSELoss", 1, TEACHER[:, 0], {}),
    ("MSELoss", 3, TEACHER, {}),
    ("MSELoss", 2, TEACHER[:, 0], {"projection_dim": 16}),
    ("EmbedDistillLoss", 2, TEACHER[:, 1], {}),
    ("EmbedDistillLoss", 3, TEACHER, {"distance_metric": "l2"}),
    ("EmbedDistillLoss", 2, TEACHER[:, 0, :10], {"distance_metric": "mse", "projection_dim": 10}),
]


@pytest.mark.parametrize(("name", "columns", "labels", "options"), DISTILLED, ids=named)
def test_embedding_distillation(model, name, columns, labels, options):
    theirs, ours = (getattr(lib, name)(model, **options).double() for lib in (original, compat))
    if "projection_dim" in options:
        share_owned(theirs, ours, ["projection"])
    require_equal(name, run(model, theirs, columns, labels), run(model, ours, columns, labels))
    assert ours.get_config_dict() == theirs.get_config_dict()
    if "projection_dim" not in options:
        teachers = [labels] * columns if labels.ndim == 2 else list(labels.unbind(1))
        require_equal(name, on(theirs, batch := embeddings(columns), teachers), on(ours, batch, teachers))


@pytest.mark.parametrize("tie", [True, False])
def test_denoising(folder, tie):
    """Both decoders get the weights of one; the head of the folder is the original's."""
    theirs, ours = (
        lib.DenoisingAutoEncoderLoss(sentence_transformer(folder), folder, tie) for lib in (original, compat)
    )
    theirs.double()
    ours.decoder.load_state_dict(theirs.decoder.state_dict())
    expected, got = run(theirs.encoder, theirs, 2), run(ours.model, ours, 2)
    torch.testing.assert_close(got.value, expected.value, rtol=1e-10, atol=0.0)
    named = [dict(loss.decoder.named_parameters()) for loss in (theirs, ours)]
    for name, parameter in named[0].items():
        torch.testing.assert_close(named[1][name].grad, parameter.grad, rtol=1e-10, atol=1e-12)
    assert ours.get_config_dict() == theirs.get_config_dict()


# Deliberate differences: (class, case) -> the original and ours.


def error(attempt):
    """The name of what it raises, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt()
    except (KeyError, TypeError, ValueError) as raised:
        return type(raised).__name__
    return ""


def errors(attempt):
    """What an attempt raises with the losses of either library; nothing counts only from ours."""
    theirs = error(lambda: attempt(original))
    assert theirs
    return lambda: theirs, lambda: error(lambda: attempt(compat))


def layers_of_a_cached_loss(lib, model):
    loss = lib.AdaptiveLayerLoss(model, lib.CachedMultipleNegativesRankingLoss(model))
    loss([model.preprocess(column) for column in COLUMNS[:2]], None).backward()


def cached_losses():
    with TemporaryDirectory() as made:
        model = sentence_transformer(write_folder(Path(made)))
        return errors(lambda lib: layers_of_a_cached_loss(lib, model))


class Around(nn.Module):
    """A wrapper of nobody's."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, features):
        return self.module(features)


def foreign_wrappers():
    with TemporaryDirectory() as made:
        model = sentence_transformer(write_folder(Path(made)))

    def value(lib):
        loss = lib.AdaptiveLayerLoss(model, lib.MultipleNegativesRankingLoss(model))
        loss.model = loss.loss.model = Around(model)
        return loss([model.preprocess(column) for column in COLUMNS[:2]], None).item()

    return lambda: value(original), lambda: value(compat)


def static_embeddings():
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "fox": 1}, unk_token="[UNK]"))
    model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=4)], device="cpu")
    columns = [model.preprocess(column) for column in COLUMNS[:2]]
    return errors(lambda lib: lib.MegaBatchMarginLoss(model, mini_batch_size=2)(columns, None).backward())


def single_candidates():
    return errors(lambda lib: lib.DistillKLDivLoss(None).compute_loss_from_embeddings(embeddings(2), torch.zeros(6, 1)))


def type_errors():
    model = nn.Linear(2, 2)
    features = [{"input_ids": torch.zeros(2, 2)}] * 2
    return errors(lambda lib: lib.AdaptiveLayerLoss(model, lib.MultipleNegativesRankingLoss(model))(features, None))


DIFFERENCES = {
    ("AdaptiveLayerLoss", "cached-losses"): cached_losses,
    ("AdaptiveLayerLoss", "foreign-wrappers"): foreign_wrappers,
    ("DistillKLDivLoss", "single-candidates"): single_candidates,
    ("all", "type-errors"): type_errors,
    ("all with gradient caching", "static-embeddings"): static_embeddings,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case):
    require_different(*DIFFERENCES[case]())
