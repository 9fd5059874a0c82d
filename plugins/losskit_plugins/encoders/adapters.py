"""Views of sentence-transformers objects as encoders; that library is never imported to recognise them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from losskit.errors import LossError, PluginError
from losskit.features import join, lengths, take
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .backbone import requested_parts
from .bags import join_bags, lengths_of_bags, take_bags
from .folder import replacing
from .inference import check_pairs, check_texts, evaluating
from .prompts import Prompts

__all__ = ["CrossEncoderView", "SentenceTransformerView"]

LIBRARY = "sentence_transformers"
UNADOPTED = ("SparseEncoder", "MultiVectorEncoder")
"""Classes of that library that would else be taken for a dense model."""


def loaded(module: str, name: str) -> type[Any] | tuple[()]:
    """A class of sentence-transformers, or a type that nothing is an instance of where it is not loaded."""
    found: type[Any] | tuple[()] = getattr(sys.modules.get(module), name, ())
    return found


class _View:
    """What both kinds of view share: the object itself, its tokenizer, and its folder format."""

    class_name = ""
    family = ""

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of such an object; None for anything else.

        Raises:
            LossError: an object of that library whose embeddings are of a family that no encoder here adopts yet.
        """
        for name in UNADOPTED:
            if isinstance(model, loaded(LIBRARY, name)):
                raise LossError(
                    f"a model of class {name}", expected="SentenceTransformer or CrossEncoder", got=name,
                    fix="its family has no encoder plugin yet; losskit list --kind encoder shows those there are",
                )  # fmt: skip
        if not isinstance(model, loaded(LIBRARY, cls.class_name)):
            return None
        return cls.of(model)

    @classmethod
    def of(cls, model: Any) -> Encoder:
        """The view of an object of the right class."""
        return cls(model)  # type: ignore[return-value]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a model folder with sentence-transformers.

        Raises:
            PluginError: that library is not installed.
        """
        try:
            import sentence_transformers
        except ImportError as error:
            raise PluginError(
                LIBRARY, expected="to be installed", got=str(error), fix="pip install losskit[sentence-transformers]"
            ) from error
        return cls(getattr(sentence_transformers, cls.class_name)(str(path)))

    def save(self, path: str | Path) -> None:
        """Write a model folder as the object itself does; what is no part of a model there stays."""
        with replacing(path) as folder:
            self.model.save_pretrained(str(folder), create_model_card=False)

    @property
    def tokenizer(self) -> Any:
        """The object's own."""
        return self.model.tokenizer

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text."""
        limit: int | None = self.model.max_seq_length
        return limit

    @property
    def padding(self) -> Mapping[str, int]:
        """What stands at padding, by feature."""
        tokenizer = self.tokenizer
        ids = {
            "input_ids": getattr(tokenizer, "pad_token_id", None),
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None),
        }
        return {name: value for name, value in ids.items() if value is not None}

    def decode(self, features: Features) -> list[str]:
        """The texts of features, as far as their tokens tell.

        Raises:
            LossError: tokens whose texts nobody can tell apart.
        """
        ids = features["input_ids"]
        if "cu_seq_lens_q" in features:  # all texts in one row, without padding
            bounds = features["cu_seq_lens_q"].tolist()
            ids = [ids[0, start:end] for start, end in pairwise(bounds)]
        elif ids.ndim != 2:
            raise LossError(
                "features of one row of tokens",
                expected="input_ids [n, t], to give their texts back",
                got=f"shape {list(ids.shape)}",
                fix="train with losskit.train, whose batches carry texts",
            )
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def _prompt(self, role: str, prompt: str | None) -> str:
        return Prompts(self.model.prompts, self.model.default_prompt_name).resolve(role, prompt)


class SentenceTransformerView(_View):
    """A `SentenceTransformer` object seen as a dense encoder."""

    class_name = "SentenceTransformer"
    family = "dense"

    @classmethod
    def of(cls, model: Any) -> Encoder:
        """A view; of static embeddings, also as one of several routes, one that can cut their features."""
        static = loaded("sentence_transformers.sentence_transformer.modules.static_embedding", "StaticEmbedding")
        router = loaded("sentence_transformers.base.modules.router", "Router")
        routes = model[0].sub_modules.values() if isinstance(model[0], router) else [model]
        return (StaticEmbeddingView if any(isinstance(route[0], static) for route in routes) else cls)(model)

    @property
    def similarity(self) -> str:
        """What its vectors are compared by."""
        return str(self.model.similarity_fn_name)

    @property
    def dimension(self) -> int | None:
        """The width of what its forward gives, which truncation at inference leaves alone."""
        with self.model.truncate_embeddings(None):
            width: int | None = self.model.get_embedding_dimension()
        return width

    @property
    def transformer(self) -> Any:
        """The model of transformers inside; None where there is none."""
        return self.model.transformers_model

    @property
    def normalized(self) -> bool:
        """Whether its last module scales vectors to unit length."""
        return isinstance(self.model[-1], loaded("sentence_transformers.base.modules.normalize", "Normalize"))

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts as the object does, with the prompt of their role."""
        task = {"task": role} if role in ("query", "document") else {}
        return dict(self.model.preprocess(check_texts(texts), prompt=self._prompt(role, prompt), **task))

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed by calling the object on a copy of the features, which it changes."""
        parts = requested_parts(features, [need for need in needs if need != "layers"], self.padding)
        if "layers" not in needs:
            return Output(self.model(dict(features))["sentence_embedding"], parts=parts)
        with self._layers() as hidden:
            made = self.model(dict(features))
        if not hidden:
            raise LossError("layers", expected="a transformer that gives its hidden states", got="none")
        layers = tuple(self._embed({**made, "token_embeddings": tokens}) for tokens in hidden)
        return Output(made["sentence_embedding"], layers=layers, parts=parts)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Vectors [n, d] of n texts, as the object's own encode gives them."""
        texts = check_texts(texts)
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension() or 0), np.float32)
        methods = {"query": self.model.encode_query, "document": self.model.encode_document}
        with evaluating(self.model):
            vectors = methods.get(role, self.model.encode)(
                texts,
                prompt=self._prompt(role, prompt),
                batch_size=batch_size,
                show_progress_bar=progress,
            )
        return np.asarray(vectors, dtype=np.float32)

    @contextmanager
    def _layers(self) -> Iterator[list[Tensor]]:
        """Collects the hidden states of every layer of the next forward, the embedding layer first."""
        transformer = self.model[0]
        if not isinstance(transformer, loaded("sentence_transformers.base.modules.transformer", "Transformer")):
            raise LossError(
                "layers", expected="a Transformer as the model's first module", got=type(transformer).__name__
            )
        hidden: list[Tensor] = []
        config, before = transformer.config, transformer.config.output_hidden_states
        hook = transformer.register_forward_hook(
            lambda module, args, made: hidden.extend(made.pop("all_layer_embeddings", ()))
        )
        config.output_hidden_states = True
        try:
            yield hidden
        finally:
            config.output_hidden_states = before
            hook.remove()

    def _embed(self, features: Features) -> Tensor:
        """Token embeddings through the modules that follow the transformer."""
        for module in list(self.model)[1:]:
            features = module(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors


class StaticEmbeddingView(SentenceTransformerView):
    """One of static embeddings, whose features are the tokens of all texts in a row, and where each text begins.

    What takes another route through the model has rows, and is cut as those of any model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.of_rows = SentenceTransformerView(model)

    def lengths(self, features: Features) -> Sequence[int]:
        """How many tokens each text has."""
        if "offsets" not in features:
            return lengths(self.of_rows, features)
        return lengths_of_bags(features)

    def take(self, features: Features, rows: slice | Sequence[int]) -> Features:
        """Some texts."""
        if "offsets" not in features:
            return take(self.of_rows, features, rows)
        return take_bags(features, rows)

    def join(self, features: Sequence[Features]) -> Features:
        """The texts of several features one after another."""
        if "offsets" not in features[0]:
            return join(self.of_rows, features)
        return join_bags(features)


class CrossEncoderView(_View):
    """A sentence-transformers `CrossEncoder` object seen as an encoder of pairs."""

    class_name = "CrossEncoder"
    family = "cross-encoder"
    similarity = ""
    dimension = None
    normalized = False

    @property
    def num_labels(self) -> int:
        """How many numbers it gives per pair."""
        return int(self.model.num_labels)

    def preprocess(
        self, texts: Sequence[tuple[str, str]], *, role: str = "text", prompt: str | None = None
    ) -> Features:
        """Tokenise n (query, document) pairs as the object does."""
        return dict(self.model.preprocess(check_pairs(texts), prompt=self._prompt(role, prompt)))

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Score by calling the object on a copy of the features, which it changes: raw scores."""
        parts = requested_parts(features, needs, self.padding)
        scores: Tensor = self.model(dict(features))["scores"]
        return Output(scores.squeeze(-1) if self.num_labels == 1 and scores.ndim > 1 else scores, parts=parts)

    def encode(
        self,
        texts: Sequence[tuple[str, str]],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Scores [n] or [n, classes] of n pairs, as the object's own predict gives them."""
        with evaluating(self.model):
            scores = self.model.predict(
                check_pairs(texts),
                prompt=self._prompt(role, prompt),
                batch_size=batch_size,
                show_progress_bar=progress,
            )
        return np.asarray(scores, dtype=np.float32)
