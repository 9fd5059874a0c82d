"""Attributes of the incumbent's losses, distances and similarities: there, and of the same value."""

from __future__ import annotations

import inspect
import pickle

import pytest
import torch
from compat import WIDTH, embeddings, sentence_transformer, write_folder
from torch import nn

from losskit import LossError

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
their_util = pytest.importorskip("sentence_transformers.util")
losses = pytest.importorskip("losskit_compat.sentence_transformer.losses")
util = pytest.importorskip("losskit_compat.util")
functions = pytest.importorskip("losskit_compat.functions")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLASSES = sorted(name for name in original.__all__ if issubclass(getattr(original, name), nn.Module))
READ_ONLY = {"citation", "temperature", "projection_dim", "encoder"}
INTERNAL = {
    "loss",  # of the cached ranking losses, which hold another loss
    "criterion",
    "cross_entropy_loss",
    "loss_fct",  # of losses that take none
    "must_retokenize",
    "similarity_fct",  # of losses that take none
    "tokenizer_decoder",
    "tokenizer_encoder",
    "triplet_margin",  # of the soft margin, which has none
    "uses_gradient_cache",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("compat") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return sentence_transformer(folder)


@pytest.fixture(scope="module")
def trainer():
    """What the incumbent's trainer has of its own where it replaces a model."""
    base = pytest.importorskip("sentence_transformers.base.trainer").BaseTrainer
    return type("Trainer", (), {"override_model_in_loss": base.override_model_in_loss})()


def further(name, library, model):
    """What a constructor wants beside the model."""
    if name in ("AdaptiveLayerLoss", "MatryoshkaLoss", "Matryoshka2dLoss"):
        dims = [] if name == "AdaptiveLayerLoss" else [[WIDTH, 8]]
        return (library.CoSENTLoss(model), *dims)
    return {
        "GISTEmbedLoss": (model,),
        "CachedGISTEmbedLoss": (model,),
        "SoftmaxLoss": (WIDTH, 3),
        "EmbedDistillLoss": ("mse", 8),
        "MSELoss": (8,),
    }.get(name, ())


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_can_be_read_and_set(model, name):
    theirs, ours = (getattr(lib, name)(model, *further(name, lib, model)) for lib in (original, losses))
    properties = [key for key, value in inspect.getmembers(type(theirs)) if isinstance(value, property)]
    stored = [*vars(theirs), *theirs._modules, *theirs._parameters, *properties]
    names = {key for key in stored if not key.startswith("_")} - set(dir(nn.Module())) - {"forward"}
    missing = {key for key in names if not hasattr(ours, key)}
    assert missing <= INTERNAL
    for key in names - missing:
        value = getattr(ours, key)
        if isinstance(value, int | float | str | tuple | None):
            assert key in ("citation", "encoder") or value == getattr(theirs, key)
        if key not in READ_ONLY:
            setattr(ours, key, value)
            assert getattr(ours, key) is value or getattr(ours, key) == value


@pytest.mark.parametrize("name", CLASSES)
def test_trainers_find_the_model_and_put_another_in_its_place(model, folder, trainer, name):
    loss, other = getattr(losses, name)(model, *further(name, losses, model)), sentence_transformer(folder)
    of_model = {parameter.data_ptr() for parameter in model.parameters()}
    assert of_model.isdisjoint(value.data_ptr() for value in loss.owned_state().values())
    trainer.override_model_in_loss(loss, other)
    assert all(each.model is other for _, each in loss.tree())


@pytest.mark.parametrize("name", util.__all__)
def test_functions_are_those_of_the_incumbent(name):
    a, b = embeddings(2)
    torch.testing.assert_close(getattr(util, name)(a, b), getattr(their_util, name)(a, b), rtol=1e-10, atol=1e-7)
    known = functions.as_similarity(getattr(their_util, name), None)
    assert known == functions.as_similarity(getattr(util, name), None)


@pytest.mark.parametrize("metric", ["SiameseDistanceMetric", "TripletDistanceMetric"])
def test_distances_of_rows_are_those_of_the_incumbent(metric):
    a, b = embeddings(2)
    ours, theirs = getattr(losses, metric), getattr(original, metric)
    for member in ours:
        function = vars(theirs)[member.name]
        # The original adds 1e-6 to differences in some.
        torch.testing.assert_close(member(a, b), function(a, b), rtol=1e-5, atol=1e-5)
        known = functions.as_similarity(function, None)
        assert known == functions.as_similarity(member, None) == member.value
        assert functions.name_of_function(function) == functions.name_of_function(member) == str(member)
        assert pickle.loads(pickle.dumps(member)) is member


def test_distances_within_a_batch_are_those_of_the_incumbent():
    (batch,) = embeddings(1)
    ours, theirs = (lib.BatchHardTripletLossDistanceFunction for lib in (losses, original))
    for name, known in (("cosine_distance", "cosine"), ("euclidean_distance", "euclidean")):
        torch.testing.assert_close(getattr(ours, name)(batch), getattr(theirs, name)(batch), rtol=1e-10, atol=1e-7)
        for library in (ours, theirs):
            assert functions.as_similarity(getattr(library, name), None) == known
    assert ours.eucledian_distance is ours.euclidean_distance
    torch.testing.assert_close(
        ours.euclidean_distance(batch, squared=True), theirs.euclidean_distance(batch, squared=True)
    )


def test_methods_of_models_are_named_by_what_they_stand_for(model):
    assert functions.name_of_function(model.similarity) == "cos_sim"
    assert functions.name_of_function(model.similarity_pairwise) == "pairwise_cos_sim"


def test_projections_are_saved_and_loaded(model, tmp_path):
    path = tmp_path / "projection.safetensors"
    saved = losses.EmbedDistillLoss(model, projection_dim=8)
    saved.save_projection(path)
    for loss in (losses.MSELoss(model, 8), losses.EmbedDistillLoss(model)):
        loss.load_projection(path)
        assert loss.projection_dim == 8
        torch.testing.assert_close(loss.projection.state_dict(), saved.projection.state_dict(), rtol=0, atol=0)
    theirs = original.EmbedDistillLoss(model)
    theirs.load_projection(path)
    torch.testing.assert_close(theirs.projection.state_dict(), saved.projection.state_dict(), rtol=0, atol=0)
    with pytest.raises(LossError, match=r"does not match the configured one: expected \[9, 16\], got \[8, 16\]"):
        losses.MSELoss(model, 9).load_projection(path)
    with pytest.raises(LossError, match="No projection layer to save"):
        losses.MSELoss(model).save_projection(path)


def test_a_guide_can_be_replaced(model, folder):
    loss, other = losses.GISTEmbedLoss(model, model), sentence_transformer(folder)
    loss.guide = other
    assert loss.guide is loss.frozen["guide"] is other
    assert "guide" not in dict(loss.named_children())
