"""The protocols of losses, encoders, regularizers, weightings and similarities: you need not subclass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor

from .card import Card
from .output import Output

__all__ = ["Encoder", "Features", "LossProtocol", "Regularizer", "Similarity", "Weighting"]

Features = dict[str, Any]
"""One encoder input for n items. Tensors are indexed by item along their first axis; entries that are no
tensors belong to all items and are passed along, `PerRow` marks those that do not. `texts` with their
`texts_role`, `lists` and `weight` may ride along and are taken off before encoding."""


@runtime_checkable
class LossProtocol(Protocol):
    """What a trainer calls: an `nn.Module` with the trained encoder as its child `model`."""

    card: Card

    def forward(self, sentence_features: Sequence[Features], labels: Tensor | None = None) -> Any:
        """A scalar, or a dict of scalars whose sum is the objective."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Texts to features to records.

    Optional, read with a default where absent: `take(features, rows)` and `join([features, ...])` where
    features are not indexed by item; `lengths(features)` where positions count although `attention_mask`
    hides them; `padding`, a mapping of feature names to their padding value; `decode(features)` to texts;
    `tokenizer` with a method `get_vocab()`, and `max_length` in tokens, by which a guide reads the same features;
    `transformer`, the model of transformers inside; `fit_inputs(pairs)` of a cross-encoder, called once before the
    training with all (query, document) pairs, of what its inputs determine; `classes`, the names of a cross-encoder's
    outputs in their order, empty until the data's are assigned; `examples`, a few items that it reads, where they are
    neither texts nor pairs of texts; `usage`, a line of Python that calls `model.encode`, for the model card;
    `get_config_dict()`, the options that build it again, None where it was made of objects: a loss's configuration
    holds them with its name, else its name alone.
    """

    @property
    def family(self) -> str:
        """One of `losskit.card.FAMILIES`."""
        ...

    @property
    def similarity(self) -> str:
        """The name of the similarity its embeddings are made for."""
        ...

    @property
    def dimension(self) -> int | None:
        """The width of its embeddings, if known."""
        ...

    @property
    def normalized(self) -> bool:
        """Whether its embeddings have unit length."""
        ...

    def preprocess(self, texts: Sequence[Any], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts, or (query, document) pairs; `role` is "text", "query" or "document"."""
        ...

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode n items; `needs` names what a loss reads beyond the embedding."""
        ...

    def encode(
        self,
        texts: Sequence[Any],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Any:
        """Inference without gradients: an array, csr_array, list of arrays or scores, by family."""
        ...

    def save(self, path: str | Path) -> None:
        """Write a model folder."""
        ...

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model folder."""
        ...

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a foreign model as an encoder of this kind, or None if it is none."""
        ...


@runtime_checkable
class Similarity(Protocol):
    """Similarities of records, higher is nearer.

    Optional: `transform(record) -> Tensor [n, d]`, where the similarity is the inner product of
    transformed vectors; tiled scoring then runs as fused matrix products. `pairwise_each(a, others)`: as
    `pairwise` with two or more others, to [n, k], at less cost. `highest`: that of an item with itself, where
    it is the same for all and none is higher; distances are what a similarity lacks to it. `bound`: what its
    absolute value never exceeds. `pooled`, True where the similarity of a pair depends on all items of `b`: then
    losses call it once for all candidates of a row.
    """

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs: [n, m]."""
        ...

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i: [n]."""
        ...


@runtime_checkable
class Regularizer(Protocol):
    """A penalty on embeddings.

    Optional: `observe(queries, documents)`, called once in each training forward before the penalty, without
    gradients and with the texts of all processes; what it keeps are buffers.
    """

    def __call__(self, queries: Output | None, documents: Output) -> Tensor:
        """A scalar."""
        ...


@runtime_checkable
class Weighting(Protocol):
    """Weights of the pairs of documents in a list, constants that depend on no other list.

    Optional: `all_pairs`, True where pairs count whatever their labels; else those of which the first document's
    label is the higher one.
    """

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Weights of the pairs (i, j), which broadcast to [b, n, n].

        Args:
            gain: [b, n], of documents in the order of their scores; 0 on padding.
            discount: [1, n], of ranks.
            true_sorted: [b, n], labels in that order, none below 0; 0 on padding.
        """
        ...
