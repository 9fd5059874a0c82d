"""Parameters that losses own are trained, clipped, saved and resumed; guides are not; transforms change with epochs."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

import losskit
from losskit import build
from losskit.testing import ToyEncoder
from losskit_plugins.training import quickstart
from losskit_plugins.training.trainer import Trainer

PAIRS = [{"text_1": f"word{i} word{i % 5}", "text_2": f"word{i + 1} word{i % 3}", "label": i % 3} for i in range(24)]
SOFTMAX = {"name": "softmax", "num_labels": 3}


def trainer(loss, rows, folder, **options):
    arguments = {
        "per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 0.05, "save_strategy": "epoch",
        "disable_tqdm": True, "report_to": [], "use_cpu": True, "seed": 1, "lr_scheduler_type": "constant",
    }  # fmt: skip
    return Trainer(loss=loss, train_dataset=rows, args=TrainingArguments(str(folder), **{**arguments, **options}))


def owned(loss):
    return {name: value.clone() for name, value in loss.owned_state().items()}


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        (SOFTMAX, PAIRS),
        (
            {"name": "mse", "projection": 5},
            [{"text": row["text_1"], "label": [float(place)] * 5} for place, row in enumerate(PAIRS)],
        ),
        ("contrastive-tension", [{**row, "label": row["label"] % 2} for row in PAIRS]),
        ("contrastive-tension-in-batch-negatives", [{"text": row["text_1"]} for row in PAIRS]),
    ],
    ids=lambda value: str(value) if isinstance(value, str | dict) else "",
)
def test_what_a_loss_owns_is_trained_saved_and_resumed(expression, rows, tmp_path):
    whole = trainer(build(expression, ToyEncoder(seed=1)), rows, tmp_path / "whole")
    before = owned(whole.model)
    whole.train()
    after = owned(whole.model)
    assert all(
        not torch.equal(before[name], after[name]) for name in before if "positions" not in name and "head" not in name
    )
    first, last = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert load_file(last / "loss.safetensors").keys() == after.keys()
    for name, value in load_file(last / "loss.safetensors").items():
        assert torch.equal(value, after[name])
    resumed = trainer(build(expression, ToyEncoder(seed=1)), rows, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(first))
    for name, value in owned(resumed.model).items():
        torch.testing.assert_close(value, after[name])


def test_what_a_loss_owns_is_clipped_with_the_encoder(tmp_path):
    norms = []

    class Norms(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
            gradients = [parameter.grad.norm() for parameter in model.parameters() if parameter.grad is not None]
            norms.append((torch.stack(gradients).norm().item(), model.classifier.weight.grad.norm().item()))

    made = trainer(build(SOFTMAX, ToyEncoder(seed=1)), PAIRS, tmp_path, max_grad_norm=1e-3)
    made.add_callback(Norms())
    made.train()
    assert len(norms) == 6
    assert all(whole == pytest.approx(1e-3, rel=1e-3) for whole, _ in norms)
    assert all(0 < of_classifier < 1e-3 for _, of_classifier in norms)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    quickstart.write_inputs(folder)
    return folder / "quickstart"


def recipe(inputs, rows, output, **sections):
    path = output.parent / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "encoder": {"name": "dense", "model": str(inputs / "encoder")},
        "training": {"batch_size": 8, "learning_rate": 1e-3, "epochs": 2},
        "output": str(output),
        "data": {"train": {"path": str(path), **sections.pop("train", {})}},
        **sections,
    }


def test_a_recipe_trains_against_a_frozen_teacher(inputs, tmp_path):
    teacher = {"name": "dense", "model": str(inputs / "encoder"), "pooling": "cls"}
    rows = [{"english": row["text_1"], "translation": row["text_2"], "label": "unused"} for row in PAIRS]
    columns = {"text_1": "english", "text_2": "translation"}
    loss = {"name": "mse", "teacher": teacher}
    run = losskit.train(recipe(inputs, rows, tmp_path / "run", loss=loss, train={"columns": columns}))
    kinds = [each["kind"] for each in json.loads((run.path / "provenance.json").read_text())["components"]]
    assert kinds.count("encoder") == 1
    assert not (run.path / "loss.safetensors").exists()


@pytest.mark.parametrize("name", ["delete-words", "contrastive-tension-pairs"])
def test_a_recipe_trains_on_pairs_made_of_single_texts(name, inputs, tmp_path, monkeypatch):
    from losskit_plugins.data.transforms import Transformed

    epochs = []
    plain = Transformed.set_epoch

    def noted(self, epoch):
        epochs.append(epoch)
        plain(self, epoch)

    monkeypatch.setattr(Transformed, "set_epoch", noted)
    rows = [{"text": row["text_1"]} for row in PAIRS]
    run = losskit.train(
        recipe(inputs, rows, tmp_path / "run", loss="contrastive-tension", train={"transform": {"name": name}})
    )
    assert set(epochs) == {0, 1}
    assert any(key.startswith("tower.") for key in load_file(run.path / "loss.safetensors"))
