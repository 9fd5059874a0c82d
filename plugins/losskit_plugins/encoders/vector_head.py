"""What makes one vector of the tokens of a text: steps over tokens, pooling, steps over vectors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from losskit.protocols import Features

from .dense_parts import Step, place_name
from .head import Normalization, width_after
from .pooling import Pooling
from .tokenizer import Tokenizer
from .transformer_encoder import Module

__all__ = ["VectorHead"]


class VectorHead(nn.Module):
    """Token embeddings to vectors.

    Args:
        before: steps over tokens.
        pooling: of tokens.
        after: steps over vectors.
        like: a weight of the transformer; the steps are put where it is, in its precision.

    Raises:
        ModelError: a projection does not fit the one before it.
    """

    def __init__(self, before: Sequence[Step], pooling: Pooling, after: Sequence[Step], like: Tensor) -> None:
        super().__init__()
        self.token_steps = nn.ModuleList(before).to(like.device, like.dtype)
        self.pooling = pooling
        self.steps = nn.ModuleList(after).to(like.device, like.dtype)
        self.dimension = width_after(after, pooling.dimension, "pooling")

    @property
    def normalized(self) -> bool:
        """Whether the last step scales vectors to unit length."""
        return len(self.steps) > 0 and isinstance(self.steps[-1], Normalization)

    def forward(self, tokens: Tensor, features: Features) -> Tensor:
        """[n, t, d] of a layer of the transformer to [n, dimension]."""
        for step in self.token_steps:
            tokens = step(tokens)
        vectors: Tensor = self.pooling(tokens, features["attention_mask"], features.get("prompt_length"))
        for step in self.steps:
            vectors = step(vectors)
        return vectors

    def prompt_features(self, count: int, tokenizer: Tokenizer, prompt: str) -> Features:
        """What it reads of n texts beside their tokens: the length of a prompt that is not pooled."""
        if self.pooling.include_prompt:
            return {}
        return {"prompt_length": torch.full((count,), tokenizer.prompt_length(prompt))}

    def modules_after(self) -> list[Module]:
        """What stands after the transformer in a folder."""
        before = [(step.kind, partial(step.write, values=place_name(tokens=True))) for step in self.token_steps]
        after = [(step.kind, partial(step.write, values=place_name(tokens=False))) for step in self.steps]
        return [*before, (self.pooling.kind, self.pooling.write), *after]
