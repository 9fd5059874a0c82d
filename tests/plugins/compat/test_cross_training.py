"""The incumbent's trainer trains a cross-encoder with each loss of `losskit_compat.cross_encoder`."""

from __future__ import annotations

import pytest
import torch
from compat import write_cross_encoder

sentence_transformers = pytest.importorskip("sentence_transformers")
datasets = pytest.importorskip("datasets")
losses = pytest.importorskip("losskit_compat.cross_encoder.losses")

QUERIES = ["who eats bamboo", "where does the seine flow", "what do owls hunt", "how long is a mile"]
ANSWERS = ["pandas eat bamboo", "the seine flows through paris", "owls hunt mice", "a mile is longer than a kilometre"]
OTHERS = ["owls eat mice", "the rhine flows through cologne", "pandas hunt bamboo", "a yard is three feet"]
DOCUMENTS = [[answer, *OTHERS[: 1 + row]] for row, answer in enumerate(ANSWERS)]
GRADES = [[2, *[0] * (1 + row)] for row in range(4)]

PAIRS = {"query": QUERIES * 2, "answer": ANSWERS + OTHERS}
LISTS = {"query": QUERIES, "docs": DOCUMENTS, "labels": GRADES}
RANKING = {"query": QUERIES, "answer": ANSWERS}
TRIPLETS = {"query": QUERIES, "positive": ANSWERS, "negative": OTHERS}


def by_rank(mask):
    """A discount of the user's own."""
    return (1.0 / (1 + mask.cumsum(dim=-1))) * mask


EXAMPLES = {
    "ADRMSELoss": (LISTS, {}),
    "BinaryCrossEntropyLoss": ({**PAIRS, "label": [1] * 4 + [0] * 4}, {"pos_weight": torch.tensor(2.0)}),
    "CachedMultipleNegativesRankingLoss": (RANKING, {"mini_batch_size": 3}),
    "CrossEntropyLoss": ({**PAIRS, "label": [1, 2, 1, 2, 0, 0, 0, 0]}, {}),
    "LambdaLoss": (LISTS, {}),
    "ListMLELoss": (LISTS, {}),
    "ListNetLoss": (LISTS, {"mini_batch_size": 4}),
    "MSELoss": ({**PAIRS, "label": [0.9, 0.8, 1.0, 0.7, 0.3, 0.2, 0.1, 0.0]}, {}),
    "MarginMSELoss": ({**TRIPLETS, "label": [0.5, 1.5, 1.0, 2.0]}, {}),
    "MultipleNegativesRankingLoss": (TRIPLETS, {"num_negatives": 2}),
    "PListMLELoss": (LISTS, {"lambda_weight": by_rank}),
    "RankNetLoss": (LISTS, {"k": 3}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("cross")
    texts = [*QUERIES, *ANSWERS, *OTHERS]
    return {count: write_cross_encoder(made / str(count), texts, num_labels=count) for count in (1, 3)}


def built(name, model, options):
    if "lambda_weight" in options:
        options = {"lambda_weight": losses.PListMLELambdaWeight(rank_discount_fn=options["lambda_weight"])}
    return getattr(losses, name)(model, **options)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_trains_and_prints_its_settings(name, folders, tmp_path):
    columns, options = EXAMPLES[name]
    model = sentence_transformers.CrossEncoder(folders[3 if name == "CrossEntropyLoss" else 1], device="cpu")
    loss = built(name, model, options)
    arguments = sentence_transformers.CrossEncoderTrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=6, per_device_train_batch_size=4, learning_rate=0.003,
        report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1,
    )  # fmt: skip
    rows = datasets.Dataset.from_dict(columns)
    trainer = sentence_transformers.CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows, loss=loss
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    model.save_pretrained(str(tmp_path / "saved"))
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f"losskit_compat.cross_encoder.losses.{type(loss).__module__.rpartition('.')[2]}.{name}" in card
    assert '"activation_fn": "torch.nn.modules' in card


def test_every_loss_is_trained():
    assert sorted(EXAMPLES) == sorted(name for name in losses.__all__ if name.endswith("Loss"))
