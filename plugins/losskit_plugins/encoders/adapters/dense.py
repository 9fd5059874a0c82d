"""`SentenceTransformer` objects as dense encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losskit.features import join, lengths, take
from losskit.protocols import Encoder, Features

from ..bags import join_bags, lengths_of_bags, take_bags
from ..inference import check_texts
from .vectors import VectorView
from .view import loaded

__all__ = ["SentenceTransformerView"]


class SentenceTransformerView(VectorView):
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
    def dimension(self) -> int | None:
        """The width of what its forward gives, which truncation at inference leaves alone."""
        with self.model.truncate_embeddings(None):
            width: int | None = self.model.get_embedding_dimension()
        return width

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
        vectors = self._encoded(texts, role, prompt, batch_size, progress)
        return np.asarray(vectors, dtype=np.float32)


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
