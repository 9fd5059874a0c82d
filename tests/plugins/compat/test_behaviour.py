"""Attributes that can be set, labels that nobody reads, deprecations, and the incumbent's trainer."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.distributed as dist
from compat import COLUMNS, embeddings, run, sentence_transformer, write_folder
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import losskit
from losskit import Direct, GradCache, LossError
from losskit.testing import Result, require_equal, toys

sentence_transformers = pytest.importorskip("sentence_transformers")
losses = pytest.importorskip("losskit_compat.sentence_transformer.losses")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("compat") / "tiny")


class Bilinear(nn.Module):
    """A similarity with parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(16, dtype=torch.float64))

    def forward(self, a, b):
        return a @ self.weight @ b.T


def value(loss, columns=2, labels=None):
    return float(loss.compute_loss_from_embeddings(embeddings(columns), labels).detach())


def test_settings_can_be_read_and_set():
    loss = losses.MultipleNegativesRankingLoss(None)
    loss.scale = 5.0
    loss.similarity_fct = sentence_transformers.util.dot_score
    loss.directions = ("query_to_doc", "doc_to_query")
    same = losses.MultipleNegativesRankingLoss(
        None, 5.0, sentence_transformers.util.dot_score, directions=("query_to_doc", "doc_to_query")
    )
    assert value(loss) == value(same)
    assert loss.similarity_fct is sentence_transformers.util.dot_score
    assert (loss.similarity, loss.temperature, loss.gather_across_devices) == ("dot", 0.2, False)


def test_a_similarity_that_is_a_module_is_trained_and_can_be_replaced():
    learned = Bilinear()
    loss = losses.MultipleNegativesRankingLoss(None, 1.0, learned)
    assert loss.similarity_fct is learned
    assert [parameter is learned.weight for parameter in loss.parameters()] == [True]
    loss.compute_loss_from_embeddings(embeddings(2)).backward()
    assert learned.weight.grad.abs().sum() > 0
    other = copy.deepcopy(loss)
    assert other.similarity_fct is not learned
    assert other.similarity_fct.weight is next(other.parameters())
    loss.similarity_fct = nn.CosineSimilarity()
    assert isinstance(loss.similarity_fct, nn.CosineSimilarity)
    loss.similarity_fct = sentence_transformers.util.cos_sim
    assert value(loss) == value(losses.MultipleNegativesRankingLoss(None, 1.0))


def test_a_module_can_give_way_to_a_function():
    loss = losses.CosineSimilarityLoss(None, loss_fct=nn.L1Loss(), cos_score_transformation=nn.Sigmoid())
    loss.loss_fct, loss.cos_score_transformation = nn.functional.mse_loss, nn.Identity()
    labels = torch.linspace(0, 1, 6, dtype=torch.float64)
    assert value(loss, 2, labels) == pytest.approx(value(losses.CosineSimilarityLoss(None), 2, labels), rel=1e-12)
    with pytest.raises(LossError, match=r"expected scores in \[-1, 1\]"):
        value(loss, 2, labels * 5)


class Own(nn.Module):
    """A loss of the user's own, written for the incumbent."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.head = nn.Linear(16, 1, dtype=torch.float64)

    def forward(self, sentence_features, labels):
        a, b = (self.model(features)["sentence_embedding"] for features in sentence_features)
        weight = self.head.weight[:, : a.shape[1]]
        return ((a * weight).sum(1) - (b * weight).sum(1) - labels).square().mean()


@pytest.mark.parametrize("execution", [Direct(), GradCache(mini_batch_size=2)], ids=["direct", "cached"])
def test_a_plain_module_works_inside_modifiers(folder, execution):
    from sentence_transformers.sentence_transformer import losses as original

    model, labels = sentence_transformer(folder), torch.arange(6.0, dtype=torch.float64)
    own = Own(model)
    ours = losses.MatryoshkaLoss(model, own, [8, 4], [1.0, 2.0])
    ours.execution = execution
    theirs = original.MatryoshkaLoss(model, own, [8, 4], [1.0, 2.0])
    require_equal("own loss", run(model, theirs, 2, labels), run(model, ours, 2, labels))
    assert own.model is model
    assert ours.loss.head is own.head
    assert ours.get_config_dict()["loss"] == "Own"
    with pytest.raises(
        LossError, match="Linear inside a modifier: expected a module whose encoder is its child `model`"
    ):
        losses.MatryoshkaLoss(model, nn.Linear(2, 2), [4])([model.preprocess(["a", "b"])])
    with pytest.raises(LossError, match="Linear inside a modifier: expected a module whose encoder"):
        losses.MatryoshkaLoss(None, nn.Linear(2, 2), [4]).compute_loss_from_embeddings([torch.ones(2, 4)])


class Halved(nn.Module):
    """A loss of the user's own around another."""

    def __init__(self, loss):
        super().__init__()
        self.inner = loss

    def forward(self, sentence_features, labels):
        return self.inner(sentence_features, labels) / 2


@pytest.mark.parametrize("name", ["MatryoshkaLoss", "AdaptiveLayerLoss"])
def test_a_loss_inside_a_plain_module_works_inside_modifiers(folder, name):
    model = sentence_transformer(folder)
    options = {"matryoshka_dims": [8, 4]} if name == "MatryoshkaLoss" else {"n_layers_per_step": -1, "kl_div_weight": 0}
    found = []
    for wrap in (Halved, nn.Identity()):
        inner = wrap(losses.MultipleNegativesRankingLoss(model))
        found.append(run(model, getattr(losses, name)(model, inner, **options), 3))
        assert all(each.model is model for each in inner.modules() if isinstance(each, losskit.Loss))
    halved, plain = found
    halves = Result(plain.value / 2, tuple(gradient / 2 for gradient in plain.gradients))
    require_equal("half the loss", halves, halved)


