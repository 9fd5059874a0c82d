"""Names, constructors, attributes and manners of the incumbent's sparse and multi-vector losses."""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
import pickle
import pkgutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from losskit import Direct, GradCache, LossError, Output
from losskit.testing import ToyEncoder
from losskit_plugins.similarities.xtr import XTRSimilarity
from losskit_plugins.wrappers import splade as native

FAMILIES = {"sparse": "sparse_encoder", "multi-vector": "multi_vector_encoder"}
original = {name: pytest.importorskip(f"sentence_transformers.{path}.losses") for name, path in FAMILIES.items()}
compat = {name: pytest.importorskip(f"losskit_compat.{path}.losses") for name, path in FAMILIES.items()}
sparse, tokens = compat.values()
scoring = pytest.importorskip("losskit_compat.multi_vector_encoder.scoring")
their_scoring = pytest.importorskip("sentence_transformers.multi_vector_encoder.scoring")
callbacks = pytest.importorskip("losskit_compat.sparse_encoder.callbacks")

CLASSES = [(family, name) for family in FAMILIES for name in sorted(original[family].__all__)]
MODULES = [(family, each.name) for family in FAMILIES for each in pkgutil.iter_modules(original[family].__path__)]
READ_ONLY = {"citation", "projection_dim", "temperature"}
INTERNAL = {
    "cross_entropy_loss",  # of losses that take none
    "loss_fct",
    "loss_function",
    "similarity_fct",
    "uses_gradient_cache",
}


