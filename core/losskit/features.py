"""Features: one encoder input for n items, and how it is cut, joined, trimmed and moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import LossError
from .output import Tokens, widen
from .protocols import Encoder, Features

__all__ = [
    "PerRow",
    "Riders",
    "can_share",
    "count",
    "join",
    "lengths",
    "move",
    "take",
    "token_ids",
    "unload",
    "width",
]

Rows = slice | Sequence[int]

PACKED_KEYS = ("offsets", "cu_seq_lens_q", "cu_seq_lens_k")
"""Keys of layouts in which several items lie in one row: embedding bags and flattened attention."""


@dataclass(frozen=True)
class PerRow:
    """Values of a feature that are no tensor but belong to one item each."""

    values: Sequence[Any]


@dataclass(frozen=True)
class Riders:
    """What rides along with features and is no business of the encoder.

    Args:
        texts: those of the column, for encoders that tokenise by themselves.
        role: of these texts.
        lists: how many items belong to each tuple.
        weight: one per tuple.
    """

    texts: Sequence[str] | None = None
    role: str = "text"
    lists: tuple[int, ...] | None = None
    weight: Tensor | None = None


NO_RIDERS = Riders()
_RIDING = frozenset(("texts", "texts_role", "lists", "weight"))


def unload(features: Mapping[str, Any]) -> tuple[Features, Riders]:
    """Take texts with their role, lists and weights off."""
    rest = dict(features)
    if _RIDING.isdisjoint(rest):
        return rest, NO_RIDERS
    texts, role, lists = rest.pop("texts", None), rest.pop("texts_role", "text"), rest.pop("lists", None)
    return rest, Riders(texts, role, None if lists is None else tuple(lists), rest.pop("weight", None))


def move(features: Mapping[str, Any], device: torch.device) -> Features:
    """The features with every tensor on a device."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in features.items()}


def width(features: Features) -> int:
    """The padded number of tokens; 0 where there is no token axis."""
    mask = features.get("attention_mask")
    return int(mask.shape[1]) if isinstance(mask, Tensor) and mask.ndim == 2 else 0


def token_ids(features: Mapping[str, Any], padding: Mapping[str, Any]) -> Tokens:
    """The part `input_ids` of a record, for losses that need it.

    Args:
        features: of the column.
        padding: what stands at padding, by feature.

    Raises:
        LossError: features without token ids.
    """
    ids, mask = features.get("input_ids"), features.get("attention_mask")
    if ids is None or mask is None or ids.shape != mask.shape:
        raise LossError(
            "needs of the loss", expected="features with input_ids and attention_mask [n, t]", got=f"{sorted(features)}"
        )
    return Tokens(ids, mask.bool(), fill=padding.get("input_ids", 0))


def count(encoder: Encoder, features: Features) -> int:
    """The number of items, all tensors agreeing on it.

    Raises:
        LossError: an entry is not indexed by item, and the encoder has no `take` and `lengths` of its own.
    """
    if getattr(encoder, "take", None) is not None:
        return len(lengths(encoder, features))
    sizes = {key: value.shape[0] if value.ndim else 0 for key, value in features.items() if isinstance(value, Tensor)}
    sizes |= {key: len(value.values) for key, value in features.items() if isinstance(value, PerRow)}
    if not sizes:
        raise LossError("features", expected="at least one tensor", got=f"keys {sorted(features)}")
    items = next((sizes[key] for key in ("attention_mask", "input_ids") if key in sizes), next(iter(sizes.values())))
    for key, found in sizes.items():
        if found != items or key in PACKED_KEYS:
            raise LossError(
                f"feature {key!r}",
                expected=f"one entry per item ({items}) along its first axis, to cut the batch",
                got=f"{found}" if found != items else "a packed layout",
                fix=f"give {type(encoder).__name__} methods take(features, rows), join(features) and "
                "lengths(features), or use Direct(merge=False)",
            )
    return items