def test_evaluation_reaches_a_loss_inside_a_plain_module(folder, caplog):
    """A batch that teaches nothing is no news there."""
    model = sentence_transformer(folder).eval()
    loss = losses.MatryoshkaLoss(model, Halved(losses.MultipleNegativesRankingLoss(model)), [8, 4])
    with caplog.at_level(logging.WARNING, "losskit"):
        loss([model.preprocess(["a cat"]), model.preprocess(["cats"])])
        assert "teaches nothing" not in caplog.text
        model.train()
        loss([model.preprocess(["a cat"]), model.preprocess(["cats"])])
        assert "teaches nothing" in caplog.text


def test_executions_follow_the_attributes():
    model = toys.ToyEncoder()
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4, gather_across_devices=True)
    assert loss.execution == GradCache(mini_batch_size=4, gather=True)
    loss.mini_batch_size, loss.mini_batch_num_tokens, loss.gather_across_devices = 8, 100, False
    assert loss.execution == GradCache(mini_batch_size=8, mini_batch_tokens=100)
    assert losses.MatryoshkaLoss(model, loss, [8, 4]).execution == loss.execution
    assert losses.MultipleNegativesRankingLoss(model, gather_across_devices=True).execution == Direct(gather=True)


def test_labels_that_a_loss_does_not_read_are_named_once(caplog):
    loss = losses.MultipleNegativesRankingLoss(None)
    with caplog.at_level(logging.WARNING, "losskit"):
        assert value(loss, 2, torch.zeros(6)) == value(loss, 2, torch.zeros(6)) == value(loss)
    assert [record.getMessage() for record in caplog.records] == [
        "MultipleNegativesRankingLoss learns from the columns alone: it leaves the labels unread"
    ]


def test_what_cannot_be_meant_raises():
    with pytest.raises(LossError, match=r"CoSENTLoss.*\(text, text\).*got 3 columns"):
        losses.CoSENTLoss(None).compute_loss_from_embeddings(embeddings(3), torch.zeros(6))
    with pytest.raises(ValueError, match=r"CachedMultipleNegativesRankingLoss\.scale: expected a positive number"):
        losses.CachedMultipleNegativesRankingLoss(None, scale=-1.0)


@pytest.mark.parametrize(
    "name", ["MultipleNegativesSymmetricRankingLoss", "CachedMultipleNegativesSymmetricRankingLoss"]
)
def test_deprecated_names_say_what_to_write(name):
    with pytest.warns(DeprecationWarning, match=f"{name} is deprecated: write {name.replace('Symmetric', '')} with"):
        getattr(losses, name)(None)


def test_a_cached_loss_cites_gradient_caching():
    plain, cached = losses.MultipleNegativesRankingLoss(None), losses.CachedMultipleNegativesRankingLoss(None)
    assert plain.citation in cached.citation
    assert "gao2021scaling" in cached.citation
    assert "gao2021scaling" not in plain.citation


def test_the_incumbents_trainer_trains_with_it_and_prints_its_settings(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    model = sentence_transformer(folder).float()
    inner = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    loss = losses.MatryoshkaLoss(model, inner, [16, 4])
    arguments = sentence_transformers.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=3, learning_rate=0.1, report_to="none",
        use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in model.parameters()]
    rows = datasets.Dataset.from_dict({"anchor": COLUMNS[0], "positive": COLUMNS[1]})
    trainer = sentence_transformers.SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=loss)
    trainer.train()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.save_pretrained(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text()
    for text in ('"matryoshka_dims": [', '"loss": "CachedMultipleNegativesRankingLoss"', "kusupati2022matryoshka"):
        assert text in card


@pytest.fixture
def process(tmp_path):
    """The only process of a group."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("inner", ["MultipleNegativesRankingLoss", "CachedMultipleNegativesRankingLoss"])
@pytest.mark.parametrize("modifier", ["AdaptiveLayerLoss", "MatryoshkaLoss"])
def test_modifiers_see_through_the_wrapper_of_distributed_training(folder, process, modifier, inner):
    model = sentence_transformer(folder)
    loss = getattr(losses, inner)(model)
    loss = getattr(losses, modifier)(model, loss, -1 if modifier == "AdaptiveLayerLoss" else [8, 4])
    alone = run(model, loss, 3)
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)  # as the trainer sets it
    loss.model = loss.loss.model = wrapped
    calls = []
    wrapped.register_comm_hook(calls, counting)
    require_equal("under DistributedDataParallel", alone, run(model, loss, 3))
    assert calls


def counting(calls, bucket):
    calls.append(bucket.index())
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


def test_columns_may_come_from_a_generator():
    model = toys.ToyEncoder()
    columns = [model.preprocess(["a", "b c"]), model.preprocess(["d e", "f"])]
    loss = losses.MultipleNegativesRankingLoss(model)
    assert loss(column for column in columns).item() == loss(columns).item()


def test_arguments_under_their_former_names():
    with pytest.warns(DeprecationWarning, match="sentence_embedding_dimension is deprecated: write embedding_dim"):
        loss = losses.SoftmaxLoss(None, sentence_embedding_dimension=4, num_labels=3)
    assert loss.classifier.in_features == 12
