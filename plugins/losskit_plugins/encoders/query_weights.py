"""Weights of the terms of a query that no model computes: one for each token of the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PretrainedConfig

from losskit.errors import DataError, ModelError, RecipeError
from losskit.math import promoted

from .folder import read_json, require_safetensors, write_json
from .inference import check_texts
from .layout import Stage, TransformerSettings, refuse_unknown
from .tokenizer import Tokenizer

__all__ = ["QueryWeights", "inverse_document_frequencies"]


def inverse_document_frequencies(input_ids: Sequence[Sequence[int]], terms: int) -> Float[Tensor, " terms"]:
    """The weight of every term as BM25 has it: log(1 + (N - n_v + 1/2) / (n_v + 1/2)).

    Args:
        input_ids: tokens of each of N texts.
        terms: how many there are; n_v texts hold term v.

    >>> inverse_document_frequencies([[0, 0], [0, 1]], terms=3)
    tensor([0.1823, 0.6931, 1.7918])
    """
    found = torch.zeros(terms)
    for ids in input_ids:
        found[torch.tensor(ids, dtype=torch.long).unique()] += 1
    return (1 + (len(input_ids) - found + 0.5) / (found + 0.5)).log()


class QueryWeights(nn.Module):
    """A weight for every term, given to the texts that hold it.

    Args:
        tokenizer: of queries; its special tokens are left out.
        weight: [terms]; None: 1 each.
        frozen: whether it is kept from training.
    """

    kind = "SparseStaticEmbedding"

    def __init__(self, tokenizer: Tokenizer, weight: Tensor | None = None, frozen: bool = False) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.weight = nn.Parameter(torch.ones(self.terms) if weight is None else weight, requires_grad=not frozen)

    @property
    def terms(self) -> int:
        """How many terms there are."""
        return len(self.tokenizer.get_vocab())

    @property
    def frozen(self) -> bool:
        """Whether it is kept from training."""
        return not self.weight.requires_grad

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts to tensors [n, t]."""
        return self.tokenizer(texts, special=False)

    def forward(self, input_ids: Int[Tensor, "n t"], mask: Int[Tensor, "n t"]) -> Float[Tensor, "n terms"]:
        """The weights of the terms that each text holds, however often, and 0 elsewhere; in float32 at least."""
        held = mask.new_zeros(len(input_ids), len(self.weight))
        held = held.scatter_reduce_(1, input_ids, mask, "amax")
        return torch.where(held != 0, promoted(self.weight), 0.0)

    @torch.no_grad()
    def assign(self, weights: Mapping[str, float] | str | Path) -> None:
        """Weigh the tokens that are named, and no others.

        Args:
            weights: by token, or a JSON file of such.

        Raises:
            RecipeError: a name is none of a token, or a weight no finite number.
        """
        named = weights if isinstance(weights, Mapping) else read_json(Path(weights), dict)
        vocabulary = self.tokenizer.get_vocab()
        unknown = next((token for token in named if token not in vocabulary), None)
        if unknown is not None:
            raise RecipeError("query_weights", expected="tokens of the model's vocabulary", got=repr(unknown))
        for token, weight in named.items():
            if not (isinstance(weight, Real) and math.isfinite(weight)):
                raise RecipeError(f"query_weights of {token!r}", expected="a finite number", got=repr(weight))
        self.weight.zero_()
        self.weight[[vocabulary[token] for token in named]] = self.weight.new_tensor(list(named.values()))

    @torch.no_grad()
    def fit(self, texts: Sequence[str]) -> None:
        """Weigh every token by its inverse document frequency in texts.

        Raises:
            DataError: there are none, or something is no text.
        """
        if not texts:
            raise DataError("texts of the query weights", expected="at least one", got="none")
        ids = self.tokenizer.base(check_texts(texts), add_special_tokens=False, truncation=True)["input_ids"]
        self.weight.copy_(inverse_document_frequencies(ids, self.terms))

    @classmethod
    def read(cls, stage: Stage, max_length: int | None, trust_remote_code: bool) -> Self:
        """The weights that a model folder holds.

        Raises:
            ModelError: they are missing, or there is not one for every token.
        """
        config = stage.config()
        refuse_unknown(config, ("frozen",), str(stage.folder / "config.json"))
        unlimited = TransformerSettings("", "", "")
        tokenizer = Tokenizer.read(stage.folder, PretrainedConfig(), unlimited, max_length, trust_remote_code)
        require_safetensors(stage.folder)
        made = cls(tokenizer, frozen=bool(config.get("frozen", False)))
        try:
            made.load_state_dict(load_file(stage.folder / "model.safetensors"))
        except (RuntimeError, OSError, SafetensorError) as error:
            expected = f"a weight for each of the tokenizer's {made.terms} tokens"
            raise ModelError(str(stage.folder), expected=expected, got=" ".join(str(error).split())) from error
        return made

    def write(self, stage: Stage) -> None:
        """Put them in a model folder."""
        write_json(stage.folder / "config.json", {"frozen": self.frozen}, indent=4)
        self.tokenizer.save(stage.folder)
        weights = {"weight": self.weight.detach().contiguous().cpu()}
        save_file(weights, stage.folder / "model.safetensors", metadata={"format": "pt"})
