"""The dense encoder: a transformer, pooling, and what follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import SentenceTransformerView
from .backbone import last_hidden_state, requested_parts
from .dense_parts import gather_parts
from .head import with_normalization
from .options import check_choice, own_number, vector_similarity
from .pooling import POOLINGS, Pooling, PoolingMode
from .transformer_encoder import Module, TransformerEncoder, stacked
from .vector_head import VectorHead

__all__ = ["DenseEncoder"]


class DenseEncoder(TransformerEncoder):
    """One vector per text: a transformer, pooling, optional projections and normalisation.

    Options that are None are what the model folder says.

    Args:
        model: a folder (of sentence-transformers or transformers), a name of the Hugging Face hub, or a
            transformers model.
        pooling: of tokens; a plain transformers folder means "mean", of a causal language model "last-token".
        normalize: whether vectors are scaled to unit length at the end.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        max_length: the most tokens of a text.
        similarity: what the vectors are meant to be compared by; "cosine" where the folder is silent.
        truncate_dim: how many leading dimensions `encode` gives; `forward` gives all.
        layers: how many of the transformer's layers to keep, the first; the rest is not read, nor saved again.
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.

    >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    >>> size = dict(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    >>> encoder = DenseEncoder(BertModel(BertConfig(**size)), pooling="mean", tokenizer=tokenizer)
    >>> encoder.encode(["a b", "b"]).shape
    (2, 8)
    """

    card = Card(
        encoders=["dense"],
        formula="normalize(pool(transformer(text)))",
        citation="""@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-{BERT}: Sentence Embeddings using {S}iamese {BERT}-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing",
    year = "2019",
    url = "https://arxiv.org/abs/1908.10084",
}""",
    )
    family = "dense"

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        max_length: int | None = None,
        similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None,
        truncate_dim: int | None = None,
        layers: int | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        options = {
            "model": model,
            "pooling": pooling,
            "normalize": normalize,
            "prompts": prompts,
            "max_length": max_length,
            "similarity": similarity,
            "truncate_dim": truncate_dim,
            "layers": layers,
        }
        check_choice("pooling", pooling, tuple(POOLINGS))
        parts = gather_parts(model, tokenizer, max_length, layers, trust_remote_code)
        settings = parts.settings
        super().__init__(parts.transformer, parts.tokenizer, settings, parts.run, prompts, options)
        pooled = parts.pooling
        if pooling is not None:
            pooled = Pooling(pooled.token_dimension, [pooling], pooled.include_prompt)
        after = with_normalization(parts.after, normalize)
        self.head = VectorHead(parts.before, pooled, after, next(parts.transformer.parameters()))
        self.similarity = vector_similarity(similarity, settings, default="cosine")
        self.truncate_dim = own_number("truncate_dim", truncate_dim, settings)
        self.dimension = self.head.dimension

    @property
    def pooling(self) -> Pooling:
        """What makes one vector of tokens."""
        return self.head.pooling

    @property
    def steps(self) -> nn.ModuleList:
        """What comes after it."""
        return self.head.steps

    @property
    def normalized(self) -> bool:
        """Whether the last step scales vectors to unit length."""
        return self.head.normalized

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed n texts.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "layers", every layer's tokens (embedding layer first) taken through pooling and all steps;
                "input_ids".
        """
        parts = requested_parts(features, [need for need in needs if need != "layers"], self.padding)
        asked = {"output_hidden_states": True} if "layers" in needs else {}
        made = self._called(features, **asked)
        tokens = last_hidden_state(made, self.transformer)
        layers = tuple(self.head(layer, features) for layer in made.hidden_states) if asked else ()
        return Output(self.head(tokens, features), layers=layers, parts=parts)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a `SentenceTransformer`; None for anything else."""
        return SentenceTransformerView.adapt(model)

    def _results(self, record: Output) -> Sequence[Tensor]:
        """Vectors, truncated."""
        assert record.embedding is not None
        return record.embedding[:, : self.truncate_dim].float().cpu().unbind()

    def _collected(self, results: Sequence[Tensor]) -> NDArray[np.float32]:
        """[n, dimension], or [n, truncate_dim]."""
        return stacked(results, (min(self.dimension, self.truncate_dim or self.dimension),))

    def _own_settings(self) -> tuple[str, Mapping[str, Any]]:
        own: dict[str, Any] = {"similarity_fn_name": self.similarity}
        if self.truncate_dim is not None:
            own["truncate_dim"] = self.truncate_dim
        return "SentenceTransformer", own

    def _modules_after(self) -> Sequence[Module]:
        return self.head.modules_after()

    def _about_prompt(self, count: int, prompt: str) -> Features:
        return self.head.prompt_features(count, self.tokenizer, prompt)
