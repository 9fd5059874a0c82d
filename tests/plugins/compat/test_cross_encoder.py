"""Names, constructors, attributes and manners of the incumbent's cross-encoder losses."""

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
from cross_parity import Table, incumbent_table, lists, pairs, tuples
from torch import nn

from losskit import Direct, GradCache, LossError
from losskit.testing import ToyEncoder

original = pytest.importorskip("sentence_transformers.cross_encoder.losses")
losses = pytest.importorskip("losskit_compat.cross_encoder.losses")


def default(cls, name):
    """Of an argument of the constructor; "" without it."""
    parameters = inspect.signature(cls).parameters
    return parameters[name].default if name in parameters else ""


CLASSES = sorted(name for name in original.__all__ if name.endswith("Loss"))
LISTWISE = [name for name in CLASSES if default(getattr(original, name), "mini_batch_size") is None]
INTERNAL = {
    "cross_entropy_loss",  # of losses that take none
    "eps",  # of the list-wise likelihood, a constant there
    "uses_gradient_cache",
}


def table(library, name="", classes=1):
    classes = 3 if name == "CrossEntropyLoss" else classes
    logits = torch.zeros(4, 5) if classes == 1 else torch.zeros(4, 5, classes)
    return (incumbent_table() if library is original else Table)(logits)


def test_every_public_name_is_there():
    assert sorted(losses.__all__) == sorted(original.__all__)
    assert all(hasattr(losses, name) for name in losses.__all__)


@pytest.mark.parametrize("module", [module.name for module in pkgutil.iter_modules(original.__path__)])
def test_submodules_have_the_incumbents_names_and_classes(module):
    theirs, ours = (importlib.import_module(f"{library.__name__}.{module}") for library in (original, losses))
    defined = [name for name, value in vars(theirs).items() if getattr(value, "__module__", "") == theirs.__name__]
    assert defined
    assert sorted(ours.__all__) == sorted(defined)
    assert all(getattr(ours, name).__module__ == ours.__name__ for name in defined)


def comparable(default):
    return (type(default).__name__, str(default)) if isinstance(default, nn.Module) else default


def parameters(cls):
    return [(p.name, p.kind, comparable(p.default)) for p in inspect.signature(cls.__init__).parameters.values()]


@pytest.mark.parametrize("name", original.__all__)
def test_constructors_take_the_same_arguments(name):
    theirs, ours = getattr(original, name), getattr(losses, name)
    assert parameters(ours) == parameters(theirs) or "__init__" not in vars(theirs)


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_can_be_read_and_set(name):
    theirs, ours = (getattr(library, name)(table(library, name)) for library in (original, losses))
    names = {key for key in [*vars(theirs), *theirs._modules] if not key.startswith("_")} - set(dir(nn.Module()))
    missing = {key for key in names if not hasattr(ours, key)}
    assert missing <= INTERNAL
    assert ours._modules["model"] is ours.model  # where trainers look for it
    for key in names - missing - {"model"}:
        value = getattr(ours, key)
        if isinstance(value, int | float | str | None):
            assert value == getattr(theirs, key)
        else:
            assert type(value).__name__ == type(getattr(theirs, key)).__name__
        setattr(ours, key, value)
        assert getattr(ours, key) is value


@pytest.mark.parametrize("name", CLASSES)
def test_copies_and_pickles(name):
    loss = getattr(losses, name)(table(losses, name))
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert again.get_config_dict() == loss.get_config_dict()
        assert again.model is not loss.model


