"""Pooling: token embeddings to one embedding per text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from losskit.errors import ModelError

from .folder import write_json
from .layout import Stage, refuse_unknown

__all__ = ["POOLINGS", "Pooling", "PoolingMode", "pool"]

PoolingMode = Literal["mean", "cls", "max", "last-token", "weighted-mean", "mean_sqrt_len_tokens"]


def pool(
    tokens: Float[Tensor, "n t d"],
    mask: Int[Tensor, "n t"],
    mode: PoolingMode = "mean",
    *,
    skip: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n d"]:
    """One embedding per row of tokens, whichever side is padded.

    Sums of half precision run in float32; the result has the dtype of the tokens. A row without tokens
    gives zeros, but for "cls".

    Args:
        tokens: token embeddings.
        mask: 1 where a token counts, 0 at padding.
        mode: "mean"; "cls", the first token; "max"; "last-token"; "weighted-mean", token i of the text
            weighing i; "mean_sqrt_len_tokens", the sum over the root of the number of tokens.
        skip: how many leading tokens of each row to leave out (a prompt); weights still count them.

    >>> tokens, mask = torch.tensor([[[2.0], [2.0], [5.0], [9.0]]]), torch.tensor([[1, 1, 1, 0]])
    >>> [pool(tokens, mask, mode).item() for mode in ("mean", "cls", "max", "last-token")]
    [3.0, 2.0, 5.0, 5.0]
    >>> pool(tokens, mask, "weighted-mean").item()  # (1 * 2 + 2 * 2 + 3 * 5) / (1 + 2 + 3)
    3.5
    """
    rank = _rank(mask)
    kept = mask.to(torch.bool)
    if skip is not None:
        kept = kept & (rank > skip.unsqueeze(1))
    return POOLINGS[mode](tokens, kept, rank)


def _rank(mask: Tensor) -> Tensor:
    """Positions counted from 1 at the first token of each row."""
    first = mask.to(torch.int32).argmax(dim=1, keepdim=True)
    return torch.arange(1, mask.shape[1] + 1, device=mask.device) - first


def _sums(tokens: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sum over tokens, and the sum of weights, in at least float32."""
    weights = weights.unsqueeze(-1)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    return (tokens * weights).sum(dim=1, dtype=dtype), weights.sum(dim=1, dtype=dtype).clamp(min=1e-9)


def _mean(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    total, count = _sums(tokens, kept)
    return (total / count).to(tokens.dtype)


def _mean_sqrt_len(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    total, count = _sums(tokens, kept)
    return (total / count.sqrt()).to(tokens.dtype)


def _weighted_mean(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    # Half precision counts only to 256 or 2048.
    total, weight = _sums(tokens, (kept * rank).to(torch.promote_types(tokens.dtype, torch.float32)))
    return (total / weight).to(tokens.dtype)


def _max(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    highest = tokens.masked_fill(~kept.unsqueeze(-1), -torch.inf).amax(dim=1)
    return highest.masked_fill(~kept.any(dim=1, keepdim=True), 0)


def _first(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    return _at(tokens, kept.to(torch.int32).argmax(dim=1))


def _last(tokens: Tensor, kept: Tensor, rank: Tensor) -> Tensor:
    positions = torch.arange(kept.shape[1], device=kept.device)
    last = (kept * positions).amax(dim=1)
    return _at(tokens, last).masked_fill(~kept.any(dim=1, keepdim=True), 0)


def _at(tokens: Tensor, positions: Tensor) -> Tensor:
    index = positions.view(-1, 1, 1).expand(-1, 1, tokens.shape[-1])
    return tokens.gather(1, index).squeeze(1)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": _first,
    "max": _max,
    "last-token": _last,
    "weighted-mean": _weighted_mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
}


NAMES: Mapping[str, PoolingMode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weighted-mean",
    "lasttoken": "last-token",
}
"""What sentence-transformers calls each, in the order in which old folders concatenate them."""
SWITCHES: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The booleans by which folders before 5.4 say it."""


class Pooling(nn.Module):
    """Pools tokens in one or several ways, which are concatenated.

    Args:
        dimension: of a token embedding.
        modes: how; the embedding is `len(modes) * dimension` wide.
        include_prompt: whether the tokens of a prompt are pooled too.
    """

    kind = "Pooling"

    def __init__(self, dimension: int, modes: Sequence[PoolingMode] = ("mean",), include_prompt: bool = True) -> None:
        super().__init__()
        self.token_dimension = dimension
        self.modes = tuple(modes)
        self.include_prompt = include_prompt

    @property
    def dimension(self) -> int:
        """The width of the embedding."""
        return self.token_dimension * len(self.modes)

    def forward(self, tokens: Tensor, mask: Tensor, prompt_length: Tensor | None = None) -> Tensor:
        """Token embeddings [n, t, d], mask [n, t], tokens of the prompt [n], to embeddings [n, dimension]."""
        skip = None if self.include_prompt else prompt_length
        pooled = [pool(tokens, mask, mode, skip=skip) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)

    @classmethod
    def read(cls, stage: Stage) -> Self:
        """The pooling that a model folder describes.

        Raises:
            ModelError: it is described wrongly, or is none that there is.
        """
        config, culprit = stage.config(), str(stage.folder / "config.json")
        dimension = config.pop("embedding_dimension", config.pop("word_embedding_dimension", None))
        if type(dimension) is not int or dimension < 1:
            raise ModelError(f"embedding_dimension in {culprit}", expected="a positive number", got=repr(dimension))
        refuse_unknown(config, ("pooling_mode", "include_prompt", "word_embedding_dimension", *SWITCHES), culprit)
        names = _names(config)
        if not names or any(name not in tuple(NAMES) for name in names):
            raise ModelError(f"pooling_mode in {culprit}", expected=f"some of {', '.join(NAMES)}", got=repr(names))
        return cls(dimension, [NAMES[name] for name in names], bool(config.get("include_prompt", True)))

    def write(self, stage: Stage) -> None:
        """Describe it in a model folder."""
        known = {ours: theirs for theirs, ours in NAMES.items()}
        modes = [known[mode] for mode in self.modes]
        config = {
            "embedding_dimension": self.token_dimension,
            "pooling_mode": modes[0] if len(modes) == 1 else modes,
            "include_prompt": self.include_prompt,
        }
        write_json(stage.folder / "config.json", config, indent=4)

    def extra_repr(self) -> str:
        """Shown in the module's representation."""
        return f"dimension={self.token_dimension}, modes={self.modes}, include_prompt={self.include_prompt}"


def _names(config: Mapping[str, Any]) -> list[str]:
    """The modes a configuration names, in the words of sentence-transformers."""
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        return modes if isinstance(modes, list) else [modes]
    return [name for switch, name in SWITCHES.items() if config.get(switch)] or ["mean"]
