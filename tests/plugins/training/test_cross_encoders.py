"""Cross-encoders end to end: every registered loss, saved models, pairs made by workers, columns of any name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from matrix import LOSSES, SETTINGS
from safetensors.torch import load_file
from transformers import TrainingArguments

import losskit
from losskit import Card, DataError, Format, Loss, LossError
from losskit.card import split_input
from losskit.testing import ToyEncoder
from losskit_plugins.data.collator import Collator
from losskit_plugins.data.columns import match
from losskit_plugins.encoders.cross_encoder import CrossEncoder
from losskit_plugins.training import quickstart
from losskit_plugins.training.trainer import Trainer, needs_distinct_texts

CROSS = [name for name in LOSSES if "cross-encoder" in losskit.get("loss", name).card.encoders]
CLASSES = ("contradiction", "entailment", "neutral")
ROWS = 10
PAIRS = [{"anchor": f"question {row} of ten", "positive": f"the answer number {row}"} for row in range(ROWS)]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A folder with an untrained transformer and a tokenizer."""
    folder = tmp_path_factory.mktemp("backbone")
    quickstart.write_inputs(folder)
    return folder / "quickstart" / "encoder"


def label_of(kind: str, row: int, documents: int) -> Any:
    """A label that the losses of its kind take."""
    return {
        "binary": row % 2,
        "class": CLASSES[row % 3],
        "distribution": [0.5, 0.25, 0.25],
        "score": row / ROWS,
        "scores": [float((row + place) % 3 == 0) for place in range(documents)],
        "margins": [0.5 + place for place in range(documents - 1)],
    }[kind]


def rows_of(form: Format) -> list[dict[str, Any]]:
    """Rows of a format, columns by the names of its inputs, two of each that may repeat."""
    rows = []
    for row in range(ROWS):
        made: dict[str, Any] = {}
        for place, name in enumerate(form.inputs):
            base, star = split_input(name)
            repeated = bool(star) or sum(split_input(each)[0] == base for each in form.inputs) > 1
            for number in range(1, 3) if star else [place + 1]:
                made[f"{base}_{number}" if repeated else base] = f"{base} {number} of row {row}"
        documents = len(made) - 1
        if "documents" in made:
            documents = 2 + row % 2
            made["documents"] = [f"document {place} of row {row}" for place in range(documents)]
        if form.labels != "none":
            made["label"] = label_of(form.labels, row, documents)
        rows.append(made)
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(folder, backbone, rows, loss, *, columns: Mapping[str, str] | None = None, **training):
    encoder = {"name": "cross-encoder", "model": str(backbone)}
    return {
        "encoder": encoder,
        "data": {"train": {"path": write(folder / "train.jsonl", rows), **({"columns": columns} if columns else {})}},
        "loss": loss,
        "training": {"batch_size": 4, "learning_rate": 1e-3, "save_strategy": "no", **training},
        "output": str(folder / "run"),
    }


@pytest.mark.parametrize("name", CROSS)
def test_a_trained_model_gives_sentence_transformers_the_same_scores(name, tmp_path, backbone):
    library = pytest.importorskip("sentence_transformers", reason="the extra sentence-transformers")
    form = losskit.get("loss", name).card.formats[0]
    given = recipe(tmp_path, backbone, rows_of(form), {"name": name, **SETTINGS.get(name, {})})
    if form.outputs == "classes":
        given["encoder"]["num_labels"] = len(CLASSES)
    run = losskit.train(given)
    before, after = (load_file(folder / "model.safetensors") for folder in (backbone, run.path))
    assert not torch.equal(
        before["encoder.layer.0.output.dense.weight"], after["bert.encoder.layer.0.output.dense.weight"]
    )
    pairs = [(f"question {row}", f"text {row} of row {row} and more" * (1 + row % 2)) for row in range(5)]
    ours, theirs = run.encoder.encode(pairs), library.CrossEncoder(str(run.path), device="cpu").predict(pairs)
    assert ours.shape == theirs.shape == ((5,) if form.outputs == 1 else (5, len(CLASSES)))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    if form.outputs == "classes":
        config = json.loads((run.path / "config.json").read_text())
        assert config["id2label"] == {str(place): name for place, name in enumerate(CLASSES)}