def test_importing_loads_nothing_of_the_incumbent():
    code = """
from losskit_compat.cross_encoder.losses import LambdaLoss
from losskit_compat.cross_encoder import losses
from losskit_compat.cross_encoder.losses.lambda_loss import BaseWeightingScheme, LambdaLoss as Same
import sys
assert losses.LambdaLoss is LambdaLoss is Same
assert not [name for name in sys.modules if name.startswith("sentence_transformers")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", LISTWISE)
def test_mini_batches_are_gradient_caching(name):
    for size, execution in ((None, Direct()), (0, Direct()), (-1, Direct()), (3, GradCache(mini_batch_size=3))):
        loss = getattr(losses, name)(table(losses), mini_batch_size=size)
        assert (loss.mini_batch_size, loss.execution) == (size, execution)
        loss.mini_batch_size = 7
        assert loss.execution == GradCache(mini_batch_size=7)
        loss.mini_batch_size = size
        assert loss.execution == execution


@pytest.mark.parametrize("name", LISTWISE)
def test_mini_batches_bound_what_the_model_reads_at_once(name):
    batch = lists([2, 1, 0], [1, 0], [2, 1, 1, 0, 0])
    model = Table(batch.logits)
    getattr(losses, name)(model, mini_batch_size=4)(list(batch.columns), batch.labels).backward()
    assert [len(asked) for asked in model.asked] == [4, 4, 2] * 2


def test_the_cached_class_caches():
    loss = losses.CachedMultipleNegativesRankingLoss(table(losses), mini_batch_size=3)
    assert loss.execution == GradCache(mini_batch_size=3)
    loss.mini_batch_size = 5
    assert loss.execution == GradCache(mini_batch_size=5)
    assert "gao2021scaling" in loss.citation


def test_an_activation_that_is_a_module_is_trained_and_can_be_replaced():
    batch = lists([2, 1, 0], [1, 0])
    learned = nn.PReLU(dtype=torch.float64)
    loss = losses.ListNetLoss(Table(batch.logits), learned)
    assert loss.activation_fn is learned
    loss(list(batch.columns), batch.labels).backward()
    assert learned.weight.grad.abs().sum() > 0
    for other in (torch.tanh, nn.Sigmoid(), None):
        loss.activation_fn = other
        assert loss.activation_fn is other or isinstance(loss.activation_fn, nn.Identity)
        assert learned not in loss.modules()


def test_modules_of_torch_can_be_replaced():
    batch = pairs([0.25, 1.0, 0.5])
    loss = losses.MSELoss(Table(batch.logits))
    loss.loss_fct = nn.L1Loss()
    expected = (batch.logits.diagonal() - batch.labels).abs().mean()
    torch.testing.assert_close(loss(list(batch.columns), batch.labels).detach(), expected)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("BinaryCrossEntropyLoss", pairs([0.25, 1.0, 0.5])),
        ("CrossEntropyLoss", pairs([0, 2, 1], classes=3)),
        ("MSELoss", pairs([0.25, 1.0, 0.5])),
        ("MarginMSELoss", tuples(3, 2, torch.ones(3, 2))),
    ],
)
def test_without_a_reduction_there_is_a_loss_per_term(name, batch):
    models = {original: incumbent_table()(batch.logits), losses: Table(batch.logits)}
    theirs, ours = (getattr(library, name)(models[library], reduction="none") for library in models)
    expected, got = (loss(list(batch.columns), batch.labels) for loss in (theirs, ours))
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0, check_dtype=False)


def test_schemes_can_be_read_and_set():
    batch = lists([2, 1, 0], [1, 0])
    loss = losses.LambdaLoss(Table(batch.logits), None)
    assert isinstance(loss.weighting_scheme, losses.NoWeightingScheme)
    unweighted = loss(list(batch.columns), batch.labels)
    assert unweighted == losses.RankNetLoss(Table(batch.logits))(list(batch.columns), batch.labels)
    scheme = loss.weighting_scheme = losses.NDCGLoss2PPScheme()
    assert loss.weighting_scheme is scheme
    with_ten = loss(list(batch.columns), batch.labels)
    scheme.mu = 1.0
    with_one = loss(list(batch.columns), batch.labels)
    assert len({float(value.detach()) for value in (unweighted, with_ten, with_one)}) == 3


def test_refuses_schemes_that_would_have_to_be_learned():
    class Learned(losses.lambda_loss.BaseWeightingScheme):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

    with pytest.raises(LossError, match=r"LambdaLoss\.weighting_scheme: expected constant weights, got Learned with"):
        losses.LambdaLoss(None, Learned())
    with pytest.raises(NotImplementedError, match=r"BaseWeightingScheme\.forward"):
        losses.lambda_loss.BaseWeightingScheme()(None, None, None)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "CrossEntropyLoss"])
def test_refuses_models_with_several_outputs(name):
    for library in (original, losses):
        with pytest.raises(ValueError, match=name):
            getattr(library, name)(table(library, classes=3))
    with pytest.raises(LossError, match=rf"{name}\.model: expected num_labels=1, got num_labels=3"):
        getattr(losses, name)(table(losses, classes=3))


@pytest.mark.parametrize("name", CLASSES)
def test_refuses_models_that_embed(name):
    with pytest.raises(LossError, match=rf"{name}\.model: expected .*cross-encoder, got ToyEncoder, which is dense"):
        getattr(losses, name)(ToyEncoder("dense", 4))


def test_models_that_do_not_say_what_they_are_score_pairs():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def preprocess(self, texts, *, role="text", prompt=None):
            return {"numbers": torch.tensor([float(len(query) + len(text)) for query, text in texts])}

        def forward(self, features):
            return {"scores": self.weight * features["numbers"][:, None]}

    loss = losses.MSELoss(Plain())([["a", "bc"], ["d", "e"]], torch.tensor([1.0, 1.0]))
    assert loss.item() == ((2 - 1) ** 2 + (3 - 1) ** 2) / 2


@pytest.mark.parametrize(
    ("name", "batch", "message"),
    [
        ("MSELoss", tuples(3, 1, [0.0, 1.0, 2.0]), "MSELoss: expected 2 columns of one text per row, got 3 columns"),
        ("BinaryCrossEntropyLoss", lists([1, 0], [1]), "expected 2 columns of one text per row, got a list of texts"),
        ("MarginMSELoss", pairs([0.5, 1.0]), "MarginMSELoss: expected 3 columns or more of one text per row, got 2"),
        ("BinaryCrossEntropyLoss", pairs([0.5, 5.0]), r"expected numbers in \[0, 1\]"),
    ],
)
def test_refuses_batches_that_it_does_not_read(name, batch, message):
    with pytest.raises(LossError, match=message):
        getattr(losses, name)(Table(batch.logits))(list(batch.columns), batch.labels)


def test_labels_that_a_loss_does_not_read_are_named_once(caplog):
    batch = tuples(3)
    loss = losses.MultipleNegativesRankingLoss(Table(batch.logits), None)
    with caplog.at_level(logging.WARNING, "losskit"):
        values = [loss(list(batch.columns), labels).item() for labels in (None, torch.ones(3), torch.ones(3))]
    assert values[0] == values[1] == values[2]
    assert [record.getMessage() for record in caplog.records] == [
        "MultipleNegativesRankingLoss learns from the columns alone: it leaves the labels unread"
    ]


@pytest.mark.parametrize("name", ["ListMLELoss", "PListMLELoss"])
def test_labels_that_rise_are_named_once_and_taken(name, caplog):
    batch, falling = lists([1, 0], [0, 2, 1]), lists([1, 0], [2, 1, 0])
    loss = getattr(losses, name)(Table(batch.logits))
    with caplog.at_level(logging.WARNING, "losskit"):
        same = loss(list(falling.columns), falling.labels)
        assert not caplog.records
        assert [loss(list(batch.columns), batch.labels) for _ in range(2)] == [same, same]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"labels for {name}: expected ones that fall along each list, whose order is respected, got 2 after 0 in "
        "list 2 of a batch. Fix: sort documents by label, or set respect_input_order to False"
    )
    caplog.clear()
    loss.respect_input_order = False
    assert loss(list(batch.columns), batch.labels) != same
    assert not caplog.records


def test_weights_of_ranks():
    lengths = torch.tensor([[3], [1], [0], [140]])
    mask = torch.arange(140) < lengths
    ours, theirs = losses.PListMLELambdaWeight()(mask), original.PListMLELambdaWeight()(mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-3)
    assert ours[0, :4].tolist() == [3.0, 1.0, 0.0, 0.0]
    loss = losses.PListMLELoss(None)
    for weight in (losses.PListMLELambdaWeight(), None, losses.PListMLELambdaWeight(torch.ones_like)):
        loss.lambda_weight = weight
        assert loss.lambda_weight is weight


def test_refuses_weights_of_ranks_that_would_have_to_be_learned():
    with pytest.raises(LossError, match=r"PListMLELoss\.lambda_weight: expected constant weights, got Linear with"):
        losses.PListMLELoss(None, nn.Linear(2, 2))