def lengths(encoder: Encoder, features: Features) -> list[int]:
    """Per item, how many leading positions matter; reads the attention mask on the host.

    An encoder whose masked positions count (query expansion) says so by a method `lengths(features)`.
    """
    own = getattr(encoder, "lengths", None)
    if own is not None:
        return [int(length) for length in own(features)]
    size = width(features)
    if not size:
        if getattr(encoder, "take", None) is not None:
            raise LossError(
                f"{type(encoder).__name__}.lengths",
                expected="a method beside take and join, where features have no attention_mask [n, t]",
                got="none",
                fix="give it lengths(features): how many positions of each item matter",
            )
        return [0] * count(encoder, features)
    positions = torch.arange(1, size + 1, device=features["attention_mask"].device)
    last: list[int] = ((features["attention_mask"] != 0) * positions).amax(dim=1).tolist()
    return last


def take(encoder: Encoder, features: Features, rows: Rows, trim: bool = True) -> Features:
    """Some items, with trailing padding that no item of them needs cut off.

    Raises:
        LossError: an entry is not indexed by item, and the encoder has no `take` of its own.
    """
    own = getattr(encoder, "take", None)
    if own is not None:
        cut: Features = own(features, rows)
        return cut
    count(encoder, features)
    part = {key: _pick(value, rows) for key, value in features.items()}
    if not trim or not width(part):
        return part
    longest = max(1, *lengths(encoder, part))
    return _narrow(part, longest) if longest < width(part) else part


def join(encoder: Encoder, features: Sequence[Features]) -> Features:
    """Items of several features one after another, padded to the widest.

    The features must be able to share a forward (`can_share`).
    """
    own = getattr(encoder, "join", None)
    if own is not None:
        joined: Features = own(features)
        return joined
    if len(features) == 1:
        return features[0]
    padding = getattr(encoder, "padding", {})
    longest = max(map(width, features))
    return {key: _join_entry([f[key] for f in features], features, longest, padding.get(key, 0)) for key in features[0]}


def can_share(a: Features, b: Features) -> bool:
    """Whether items of both may stand in one forward: equal keys, metadata, dtypes and trailing shapes.

    Tensors must all be indexed by item.
    """
    if a.keys() != b.keys() or any(key in a for key in PACKED_KEYS):
        return False
    return _by_item(a) and _by_item(b) and all(_same_entry(a, b, key) for key in a)


def _by_item(features: Features) -> bool:
    """Whether all tensors agree on the number of items."""
    return len({value.shape[:1] for value in features.values() if isinstance(value, Tensor)}) <= 1


def _same_entry(a: Features, b: Features, key: str) -> bool:
    x, y = a[key], b[key]
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        tokens = _has_token_axis(a, x) and _has_token_axis(b, y)
        skip = 2 if tokens else 1
        return x.ndim == y.ndim > 0 and x.dtype == y.dtype and x.shape[skip:] == y.shape[skip:]
    if isinstance(x, PerRow) and isinstance(y, PerRow):
        return True
    return _same_metadata(x, y)


def _same_metadata(x: Any, y: Any) -> bool:
    """Whether plain values, or lists of them, are equal; anything else is only the same as itself."""
    if x is y:
        return True
    if type(x) is not type(y):
        return False
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(_same_metadata, x, y))
    return isinstance(x, str | int | float) and x == y


def _has_token_axis(features: Features, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and width(features) == tensor.shape[1]


def _pick(value: Any, rows: Rows) -> Any:
    if isinstance(value, PerRow):
        picked = value.values[rows] if isinstance(rows, slice) else [value.values[row] for row in rows]
        return PerRow(picked)
    if not isinstance(value, Tensor):
        return value
    return value[rows] if isinstance(rows, slice) else value[torch.tensor(rows, device=value.device)]


def _narrow(features: Features, longest: int) -> Features:
    return {
        key: value[:, :longest] if isinstance(value, Tensor) and _has_token_axis(features, value) else value
        for key, value in features.items()
    }


def _join_entry(values: list[Any], features: Sequence[Features], longest: int, fill: float) -> Any:
    if isinstance(values[0], PerRow):
        return PerRow([item for value in values for item in value.values])
    if not isinstance(values[0], Tensor):
        return values[0]
    tokens = all(_has_token_axis(f, value) for f, value in zip(features, values, strict=True))
    if tokens:
        values = [widen(value, longest, fill) for value in values]
    return torch.cat(values)
