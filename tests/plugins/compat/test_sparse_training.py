"""The incumbent's trainers train the same with our sparse and multi-vector losses as with its own."""

from __future__ import annotations

import pytest
import torch
from compat import COLUMNS, write_folder, write_masked
from transformers import TrainerCallback

sentence_transformers = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
sparse = pytest.importorskip("losskit_compat.sparse_encoder.losses")
their_sparse = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
tokens = pytest.importorskip("losskit_compat.multi_vector_encoder.losses")
their_tokens = pytest.importorskip("sentence_transformers.multi_vector_encoder.losses")
callbacks = pytest.importorskip("losskit_compat.sparse_encoder.callbacks")

pytestmark = [pytest.mark.slow, pytest.mark.quick]

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_masked(tmp_path_factory.mktemp("masked") / "tiny")


@pytest.fixture(scope="module")
def dense_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("plain") / "tiny")


class Watching(TrainerCallback):
    """Keeps what is logged, with what callbacks before it have added."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))


def train(kind, model, loss, folder, callbacks=()):
    """The weights after a few steps, and what was logged."""
    arguments = getattr(sentence_transformers, f"{kind}TrainingArguments")(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=3, learning_rate=0.05, optim="sgd",
        use_cpu=True, disable_tqdm=True, logging_steps=1, eval_strategy="steps", eval_steps=3, save_strategy="no",
        report_to="none",
    )  # fmt: skip
    watching = Watching()
    rows = datasets.Dataset.from_dict({"anchor": COLUMNS[0], "positive": COLUMNS[1]})
    trainer = getattr(sentence_transformers, f"{kind}Trainer")(
        model, arguments, train_dataset=rows, eval_dataset=rows, loss=loss, callbacks=[*callbacks, watching]
    )
    trainer.train()
    return {key: value.clone() for key, value in model.state_dict().items()}, watching.logs


def require_same_weights(expected, got):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-3, atol=1e-4, msg=key)


def logged(history, name):
    return [entry[name] for entry in history if name in entry]


@pytest.mark.parametrize("name", ["SpladeLoss", "CachedSpladeLoss"])
def test_splade_with_its_schedule(folder, tmp_path, name):
    found = []
    for lib in (their_sparse, sparse):
        model = sentence_transformers.SparseEncoder(folder, device="cpu")
        loss = getattr(lib, name)(model, lib.SparseMultipleNegativesRankingLoss(model), 0.3, 0.2)
        # The trainer adds the schedule for its own class.
        added = [] if lib is their_sparse else [callbacks.SpladeRegularizerWeightSchedulerCallback(loss)]
        found.append(train("SparseEncoder", model, loss, tmp_path, added))
    (expected, their_log), (got, log) = found
    require_same_weights(expected, got)
    for key in ("document_regularizer_weight", "query_regularizer_weight", "loss", "base_loss"):
        assert logged(log, key) == pytest.approx(logged(their_log, key), rel=1e-3)
    assert logged(log, "document_regularizer_weight")[:3] == pytest.approx([0.0, 0.3 / 4, 0.3])
    assert (loss.document_regularizer_weight, loss.query_regularizer_weight) == (0.3, 0.2)


def test_csr(dense_folder, tmp_path):
    found = []
    for lib in (their_sparse, sparse):
        torch.manual_seed(3)
        model = sentence_transformers.SparseEncoder(dense_folder, device="cpu")
        model[-1].k = model[-1].k_aux = 4
        found.append(train("SparseEncoder", model, lib.CSRLoss(model), tmp_path))
    (expected, their_log), (got, log) = found
    for key in ("loss", "base_loss", "reconstruction_loss_k"):
        assert logged(log, key) == pytest.approx(logged(their_log, key), rel=1e-3)
    counts = [key for key in expected if key.endswith("stats_last_nonzero")]
    require_same_weights(*({k: v for k, v in each.items() if k not in counts} for each in (expected, got)))


@pytest.mark.parametrize(
    "name", ["MultiVectorMultipleNegativesRankingLoss", "CachedMultiVectorMultipleNegativesRankingLoss"]
)
def test_multi_vector(dense_folder, tmp_path, name):
    found = []
    for lib in (their_tokens, tokens):
        torch.manual_seed(3)
        model = sentence_transformers.MultiVectorEncoder(dense_folder, device="cpu")
        found.append(train("MultiVectorEncoder", model, getattr(lib, name)(model, mini_batch_size=2), tmp_path))
    (expected, their_log), (got, log) = found
    require_same_weights(expected, got)
    assert logged(log, "loss") == pytest.approx(logged(their_log, "loss"), rel=1e-3)
