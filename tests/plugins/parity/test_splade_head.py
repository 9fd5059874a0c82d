"""SPLADE's pooling and weights of queries beside sentence-transformers 6.2: equal, or in the table of differences."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from parity import require_different
from tokenizers import Tokenizer as Words
from tokenizers import models, pre_tokenizers
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from losskit import LosskitError
from losskit.testing import Result, differentiate, require_equal
from losskit_plugins.encoders.query_weights import QueryWeights
from losskit_plugins.encoders.splade_pooling import SpladePooling
from losskit_plugins.encoders.tokenizer import Tokenizer

original = pytest.importorskip("sentence_transformers.sparse_encoder.modules")

TERMS = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
TEXTS = ["a b c a", "d", "x y z e f g h", "i j"]
KINDS = [(pooling, activation) for pooling in ("max", "sum") for activation in ("relu", "log1p-relu")]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    words = Words(models.WordLevel({term: place for place, term in enumerate(TERMS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)


def model(dtype: torch.dtype) -> BertForMaskedLM:
    torch.manual_seed(4)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    made = BertForMaskedLM(BertConfig(vocab_size=len(TERMS), initializer_range=0.5, **sizes)).eval()
    torch.nn.init.normal_(made.cls.predictions.bias, std=0.3)
    return made.to(dtype)


def features() -> dict[str, Tensor]:
    tokens = tokenizer()(TEXTS, padding=True, return_tensors="pt")
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


def summed(embedding: Tensor) -> Tensor:
    """A number to which every entry counts differently."""
    direction = torch.linspace(-1, 2, embedding.numel(), dtype=torch.float64).view(embedding.shape)
    return (embedding.to(torch.promote_types(embedding.dtype, torch.float32)) * direction).sum()


def theirs(pooling: str, activation: str, dtype: torch.dtype = torch.float64) -> Result:
    transformer, inputs = model(dtype), features()
    pool = original.SpladePooling(pooling, activation.replace("-", "_")).train()
    logits = transformer(**inputs).logits
    made = pool({"token_embeddings": logits, "attention_mask": inputs["attention_mask"]})["sentence_embedding"]
    return differentiate(summed(made), list(transformer.parameters()))


def ours(pooling: str, activation: str, dtype: torch.dtype = torch.float64, linear: bool = True) -> Result:
    transformer, inputs = model(dtype), features()
    made = SpladePooling(pooling, activation)(transformer, inputs, inputs["attention_mask"], linear)
    return differentiate(summed(made), list(transformer.parameters()))


@pytest.mark.parametrize("linear", [True, False], ids=["in pieces", "whole logits"])
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_pooling(pooling, activation, linear):
    require_equal("pooled logits", theirs(pooling, activation), ours(pooling, activation, linear=linear))


@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_pooling_in_float32(pooling, activation):
    """No farther from the truth in float64 than 1.5 times the original, or 1e-5."""
    truth = theirs(pooling, activation).gradients
    errors = []
    for run in (theirs, ours):
        found = run(pooling, activation, torch.float32).gradients
        scale = max(float(each.abs().max()) for each in truth)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(found, truth, strict=True)) / scale)
    assert errors[1] <= max(1.5 * errors[0], 1e-5), errors


def weighted(make: Callable[[Tensor], Any], **changes: Tensor) -> Result:
    """The embeddings of queries and the gradient of the weights."""
    weight = torch.linspace(-1, 3, len(TERMS), dtype=torch.float64)
    static, inputs = make(weight), {**features(), **changes}
    return differentiate(summed(static(inputs)), [next(static.parameters())])


class Theirs(original.SparseStaticEmbedding):
    def forward(self, inputs):
        return super().forward(dict(inputs))["sentence_embedding"]


class Ours(QueryWeights):
    def forward(self, inputs):
        return super().forward(inputs["input_ids"], inputs["attention_mask"])


def their_weights(weight: Tensor) -> Theirs:
    return Theirs(tokenizer(), weight)


def our_weights(weight: Tensor) -> Ours:
    return Ours(Tokenizer(copy.deepcopy(tokenizer())), weight)


def test_weights_of_queries():
    require_equal("weights of queries", weighted(their_weights), weighted(our_weights))


# Differences


def half_precision():
    return (
        lambda: theirs("max", "relu", torch.bfloat16),
        lambda: ours("max", "relu", torch.bfloat16),
    )


def unknown_tokens():
    """Weights from a file that names a token which the tokenizer has not."""
    named = {"a": 2.0, "zebra": 7.0}

    def of_theirs():
        with TemporaryDirectory() as place:
            file = Path(place) / "idf.json"
            file.write_text(json.dumps(named))
            return original.SparseStaticEmbedding.from_json(str(file), tokenizer()).weight.tolist()

    def of_ours():
        weights = our_weights(torch.zeros(len(TERMS)))
        try:
            weights.assign(named)
        except LosskitError as error:
            return str(error)
        return weights.weight.tolist()

    return of_theirs, of_ours


def padding_token():
    """A query that holds the padding token as a word, before padding."""
    changes = {"input_ids": torch.tensor([[2, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    return lambda: weighted(their_weights, **changes), lambda: weighted(our_weights, **changes)


DIFFERENCES = {
    ("SpladePooling", "half-precision"): half_precision,
    ("SparseStaticEmbedding", "unknown-tokens"): unknown_tokens,
    ("SparseStaticEmbedding", "padding-token"): padding_token,
}


@pytest.mark.parametrize("case", DIFFERENCES, ids=" ".join)
def test_differences(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())