def test_classes_stand_where_the_encoder_has_them(tmp_path, backbone):
    encoder = CrossEncoder(backbone, num_labels=3)
    assert encoder.classes == ()
    encoder.classes = ("neutral", "contradiction", "entailment")
    encoder.save(tmp_path / "nli")
    assert losskit.load(tmp_path / "nli").classes == encoder.classes
    rows = [{"text_1": f"a {row}", "text_2": f"b {row}", "label": "entailment"} for row in range(ROWS)]
    run = losskit.train(recipe(tmp_path, tmp_path / "nli", rows, "cross-entropy", epochs=4))
    pairs = [(row["text_1"], row["text_2"]) for row in rows]
    scores = [torch.from_numpy(each.encode(pairs)).softmax(1).mean(0) for each in (encoder, run.encoder)]
    assert (scores[1] - scores[0]).argmax() == 2
    foreign = [*rows, {"text_1": "a", "text_2": "b", "label": "other"}]
    with pytest.raises(DataError, match=r"expected classes of the encoder \(neutral, .*\), got other"):
        losskit.train(
            recipe(tmp_path, tmp_path / "nli", foreign, "cross-entropy") | {"output": str(tmp_path / "other")}
        )
    with pytest.raises(losskit.ModelError, match="expected a name for each of its 3 outputs, got yes, no"):
        encoder.classes = ("yes", "no")


@pytest.fixture
def preprocessed(monkeypatch):
    """Counts calls of a cross-encoder's tokenizer in this process; workers count in copies of their own."""
    counts = [0]
    original = CrossEncoder.preprocess

    def preprocess(self, *args, **kwargs):
        counts[0] += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(CrossEncoder, "preprocess", preprocess)
    return counts


def trained_by_recipe(folder, backbone, loss, workers):
    run = losskit.train(recipe(folder, backbone, PAIRS, loss, dataloader_num_workers=workers, seed=7))
    return load_file(run.path / "model.safetensors")


def cross_trainer(folder, backbone, loss, **given):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CrossEncoder(backbone)
    options = {
        "per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 1e-3, "save_strategy": "no", "seed": 7,
        "use_cpu": True, "disable_tqdm": True, "report_to": "none",
    }  # fmt: skip
    args = TrainingArguments(str(folder), **options | given)
    return Trainer(loss=losskit.build(loss, encoder), train_dataset=PAIRS, args=args)


def trained_by_trainer(folder, backbone, loss, workers):
    trainer = cross_trainer(folder, backbone, loss, dataloader_num_workers=workers)
    trainer.train()
    return trainer.encoder.state_dict()


DRAWN = {"name": "cross-multiple-negatives-ranking", "num_negatives": 2}


@pytest.mark.parametrize("train", [trained_by_recipe, trained_by_trainer])
def test_workers_form_and_tokenise_the_pairs(train, tmp_path, backbone, preprocessed):
    states = []
    for workers in (0, 1):
        (tmp_path / str(workers)).mkdir()
        preprocessed[0] = 0
        states.append(train(tmp_path / str(workers), backbone, DRAWN, workers))
        assert preprocessed[0] == (0 if workers else 3)
    # Draws follow from seed and texts, so it is the very same training.
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_pairs_are_drawn_alike_after_a_resume(tmp_path, backbone):
    trainer = cross_trainer(tmp_path, backbone, DRAWN, save_strategy="steps", save_steps=2, max_steps=5)
    trainer.train()
    resumed = cross_trainer(tmp_path, backbone, DRAWN, max_steps=5)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected, got = trainer.encoder.state_dict(), resumed.encoder.state_dict()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_batches_whose_texts_are_negatives_hold_no_text_twice():
    assert needs_distinct_texts(losskit.build(DRAWN, ToyEncoder("cross-encoder")))


