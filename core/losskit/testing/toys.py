"""Toy encoders: small, exact and deterministic, one class for all families."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..errors import ModelError
from ..features import token_ids
from ..modes import in_evaluation
from ..output import Output, Tokens
from ..protocols import Encoder, Features

__all__ = ["ToyEncoder"]

VOCABULARY, POSITIONS, SEPARATOR = 60, 64, 1
FILE = "toy.safetensors"
SIMILARITIES = {"dense": "cosine", "sparse": "dot", "multi-vector": "maxsim", "cross-encoder": "dot"}


class ToyEncoder(nn.Module):
    """An encoder of any family: embedded words and positions, two layers, and what the family makes of them.

    A word's token is its checksum, so texts need no vocabulary. Everything is in float64 by default.

    Args:
        family: "dense" (mean of the tokens), "sparse" (their maximum, not negative, and if asked for what a sparse
            auto-encoder gives beside it), "multi-vector" (the tokens) or "cross-encoder" (scores of pairs).
        dimension: of the embeddings.
        dropout: probability, in training.
        outputs: how many scores a cross-encoder gives per pair.
        seed: of the weights; None: they follow torch's random state, and no configuration can name them.

    >>> toy = ToyEncoder(dimension=4)
    >>> toy(toy.preprocess(["one text", "another"])).embedding.shape
    torch.Size([2, 4])
    """

    normalized = False
    padding = {"input_ids": 0}  # noqa: RUF012 - the protocol reads it as a plain mapping

    def __init__(
        self,
        family: str = "dense",
        dimension: int = 8,
        dropout: float = 0.0,
        outputs: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if family not in SIMILARITIES:
            raise ModelError("ToyEncoder.family", expected=f"one of {', '.join(SIMILARITIES)}", got=repr(family))
        self.family = family
        self.similarity = SIMILARITIES[family]
        self.dimension = dimension
        self.dropout = nn.Dropout(dropout)
        self.outputs = outputs
        self.seed = seed
        double: dict[str, Any] = {"dtype": torch.float64}
        with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            self.words = nn.Embedding(VOCABULARY, dimension, **double)
            self.positions = nn.Embedding(POSITIONS, dimension, **double)
            self.first = nn.Linear(dimension, dimension, **double)
            self.second = nn.Linear(dimension, dimension, **double)
            self.head = nn.Linear(dimension, outputs, **double)

    def get_config_dict(self) -> dict[str, Any] | None:
        """The options that make the same weights again, if a seed does."""
        if self.seed is None:
            return None
        options = {"family": self.family, "dimension": self.dimension, "outputs": self.outputs, "seed": self.seed}
        return {**options, "dropout": self.dropout.p}

    def preprocess(self, texts: Sequence[Any], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokens of texts, or of (query, document) pairs, padded to the longest; 64 of each at most."""
        before = _tokens(prompt or "")
        rows = [(before + (_tokens(t) if isinstance(t, str) else _pair(*t)))[:POSITIONS] for t in texts]
        longest = max([1, *map(len, rows)])
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long).view(-1, longest)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode n items."""
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        hidden = self.words(ids) + self.positions.weight[: ids.shape[1]]
        layers = [torch.tanh(self.first(self.dropout(hidden)))]
        layers.append(self.second(self.dropout(layers[0])))
        parts: dict[str, Tensor | Tokens | Output] = {}
        if "input_ids" in needs:
            parts["input_ids"] = token_ids(features, self.padding)
        pooled = tuple(_mean(layer, mask) for layer in layers) if "layers" in needs else ()
        made = _FAMILIES[self.family](self, layers[-1], mask)
        if self.family == "sparse" and "backbone" in needs:
            parts |= _reconstructed(self, made, _mean(layers[-1], mask))
        return Output(made, mask if self.family == "multi-vector" else None, pooled, parts)

    def encode(
        self,
        texts: Sequence[Any],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Any:
        """An array, of a sparse toy a csr_array, of a multi-vector one a list of arrays."""
        with in_evaluation(self), torch.no_grad():
            output = self(self.preprocess(texts, role=role, prompt=prompt))
        if output.mask is None:
            return csr_array(output.embedding) if self.family == "sparse" else output.embedding.numpy()
        return [vectors[mask].numpy() for vectors, mask in zip(output.embedding, output.mask, strict=True)]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file into a folder."""
        Path(path).mkdir(parents=True, exist_ok=True)
        options = {"family": self.family, "dimension": str(self.dimension), "outputs": str(self.outputs)}
        save_file(self.state_dict(), Path(path) / FILE, metadata=options)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote."""
        with safe_open(Path(path) / FILE, framework="pt") as file:
            options = file.metadata()
            toy = cls(options["family"], int(options["dimension"]), outputs=int(options["outputs"]))
            toy.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no mapping
        return toy

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """It adopts nothing foreign."""
        return None


def _tokens(text: str) -> list[int]:
    return [2 + crc32(word.encode()) % (VOCABULARY - 2) for word in text.split()]


def _pair(query: str, document: str) -> list[int]:
    return [*_tokens(query), SEPARATOR, *_tokens(document)]


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def _dense(toy: ToyEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    return _mean(hidden, mask)


def _sparse(toy: ToyEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(~mask[..., None], -math.inf).amax(1).relu()


def _reconstructed(toy: ToyEncoder, codes: Tensor, backbone: Tensor) -> dict[str, Tensor]:
    """Something for each part that a sparse auto-encoder gives."""
    before = codes @ toy.first.weight
    return {
        "backbone": backbone,
        "decoded_k": before + toy.first.bias,
        "decoded_4k": codes @ toy.second.weight,
        "decoded_aux": before @ toy.second.weight,
        "decoded_k_pre_bias": before,
    }


def _multi_vector(toy: ToyEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden


def _scores(toy: ToyEncoder, hidden: Tensor, mask: Tensor) -> Tensor:
    scores: Tensor = toy.head(_mean(hidden, mask))
    return scores.squeeze(-1) if toy.outputs == 1 else scores


_FAMILIES: dict[str, Callable[[ToyEncoder, Tensor, Tensor], Tensor]] = {
    "dense": _dense,
    "sparse": _sparse,
    "multi-vector": _multi_vector,
    "cross-encoder": _scores,
}
