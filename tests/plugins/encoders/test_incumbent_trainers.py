"""Losses inside the sentence-transformers trainers train exactly as that library's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BertForSequenceClassification, BertModel, PreTrainedTokenizerBase, TrainerCallback

import losskit
from losskit import Card, Direct, Format, GradCache, Loss, LossError

from .conftest import TEXTS, bert_config

sentence_transformers = pytest.importorskip("sentence_transformers", reason="the extra sentence-transformers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.quick,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
PAIRS = Dataset.from_dict(
    {"anchor": [f"{t} {i}" for i, t in enumerate(TEXTS * 2)], "positive": TEXTS[1:] * 2 + TEXTS[:2]}
)
DISTINCT = Dataset.from_dict(
    {name: [f"{t} {name} {i}" for i, t in enumerate(TEXTS)] for name in ("question", "answer")}
)
SCORED = Dataset.from_dict({"a": TEXTS * 2, "b": (TEXTS[2:] + TEXTS[:2]) * 2, "score": [0.1 * i for i in range(10)]})
LISTS = Dataset.from_dict(
    {
        "query": TEXTS[:4],
        "docs": [TEXTS[1:3], TEXTS[2:5], TEXTS[:1] + TEXTS[3:], TEXTS[:2]],
        "labels": [[1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0]],
    }
)


def dense(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Any:
    from sentence_transformers import SentenceTransformer

    if not folder.exists():
        torch.manual_seed(1)
        BertModel(bert_config(**NO_DROPOUT)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return SentenceTransformer(str(folder), device="cpu")


def reranker(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Any:
    from sentence_transformers import CrossEncoder

    if not folder.exists():
        torch.manual_seed(1)
        BertForSequenceClassification(bert_config(num_labels=1, **NO_DROPOUT)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu")


FAMILIES = {
    "SentenceTransformer": "sentence_transformer",
    "CrossEncoder": "cross_encoder",
    "SparseEncoder": "sparse_encoder",
    "MultiVectorEncoder": "multi_vector_encoder",
}


def train(
    model: Any,
    loss: nn.Module,
    data: Dataset,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    **options: Any,
) -> Mapping[str, torch.Tensor]:
    name = type(model).__name__
    family = importlib.import_module(f"sentence_transformers.{FAMILIES[name]}")
    args = getattr(family, f"{name}TrainingArguments")(
        str(folder / "out"), per_device_train_batch_size=4, max_steps=3, learning_rate=0.05, report_to="none",
        save_strategy="no", use_cpu=True, seed=3, disable_tqdm=True, max_grad_norm=1e9, optim="sgd", **options,
    )  # fmt: skip
    trainer = getattr(family, f"{name}Trainer")
    trainer(model=model, args=args, train_dataset=data, loss=loss, callbacks=list(callbacks)).train()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def incumbent(name: str) -> Callable[[Any], nn.Module]:
    from sentence_transformers.cross_encoder import losses as rerankers
    from sentence_transformers.sentence_transformer import losses

    return {
        "multiple-negatives-ranking": lambda model: losses.MultipleNegativesRankingLoss(model),
        "cosent": lambda model: losses.CoSENTLoss(model),
        "matryoshka": lambda model: losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), [16, 8]),
        "list-net": lambda model: rerankers.ListNetLoss(model),
        "in-batch": lambda model: rerankers.MultipleNegativesRankingLoss(model, num_negatives=None),
    }[name]


@pytest.mark.parametrize(
    ("name", "expression", "data", "make"),
    [
        ("multiple-negatives-ranking", "multiple-negatives-ranking", PAIRS, dense),
        ("cosent", "cosent", SCORED, dense),
        (
            "matryoshka",
            # 6.2 brings cut embeddings to unit length, which changes nothing under cosine.
            {"name": "matryoshka", "dims": [16, 8], "normalize": True, "loss": "multiple-negatives-ranking"},
            PAIRS,
            dense,
        ),
        ("list-net", "list-net", LISTS, reranker),
        ("in-batch", {"name": "cross-multiple-negatives-ranking", "num_negatives": None}, DISTINCT, reranker),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trains_as_the_incumbent(
    name: str, expression: Any, data: Dataset, make: Any, tmp_path: Path, word_piece: PreTrainedTokenizerBase
) -> None:
    folder = tmp_path / "model"
    start = make(folder, word_piece)
    theirs = train(start, incumbent(name)(start), data, tmp_path)
    for execution in (Direct(), Direct(tokens=40), GradCache(mini_batch_size=3)):
        model = make(folder, word_piece)
        ours = train(model, losskit.build(expression, model, execution=execution), data, tmp_path)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if value.is_floating_point():
                assert (ours[key] - value).abs().max() < 2e-5, (key, execution)
        fresh = make(folder, word_piece).state_dict()
        assert any((ours[key] - fresh[key]).abs().max() > 1e-3 for key in fresh if fresh[key].is_floating_point())


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("query", "prompt"), "the prompt for CrossMultipleNegativesRankingLoss: expected one text, got a list"),
        (("query", "passage", "task"), "the task for CrossMultipleNegativesRankingLoss: expected one text, got a list"),
    ],
    ids=["prompt", "task"],
)
def test_refuses_columns_that_the_trainer_takes_for_its_own(
    columns: tuple[str, ...], expected: str, tmp_path: Path, word_piece: PreTrainedTokenizerBase
) -> None:
    model = reranker(tmp_path / "model", word_piece)
    data = Dataset.from_dict({name: [f"{text} {name}" for text in TEXTS] for name in columns})
    with pytest.raises(LossError, match=f"{expected}, which the trainer takes from a column.*Fix: rename that column"):
        train(model, losskit.build("cross-multiple-negatives-ranking", model), data, tmp_path)


class Failing(Loss):
    """Raises a TypeError, and counts how often it was asked."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["cross-encoder"])
    asked = 0

    def compute(self, columns: Any, labels: Any, rows: Any) -> Any:
        self.asked += 1
        return columns[0].embedding + None


def test_a_type_error_does_not_make_the_trainer_call_again(tmp_path: Path, word_piece: PreTrainedTokenizerBase) -> None:
    model = reranker(tmp_path / "model", word_piece)
    loss = Failing(model)
    with pytest.raises(LossError, match="Failing on this batch: got TypeError: unsupported operand"):
        train(model, loss, DISTINCT, tmp_path)
    assert loss.asked == 1
