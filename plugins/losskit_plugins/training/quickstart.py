"""The quickstart: a tiny encoder learns to match questions with answers, from nothing and without a network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["OUTPUT", "is_quickstart", "one_thread", "recipe", "write_inputs"]

OUTPUT = Path("runs/quickstart")
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
INPUTS = "quickstart"
"""The folder, inside the run, of the texts and the untrained encoder."""


def recipe(run: Path) -> dict[str, Any]:
    """The quickstart's recipe, for inputs that lie in a run's folder."""
    inputs = run / INPUTS
    columns = {"anchor": "question", "positive": "answer"}
    return {
        "encoder": {"name": "dense", "model": str(inputs / "encoder"), "pooling": "mean"},
        "data": {
            "train": {"path": str(inputs / "train.jsonl"), "columns": columns},
            "eval": {"path": str(inputs / "eval.jsonl"), "columns": columns, "metrics": ["retrieval", "accuracy"]},
        },
        "loss": {"name": "multiple-negatives-ranking", "scale": 20},
        "training": {
            "epochs": 8, "batch_size": 32, "learning_rate": 5e-4, "log_every": 5, "eval_strategy": "epoch",
            "save_strategy": "no",
        },
    }  # fmt: skip


def write_inputs(run: Path) -> None:
    """Write texts, a tokenizer trained on them, and an untrained transformer into a run's folder."""
    inputs = run / INPUTS
    inputs.mkdir(parents=True, exist_ok=True)
    for name in ("train.jsonl", "eval.jsonl"):
        (inputs / name).write_text(_packaged(name), encoding="utf-8")
    rows = [json.loads(line) for line in _packaged("train.jsonl").splitlines()]
    _write_encoder(inputs / "encoder", (text for row in rows for text in row.values()))


def is_quickstart(run: Path) -> bool:
    """Whether a folder holds a run of the quickstart, finished or not."""
    return (run / INPUTS / "encoder" / "config.json").is_file()


def _packaged(name: str) -> str:
    return files("losskit_plugins.training").joinpath("quickstart_data", name).read_text(encoding="utf-8")


def _write_encoder(folder: Path, texts: Iterable[str]) -> None:
    """A WordPiece tokenizer of the texts' own words, and a BERT of two layers with random weights."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from losskit_plugins.encoders.reading import quiet

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_word_pieces(texts),
        model_max_length=64,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    )
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _word_pieces(texts: Iterable[str]) -> Any:
    """WordPiece over the texts' own words, and letters for any other; the same on every run."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *sorted(words - set(letters))]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    cls, sep = SPECIAL["cls"], SPECIAL["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
    )
    return tokenizer


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Products this small gain nothing from a second thread, and lose much where threads wait for busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