def built(library, name, model):
    """A loss of a class of these families."""
    if name in ("SpladeLoss", "CachedSpladeLoss"):
        return getattr(library, name)(model, library.SparseCoSENTLoss(model), 0.5, 0.25)
    return getattr(library, name)(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_public_name_is_there(family):
    assert sorted(compat[family].__all__) == sorted(original[family].__all__)


@pytest.mark.parametrize(("family", "module"), MODULES)
def test_submodules_have_the_incumbents_names_and_classes(family, module):
    theirs, ours = (importlib.import_module(f"{each[family].__name__}.{module}") for each in (original, compat))
    defined = [
        name for name in original[family].__all__ if getattr(original[family], name).__module__ == theirs.__name__
    ]
    assert defined
    assert sorted(ours.__all__) == sorted(defined)
    assert all(getattr(ours, name) is getattr(compat[family], name) for name in defined)


def comparable(default):
    if isinstance(default, nn.Module):
        return type(default).__name__, str(default)
    return getattr(default, "__qualname__", getattr(default, "__name__", default))


def parameters(cls):
    return [(p.name, p.kind, comparable(p.default)) for p in inspect.signature(cls.__init__).parameters.values()]


@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_constructors_take_the_same_arguments(family, name):
    theirs, ours = (parameters(getattr(each[family], name)) for each in (original, compat))
    if name == "SparseTripletLoss":  # the default is a member of an enumeration here, and a function there
        theirs, ours = ([part[:2] for part in each] for each in (theirs, ours))
    assert ours == theirs


@pytest.mark.parametrize(("family", "name"), CLASSES)
def test_attributes_can_be_read_and_set(family, name):
    model = ToyEncoder(family)
    theirs, ours = (built(each[family], name, model) for each in (original, compat))
    properties = [key for key, value in inspect.getmembers(type(theirs)) if isinstance(value, property)]
    stored = [*vars(theirs), *theirs._modules, *properties]
    names = {key for key in stored if not key.startswith("_")} - set(dir(nn.Module()))
    missing = {key for key in names if not hasattr(ours, key)}
    assert missing <= INTERNAL
    assert ours.model is model
    for key in names - missing - {"model", *READ_ONLY}:
        value = getattr(ours, key)
        if isinstance(value, int | float | str | tuple | None):
            assert value == getattr(theirs, key)
        setattr(ours, key, value)
        assert getattr(ours, key) is value


OF_COLUMNS = [(family, name) for family, name in CLASSES if name != "FlopsLoss"]


@pytest.mark.parametrize(("family", "name"), OF_COLUMNS)
def test_what_a_loss_owns_is_without_the_model(family, name):
    loss = built(compat[family], name, ToyEncoder(family))
    assert loss._modules["model"] is loss.model  # where trainers look for it
    assert not loss.owned_state()


@pytest.mark.parametrize(("family", "name"), OF_COLUMNS)
def test_copies_and_pickles(family, name):
    loss = built(compat[family], name, ToyEncoder(family))
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert str(again.get_config_dict()) == str(loss.get_config_dict())
        assert again.model is not loss.model


def test_importing_loads_nothing_of_the_incumbent():
    code = """
from losskit_compat.sparse_encoder import losses as sparse
from losskit_compat.sparse_encoder.losses.splade import SpladeLoss
from losskit_compat.multi_vector_encoder import losses as tokens
import losskit_compat.losses as short
import sys
assert short.SpladeLoss is sparse.SpladeLoss is SpladeLoss
assert short.MultiVectorMarginMSELoss is tokens.MultiVectorMarginMSELoss
assert short.__all__ and all(hasattr(short, name) for name in short.__all__)
assert not [name for name in sys.modules if name.startswith("sentence_transformers")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embeddings_may_have_a_sparse_layout():
    columns = [torch.randn(4, 8, generator=torch.Generator().manual_seed(each)).relu() for each in (0, 1)]
    labels = torch.tensor([0.9, 0.1, 0.8, 0.2])
    loss = sparse.SparseCoSENTLoss(None)
    found = loss.compute_loss_from_embeddings([column.to_sparse() for column in columns], labels)
    assert found == loss.compute_loss_from_embeddings(columns, labels)


# SPLADE and CSR


def test_what_splade_does_not_read_is_named(caplog):
    model = ToyEncoder("sparse")
    inner = sparse.SparseMultipleNegativesRankingLoss(model)
    with caplog.at_level(logging.WARNING, "losskit"):
        loss = sparse.SpladeLoss(model, inner, 1.0, 2.0, use_document_regularizer_only=True)
        sparse.SpladeLoss(
            model, inner, 1.0, document_regularizer=sparse.FlopsLoss(model), document_regularizer_threshold=3
        )
    assert loss.query_regularizer_weight is None
    assert [record.getMessage() for record in caplog.records] == [
        "SpladeLoss: query_regularizer_weight is unread with use_document_regularizer_only",
        "SpladeLoss: document_regularizer_threshold is unread beside a regularizer",
    ]


def test_weights_and_thresholds_can_be_set():
    model = ToyEncoder("sparse")
    features = [model.preprocess(["a b", "c"]), model.preprocess(["d", "e f"])]
    loss = sparse.SpladeLoss(model, sparse.SparseMultipleNegativesRankingLoss(model), 1.0)
    before = {key: value.item() for key, value in loss(features).items()}
    assert list(before) == ["base_loss", "document_regularizer_loss"]
    loss.document_regularizer_weight, loss.query_regularizer_weight = 3.0, 0.0
    after = {key: value.item() for key, value in loss(features).items()}
    assert after["document_regularizer_loss"] == pytest.approx(3 * before["document_regularizer_loss"])
    assert after["query_regularizer_loss"] == 0
    loss.document_regularizer.threshold = 99
    assert loss(features)["document_regularizer_loss"] == 0
    loss.query_regularizer_weight = None
    assert list(loss(features)) == ["base_loss", "document_regularizer_loss"]


def test_gradient_caching_rules_what_it_wraps():
    model = ToyEncoder("sparse")
    inner = sparse.SparseMultipleNegativesRankingLoss(model, gather_across_devices=True)
    loss = sparse.CachedSpladeLoss(model, inner, 1.0, mini_batch_size=4)
    assert loss.execution == inner.execution == GradCache(mini_batch_size=4, gather=True)
    loss.mini_batch_size, loss.mini_batch_num_tokens = 8, 100
    assert inner.execution == GradCache(mini_batch_size=8, mini_batch_tokens=100, gather=True)
    assert "gao2021scaling" in loss.citation


def test_the_weight_of_a_reconstruction_has_one_place():
    loss = sparse.CSRLoss(ToyEncoder("sparse"), beta=0.5)
    assert (loss.beta, loss.reconstruction_loss.beta) == (0.5, 0.5)
    loss.beta = 2.0
    assert loss.reconstruction_loss.beta == 2.0
    loss.reconstruction_loss.beta = 3.0
    assert loss.beta == 3.0


# The schedule


def splade(weight=1.0):
    model = ToyEncoder("sparse")
    return native.SpladeLoss(model, sparse.SparseMultipleNegativesRankingLoss(model), weight)


def test_schedules_of_the_incumbent_are_known():
    theirs = pytest.importorskip("sentence_transformers.sparse_encoder.callbacks.splade_callbacks")
    for given in ("LINEAR", "linear", theirs.SchedulerType.LINEAR, callbacks.SchedulerType.LINEAR):
        made = callbacks.SpladeRegularizerWeightSchedulerCallback(splade(), given)
        assert made.scheduler_type is callbacks.SchedulerType.LINEAR
    assert [each.value for each in callbacks.SchedulerType] == [each.value for each in theirs.SchedulerType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler_type": "cubic"}, "scheduler_type: expected linear or quadratic, got 'cubic'"),
        ({"warmup_ratio": 0.0}, r"warmup_ratio: expected a share in \(0, 1\], got 0.0"),
        ({"warmup_ratio": 1.5}, r"warmup_ratio: expected a share in \(0, 1\], got 1.5"),
        ({"loss": nn.Identity()}, "loss: expected a SpladeLoss, got Identity"),
        (
            {"loss": splade({"to": 2.0})},
            "loss.document_regularizer_weight: expected a number, got a schedule of its own",
        ),
    ],
    ids=["type", "ratio-0", "ratio-1.5", "loss", "weight"],
)
def test_refuses_schedules_that_are_none(options, message):
    with pytest.raises(LossError, match=f"SpladeRegularizerWeightSchedulerCallback.{message}"):
        callbacks.SpladeRegularizerWeightSchedulerCallback(**{"loss": splade(), **options})


# Multi-vector


@pytest.mark.parametrize("library", [scoring, their_scoring], ids=["ours", "theirs"])
def test_retrieval_with_options_is_the_registered_similarity(library):
    ranking = tokens.MultiVectorMultipleNegativesRankingLoss(None, similarity_fct=library.XTRScores(top_k=7))
    lists = tokens.MultiVectorDistillKLDivLoss(None, similarity_fct=library.XTRKDScores(top_k=9))
    assert [type(each.similarity) for each in (ranking, lists)] == [XTRSimilarity] * 2
    assert [each.similarity.top_k for each in (ranking, lists)] == [7, 9]
    ranking.similarity_fct = library.colbert_scores
    assert (ranking.similarity, ranking.similarity_fct) == ("maxsim", library.colbert_scores)


@pytest.mark.parametrize("name", [name for family, name in CLASSES if family == "multi-vector"])
def test_mini_batches_are_gradient_caching(name):
    loss = getattr(tokens, name)(ToyEncoder("multi-vector"), mini_batch_size=3)
    assert loss.execution == GradCache(mini_batch_size=3)
    loss.mini_batch_size = 5
    assert loss.execution == GradCache(mini_batch_size=5)
    if not name.startswith("Cached"):
        loss.mini_batch_size = None
        assert loss.execution == Direct()


def test_gathering_and_mini_batches_go_together():
    model = ToyEncoder("multi-vector")
    loss = tokens.MultiVectorMultipleNegativesRankingLoss(model, gather_across_devices=True)
    assert loss.execution == Direct(gather=True)
    loss.mini_batch_size = 4
    assert loss.execution == GradCache(mini_batch_size=4, gather=True)


class Weighted(nn.Module):
    """A similarity with parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, queries_embeddings, documents_embeddings, queries_mask, documents_mask):
        return scoring.colbert_scores(
            queries_embeddings * self.weight, documents_embeddings, queries_mask, documents_mask
        )


