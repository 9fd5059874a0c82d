"""SPLADE without inference for queries: their terms have fixed weights, and only documents are encoded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.errors import ModelError
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import SparseEncoderView
from .backbone import requested_parts
from .folder import locate
from .layout import read_stages, write_stages
from .query_weights import QueryWeights
from .router import Router
from .sparse_transformer import SparseTransformerEncoder
from .splade_parts import SpladeParts, check_pooling, gather_splade_parts, read_settings, read_splade_parts
from .splade_pooling import SpladePooling, ends_linearly
from .tokenizer import Tokenizer, refuse_tokenizer
from .vocabulary_head import Activation, TermPooling

__all__ = ["InferenceFreeSpladeEncoder"]

ROUTES = {"query": [QueryWeights.kind], "document": ["Transformer", SpladePooling.kind]}
ROUTE = "route"
"""The feature that says which way a column takes, so that queries and documents share no forward."""


class InferenceFreeSpladeEncoder(SparseTransformerEncoder):
    """SPLADE for documents, and for queries a weight of each of their tokens, which no model computes.

    Options that are None are what the model folder says.

    Args:
        model: a folder of such a model, or what makes a SPLADE encoder: a folder (of sentence-transformers or
            transformers), a name of the Hugging Face hub, or a transformers model with a vocabulary head.
        query_weights: by token, or a JSON file of such; tokens that are not named weigh nothing. A new model has
            weights of 1; `fit_query_weights` makes them inverse document frequencies.
        train_query_weights: whether they are learned; those of a new model are.
        pooling: of documents' tokens; a plain transformers folder means "max".
        activation: of logits: "relu" is log(1 + max(x, 0)), "log1p-relu" takes that logarithm twice.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        max_length: the most tokens of a text.
        similarity: what the vectors are meant to be compared by; "dot" where the folder is silent.
        max_active_dims: how many entries of a vector `encode` keeps, the largest; `forward` gives all.
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.
    """

    card = Card(
        encoders=["sparse"],
        formula="query: weight_v if it holds term v, else 0; document: as splade",
        citation="""@article{geng-2024-inference-free,
    title = "Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers",
    author = "Geng, Zhichao and Wang, Yiwen and Ru, Dongyu and Yang, Yang",
    journal = "arXiv preprint arXiv:2411.04403",
    year = "2024",
    url = "https://arxiv.org/abs/2411.04403",
}""",
    )

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        query_weights: Mapping[str, float] | str | Path | None = None,
        train_query_weights: bool | None = None,
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
            "query_weights": query_weights,
            "train_query_weights": train_query_weights,
            "pooling": pooling,
            "activation": activation,
            "prompts": prompts,
            "max_length": max_length,
            "similarity": similarity,
            "max_active_dims": max_active_dims,
        }
        check_pooling(pooling, activation)
        parts, queries, self.default_route = _gather(model, tokenizer, max_length, trust_remote_code)
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
        self.queries = queries
        if query_weights is not None:
            self.queries.assign(query_weights)
        if train_query_weights is not None:
            self.queries.weight.requires_grad_(train_query_weights)
        self._place_queries()

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts, each after its prompt.

        Args:
            texts: n of them.
            role: "query" or "document", which is how they will be encoded; "text", or the name of one of the prompts,
                for texts that are encoded as documents.
            prompt: instead of the role's; "" means none.

        Returns:
            Tensors [n, t], and the route that the texts take.
        """
        route = role if role in ROUTES else self.default_route
        if route == "document":
            return {**super().preprocess(texts, role=role, prompt=prompt), ROUTE: route}
        prompt = self.prompts.resolve(role, prompt)
        tokens = self.queries.tokens([prompt + text for text in self._checked(texts)])
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], ROUTE: route}

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Weigh the terms of n texts.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "input_ids".
        """
        parts = requested_parts(features, needs, self.padding)
        mask = features["attention_mask"]
        if features.get(ROUTE, self.default_route) == "query":
            return Output(self.queries(features["input_ids"], mask), parts=parts)
        inputs = {name: features[name] for name in self._inputs if name in features}
        return Output(self.pooling(self.transformer, inputs, mask, self._linear), parts=parts)

    def fit_query_weights(self, texts: Sequence[str]) -> None:
        """Set the weights of queries' tokens to their inverse document frequencies in texts, a corpus."""
        self.queries.fit(texts)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a `SparseEncoder`; None for anything else."""
        return SparseEncoderView.adapt(model)

    def _write_modules(self, folder: Path) -> None:
        (stage,) = write_stages(folder, ["Router"])
        routes = Router.write(stage.folder, ROUTES, self.default_route).routes
        (query,), (transformer, pooling) = routes["query"], routes["document"]
        self.queries.write(query)
        self._write_transformer(transformer)
        self.pooling.write(pooling)

    def _place_queries(self) -> None:
        """Put the weights of queries where the transformer is, in its precision or float32."""
        weight = next(self.transformer.parameters())
        self.queries.to(weight.device, torch.promote_types(weight.dtype, torch.float32))


def _gather(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    trust_remote_code: bool,
) -> tuple[SpladeParts, QueryWeights, str]:
    """The parts that encode documents, the weights of queries, and the route of plain texts."""
    folder = None if isinstance(model, PreTrainedModel) else locate(model, code=trust_remote_code)
    if folder is not None and (folder / "router_config.json").exists():
        refuse_tokenizer(tokenizer)
        settings = read_settings(folder)
        stages = read_stages(folder, ("Router",))
        if stages is None:
            raise ModelError(str(folder / "modules.json"), expected="a file", got="nothing there")
        router = Router.read(stages[0].folder, ROUTES)
        parts = read_splade_parts(folder, router.routes["document"], settings, max_length, trust_remote_code)
        queries = QueryWeights.read(router.routes["query"][0], max_length, trust_remote_code)
        default = router.default
    else:
        parts = gather_splade_parts(folder or model, tokenizer, max_length, trust_remote_code)
        queries, default = QueryWeights(Tokenizer(copy.deepcopy(parts.tokenizer.base))), "document"
    if queries.terms != parts.dimension:
        raise ModelError(
            "the vocabulary head",
            expected=f"a term for each of the {queries.terms} tokens of queries",
            got=f"{parts.dimension} terms",
            fix="call resize_token_embeddings of transformers with as many as the tokenizer has",
        )
    return parts, queries, default
