"""A tiny SentenceTransformer in float64, on which the incumbent's losses and the compat ones run alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertLMHeadModel,
    PreTrainedTokenizerFast,
)

from losskit.testing import Result, total

WIDTH = 16
COLUMNS = [
    ["a cat sat on the mat", "dogs bark", "quick foxes jump", "lazy cats sleep", "one fox", "the dogs sat"],
    ["cats sit", "a dog barks at the fox", "foxes are quick", "the cat sleeps", "a single fox", "dogs sit"],
    ["dogs sit", "cats sleep on the mat", "lazy dogs", "foxes jump over one dog", "two cats", "a quick cat"],
    ["mat", "the fox", "sat on the mat", "a lazy fox", "bark", "jump over the cat"],
]
SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}


def write_folder(folder: Path, seed: int = 5) -> str:
    """A random BERT with a word tokenizer, as transformers writes it."""
    return _write(folder, seed, BertLMHeadModel, [text for column in COLUMNS for text in column], is_decoder=False)


def write_masked(folder: Path) -> str:
    """A random BERT that fills in masked words, which is a SPLADE model."""
    return _write(folder, 5, BertForMaskedLM, [text for column in COLUMNS for text in column])


def write_cross_encoder(folder: Path, texts: Sequence[str], num_labels: int = 1) -> str:
    """A random BERT with a classifier and a tokenizer of these words."""
    return _write(folder, 5, BertForSequenceClassification, texts, num_labels=num_labels)


def _write(folder: Path, seed: int, kind: type[Any], texts: Sequence[str], **settings: Any) -> str:
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=list(SPECIAL.values()))
    words.train_from_iterator(texts, trainer)
    ends = [(token, words.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24, **SPECIAL)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        initializer_range=0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def sentence_transformer(folder: str) -> Any:
    """The folder's model with mean pooling, in float64 and in training mode."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(folder)
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    return model.double().train()


def run(model: Any, loss: Any, columns: int, labels: Any = None) -> Result:
    """The loss of texts, with the gradients of the model and of what the loss owns beside it, in the loss's order."""
    features = [model.preprocess(column) for column in COLUMNS[:columns]]
    of_model = list(model.parameters())
    own = [p for p in loss.parameters() if p.requires_grad and all(p is not other for other in of_model)]
    parameters = [*of_model, *own]
    for parameter in parameters:
        parameter.grad = None
    value = total(loss(features, labels))
    value.backward()
    return Result(value.detach(), tuple(_gradient(parameter) for parameter in parameters))


def embeddings(columns: int, rows: int = 6) -> list[Tensor]:
    """Random embeddings in float64, the same each time."""
    generator = torch.Generator().manual_seed(columns)
    drawn = [torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64) for _ in range(columns)]
    return [column.requires_grad_() for column in drawn]


def share_owned(theirs: Any, ours: Any, names: Sequence[str]) -> None:
    """Give ours the parameters that the original drew."""
    for name in names:
        getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
