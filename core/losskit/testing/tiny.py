"""A tiny transformer, for encoders that begin with a model folder."""

from __future__ import annotations

import atexit
import inspect
import shutil
import string
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..building import annotation_of, members

__all__ = ["options_for", "tiny_folder"]

TOKENS = 64
"""The most tokens of a text, or of a pair."""
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def options_for(cls: type, *, dropout: float = 0.1) -> dict[str, Any]:
    """The options that make an encoder on the tiny transformer: its folder, if there is a `model` that may be one.

    >>> class Encoder:
    ...     def __init__(self, model: str | Path, pooling: str = "mean") -> None: ...
    >>> list(options_for(Encoder))
    ['model']
    """
    parameter = inspect.signature(cls).parameters.get("model")
    if parameter is None or not {str, Path, Any} & set(members(annotation_of(cls, parameter))):
        return {}
    return {"model": str(tiny_folder(dropout))}


def tiny_folder(dropout: float = 0.1) -> Path:
    """The folder of a BERT for masked language modelling with random weights, the same in every process.

    Its tokenizer knows letters and digits, so that every English text has tokens. It lasts as long as the process.
    """
    return _written(dropout)


@cache
def _written(dropout: float) -> Path:
    from transformers import BertConfig, BertForMaskedLM

    folder = Path(mkdtemp(prefix="losskit-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tokenizer = _tokenizer()
    config = BertConfig(
        architectures=["BertForMaskedLM"],
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=TOKENS,
        initializer_range=0.3,  # so that texts differ by more than rounding
        pad_token_id=0,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights: dict[str, Tensor] = dict(model.named_parameters())  # tied ones once
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters), *string.punctuation, "word"]
    places = {piece: place for place, piece in enumerate(pieces)}
    words = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, places[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=words, model_max_length=TOKENS, model_input_names=names, **SPECIAL)