def test_a_function_that_is_a_module_is_trained():
    learned = Weighted()
    loss = tokens.MultiVectorMultipleNegativesRankingLoss(Recording(), similarity_fct=learned)
    assert [parameter is learned.weight for parameter in loss.parameters()] == [True]
    loss([column(0), column(1), column(2)]).backward()
    assert learned.weight.grad.abs().sum() > 0


class Recording(nn.Module):
    """A model that notes in which role it was asked."""

    def __init__(self):
        super().__init__()
        self.tasks = []

    def forward(self, features, task=None):
        self.tasks.append(task)
        return features


def column(seed):
    embeddings = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(seed))
    return {"token_embeddings": embeddings, "attention_mask": torch.ones(3, 4, dtype=torch.long)}


def test_columns_have_the_role_of_their_place_unless_they_say_one():
    model = Recording()
    loss = tokens.MultiVectorMultipleNegativesRankingLoss(model)
    loss.execution = Direct(merge=False)
    features = [column(0), {**column(1), "task": "query"}, column(2)]
    value = loss(features)
    assert model.tasks == ["query", "query", "document"]
    assert "task" not in features[0]
    records = [Output(each["token_embeddings"], mask=each["attention_mask"].bool()) for each in features]
    assert value == loss.compute(records, None, slice(0, 3))