def trained(folder, backbone, rows, columns=None):
    run = losskit.train(recipe(folder, backbone, rows, DRAWN, columns=columns))
    return load_file(run.path / "model.safetensors")


@pytest.fixture(scope="module")
def plainly_trained(tmp_path_factory, backbone):
    """The weights that pairs give under the names of the card."""
    return trained(tmp_path_factory.mktemp("plain"), backbone, PAIRS)


TAKEN = {"prompt": "p", "task": 1, "label": 0, "scores": [1.0], "dataset_name": "d", "return_loss": True}
"""Names that trainers know, and values that would matter to them."""


@pytest.mark.parametrize("names", [("prompt", "task"), ("label", "score"), ("labels", "dataset_name")], ids="-".join)
def test_a_column_is_a_column_whatever_it_is_called(names, tmp_path, backbone, plainly_trained):
    renamed = [dict(zip(names, row.values(), strict=True)) for row in PAIRS]
    got = trained(tmp_path, backbone, renamed, {"anchor": names[0], "positive": names[1]})
    assert all(torch.equal(value, got[name]) for name, value in plainly_trained.items())


def test_columns_that_nobody_reads_change_nothing(tmp_path, backbone, plainly_trained):
    got = trained(tmp_path, backbone, [{**TAKEN, **row} for row in PAIRS])
    assert all(torch.equal(value, got[name]) for name, value in plainly_trained.items())


class Failing(Loss):
    """Raises a TypeError, and counts how often it was asked."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["cross-encoder"])
    asked = 0

    def compute(self, columns, labels, rows):
        self.asked += 1
        return columns[0].embedding + None


def test_a_type_error_is_raised_once_and_by_name(tmp_path):
    loss = Failing(ToyEncoder("cross-encoder"))
    args = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, disable_tqdm=True, report_to="none")
    with pytest.raises(LossError, match="Failing on this batch: got TypeError: unsupported operand"):
        Trainer(loss=loss, train_dataset=PAIRS, args=args).train()
    assert loss.asked == 1


def test_refuses_columns_that_a_trainer_took_for_its_own():
    loss = losskit.build(DRAWN, ToyEncoder("cross-encoder"))
    for name in ("prompt", "task"):
        with pytest.raises(LossError, match=rf"the {name} for Cross.*: expected one text, got a list, .*Fix: rename"):
            loss([["a"], ["b"]], **{name: ["c"]})
    assert loss([["a", "b"], ["c", "d"]], prompt="p", task="t").isfinite()


def test_lists_and_sample_weights(tmp_path, backbone):
    """A row of weight 0 teaches nothing, whatever the lengths of lists."""
    documents = [[f"document {place} of {row}" for place in range(1 + (row + 1) % 3)] for row in range(ROWS)]
    rows = [
        {"query": f"query {row}", "documents": texts, "label": [float(place == 0) for place in range(len(texts))],
         "importance": float(row % 3)}
        for row, texts in enumerate(documents)
    ]  # fmt: skip
    others = [row if row["importance"] else {**row, "label": row["label"][::-1]} for row in rows]
    assert others != rows
    states = []
    for name, given in (("one", rows), ("other", others)):
        (tmp_path / name).mkdir()
        run = losskit.train(
            recipe(tmp_path / name, backbone, given, "margin-mse", columns={"weight": "importance"}, batch_size=ROWS)
        )
        states.append(load_file(run.path / "model.safetensors"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_collator_makes_one_column_of_pairs_with_weights():
    rows = [{"query": "q", "documents": ["a", "b"], "label": [1, 0], "w": 2.0}, {"query": "r", "documents": ["c"],
             "label": [1], "w": 0.5}]  # fmt: skip
    loss = losskit.build("list-net", ToyEncoder("cross-encoder"))
    made = Collator(loss, match(list(rows[0]), loss.formats, {"weight": "w"}, sample=rows))(rows)
    (features,) = made["inputs"]
    assert features["lists"] == (2, 1)
    assert features["weight"].tolist() == [2.0, 0.5]
    assert made["labels"].tolist() == [1.0, 0.0, 1.0]
