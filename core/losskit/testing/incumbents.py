"""Tiny models of sentence-transformers, which its trainers train in a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .tiny import tiny_folder

__all__ = ["FAMILIES", "tiny_model"]

WIDTH = 8
"""Of embeddings, as toy encoders have it."""
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES = {
    "dense": ("SentenceTransformer", "sentence_transformer"),
    "sparse": ("SparseEncoder", "sparse_encoder"),
    "multi-vector": ("MultiVectorEncoder", "multi_vector_encoder"),
    "cross-encoder": ("CrossEncoder", "cross_encoder"),
}
"""The class of models and the package of each family in sentence-transformers."""


def tiny_model(family: str, outputs: int = 1) -> Any:
    """A model of sentence-transformers around a tiny BERT, with random weights that are the same each time.

    Embeddings have the width of toy encoders, those of sparse ones too: they are codes of an auto-encoder.
    """
    import sentence_transformers
    from sentence_transformers.base.modules import Transformer

    options: dict[str, Any] = {"device": "cpu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "cross-encoder":
            model = sentence_transformers.CrossEncoder(
                str(tiny_folder()), num_labels=outputs, config_kwargs=NO_DROPOUT, **options
            )
        else:
            transformer = Transformer(str(tiny_folder()), config_kwargs=NO_DROPOUT)
            heads = _HEADS[family](transformer.get_embedding_dimension())
            model = getattr(sentence_transformers, FAMILIES[family][0])(modules=[transformer, *heads], **options)
    model.model_card_data.widget = [{"text": "a text"}]  # else examples are computed, behind a progress bar
    return model


def _dense(width: int) -> list[nn.Module]:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [Pooling(width), Dense(width, WIDTH, bias=False, activation_function=nn.Identity())]


def _sparse(width: int) -> list[nn.Module]:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    return [Pooling(width), SparseAutoEncoder(width, hidden_dim=WIDTH, k=2, k_aux=2)]


def _multi_vector(width: int) -> list[nn.Module]:
    from sentence_transformers.base.modules import Dense, Normalize

    names: dict[str, Any] = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    return [Dense(width, WIDTH, bias=False, activation_function=nn.Identity(), **names), Normalize(**names)]


_HEADS: Mapping[str, Callable[[int], list[nn.Module]]] = {
    "dense": _dense,
    "sparse": _sparse,
    "multi-vector": _multi_vector,
}
"""What follows the transformer."""
