"""The SPLADE encoder: a masked-language model whose logits, pooled over tokens, weigh the terms of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import SparseEncoderView
from .backbone import requested_parts
from .sparse_transformer import SparseTransformerEncoder
from .splade_parts import check_pooling, gather_splade_parts
from .splade_pooling import SpladePooling, ends_linearly
from .transformer_encoder import Module
from .vocabulary_head import Activation, TermPooling

__all__ = ["SpladeEncoder"]


class SpladeEncoder(SparseTransformerEncoder):
    """A weight for every term of the vocabulary: logits of a masked-language model, pooled over tokens.

    Options that are None are what the model folder says. The logits of all tokens are never held at once.

    Args:
        model: a folder (of sentence-transformers or transformers), a name of the Hugging Face hub, or a
            transformers model with a vocabulary head.
        pooling: of tokens; a plain transformers folder means "max".
        activation: of logits: "relu" is log(1 + max(x, 0)), "log1p-relu" takes that logarithm twice.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        max_length: the most tokens of a text.
        similarity: what the vectors are meant to be compared by; "dot" where the folder is silent.
        max_active_dims: how many entries of a vector `encode` keeps, the largest; `forward` gives all.
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.

    >>> from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    >>> size = dict(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    >>> encoder = SpladeEncoder(BertForMaskedLM(BertConfig(**size)), tokenizer=tokenizer)
    >>> encoder.encode(["a b", "b"]).shape
    (2, 4)
    """

    card = Card(
        encoders=["sparse"],
        formula="max over tokens j of log(1 + max(w_v . h_j + b_v, 0)), for every term v",
        citation="""@inproceedings{formal-2022-distillation,
    title = "From Distillation to Hard Negative Sampling: Making Sparse Neural {IR} Models More Effective",
    author = "Formal, Thibault and Lassance, Carlos and Piwowarski, Benjamin and Clinchant, St{\\'e}phane",
    booktitle = "Proceedings of the 45th International ACM SIGIR Conference",
    year = "2022",
    url = "https://arxiv.org/abs/2205.04733",
}""",
    )

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        pooling: TermPooling | None = None,
        activation: Activation | None = None,
        prompts: Mapping[str, str] | None = None,
        max_length: int | None = None,
        similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None,
        max_active_dims: int | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        options = {
            "model": model,
            "pooling": pooling,
            "activation": activation,
            "prompts": prompts,
            "max_length": max_length,
            "similarity": similarity,
            "max_active_dims": max_active_dims,
        }
        check_pooling(pooling, activation)
        parts = gather_splade_parts(model, tokenizer, max_length, trust_remote_code)
        super().__init__(
            parts.transformer,
            parts.tokenizer,
            parts.settings,
            parts.run,
            parts.dimension,
            prompts,
            similarity,
            max_active_dims,
            options,
        )
        self.pooling = SpladePooling(pooling or parts.pooling.pooling, activation or parts.pooling.activation)
        self._linear = ends_linearly(self.transformer)

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Weigh the terms of n texts.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "input_ids".
        """
        parts = requested_parts(features, needs, self.padding)
        inputs = {name: features[name] for name in self._inputs if name in features}
        weights = self.pooling(self.transformer, inputs, features["attention_mask"], self._linear)
        return Output(weights, parts=parts)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a `SparseEncoder`; None for anything else."""
        return SparseEncoderView.adapt(model)

    def _modules_after(self) -> Sequence[Module]:
        return [(self.pooling.kind, self.pooling.write)]
