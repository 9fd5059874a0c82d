"""Laws of `encode`: what it makes of texts, roles and prompts, and what it leaves untouched."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor, nn

from ..errors import LosskitError
from ..modes import modes_of
from ..output import Output
from ..protocols import Encoder, Features
from ..validation.findings import Violation
from .encoding import CLOSE, ROLES, ready, record, require_rows, rows, rows_encoded
from .law import law
from .subject import Subject

__all__ = ["encode", "encoder_modes", "encoder_roles"]

LONG = " ".join(["the quick brown fox jumps"] * 200)
"""More words than the tiny transformer takes tokens."""
PROMPT = "word1 word2: "


@law(5, "encoder", cause="results that are not put back into the order of the texts, or records that depend on others")
def encode(subject: Subject) -> None:
    """`encode` gives what records say, for any batch size and order, for no text, one, and one that is too long."""
    encoder, items = ready(subject)
    whole = encoder.encode(items)
    _require_kind(encoder, whole)
    _require_as_records(encoder, "encode beside the records", record(encoder, items), whole)
    found = rows_encoded(whole)
    for size in (1, 2):
        require_rows(f"encode with batch_size={size}", found, rows_encoded(encoder.encode(items, batch_size=size)))
    require_rows("the items in reverse", found[::-1], rows_encoded(encoder.encode(items[::-1])))
    require_rows("the first item alone", found[:1], rows_encoded(encoder.encode(items[:1])))
    nothing = encoder.encode([])
    _require_kind(encoder, nothing)
    if len(rows_encoded(nothing)):
        raise Violation("encode of no items", "no results", len(rows_encoded(nothing)))
    if getattr(encoder, "examples", None) is None:
        for name, text in (("a long text", LONG), ("an empty text", "")):
            odd = [items[0], text if isinstance(items[0], str) else (items[0][0], text)]
            first, other = rows_encoded(encoder.encode(odd))
            require_rows(f"an item beside {name}", found[:1], [first])
            if not other.isfinite().all():
                raise Violation(f"encode of {name}", "finite numbers", "NaN or infinity")


def _require_kind(encoder: Encoder, found: Any) -> None:
    kinds: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "dense": ("an array [n, d]", lambda each: isinstance(each, np.ndarray) and each.ndim == 2),
        "sparse": ("a csr_array [n, d]", lambda each: issparse(each) and each.format == "csr" and each.ndim == 2),
        "multi-vector": (
            "a list of arrays [t, d]",
            lambda each: isinstance(each, list) and all(isinstance(one, np.ndarray) and one.ndim == 2 for one in each),
        ),
        "cross-encoder": ("an array of scores", lambda each: isinstance(each, np.ndarray) and each.ndim in (1, 2)),
    }
    expected, right = kinds[encoder.family]
    if not right(found):
        raise Violation("encode", expected, f"{type(found).__name__} {list(getattr(found, 'shape', ()))}")


def _require_as_records(encoder: Encoder, what: str, found: Output, encoded: Any) -> None:
    """Raise unless results are records, as far as `encode` may not cut them or apply an activation."""
    expected, got = rows(found), rows_encoded(encoded)
    if len(expected) != len(got):
        raise Violation(f"{what}: another number of items", len(expected), len(got))
    if encoder.family == "cross-encoder":
        _require_same_order(what, torch.stack(expected), torch.stack(got))
        return
    cut = _CUTS.get(encoder.family)
    if cut is not None:
        expected = [cut(each, other) for each, other in zip(expected, got, strict=True)]
    require_rows(what, expected, got)


def _leading(row: Tensor, like: Tensor) -> Tensor:
    """As many leading dimensions as another vector has."""
    return row[: len(like)]


def _largest(row: Tensor, like: Tensor) -> Tensor:
    """The largest entries only, as many as another vector has, at least one."""
    places = row.abs().topk(max(1, int(like.count_nonzero()))).indices
    return torch.zeros_like(row).index_copy(0, places, row[places])


_CUTS = {"dense": _leading, "sparse": _largest}
"""What is left of a record where `encode` cuts it."""


def _require_same_order(what: str, raw: Tensor, scores: Tensor) -> None:
    """Raise unless scores of pairs, or of the classes of each pair, are in the order of the raw ones."""
    if raw.shape != scores.shape:
        raise Violation(f"{what}: the shape of scores differs", list(raw.shape), list(scores.shape))
    if raw.ndim == 1:
        raw, scores = raw[None], scores[None]
    apart = raw[:, :, None] - raw[:, None, :] > CLOSE * raw.abs().max()
    turned = (apart & (scores[:, :, None] < scores[:, None, :])).nonzero()
    if len(turned):
        row, high, low = turned[0].tolist()
        expected = f"{float(raw[row, high]):g} > {float(raw[row, low]):g}"
        raise Violation(f"{what}: the order of scores differs", expected, scores[row, [high, low]].tolist())


@law(None, "encoder", cause="encode leaves role or prompt out")
def encoder_roles(subject: Subject) -> None:
    """Roles and prompts do the same in `preprocess` and in `encode`; a prompt is read or refused."""
    encoder, items = ready(subject)
    for role in ROLES:
        found = encoder.encode(items, role=role)
        _require_as_records(
            encoder, f"encode with role={role!r} beside the records", record(encoder, items, role=role), found
        )
    try:
        prompted = record(encoder, items, prompt=PROMPT)
    except (LosskitError, ValueError, TypeError):
        return
    if all(map(torch.equal, rows(prompted), rows(record(encoder, items, prompt="")))):
        raise Violation(
            "a prompt is not read, and not refused", f"records of {PROMPT!r} and the text", "those of the text"
        )
    _require_as_records(
        encoder, "encode with a prompt beside the records", prompted, encoder.encode(items, prompt=PROMPT)
    )


@law(6, "encoder", cause="eval() or train() of its own, or dropout in encode")
def encoder_modes(subject: Subject) -> None:
    """`encode` is deterministic in either mode; no call touches modes, weights, features or global state."""
    encoder, items = ready(subject)
    expected = rows_encoded(encoder.encode(items))
    for training in (False, True):
        if isinstance(encoder, nn.Module):
            encoder.train(training)
        features = encoder.preprocess(items)
        before = _state(encoder, features)
        got = rows_encoded(encoder.encode(items))
        _require_untouched(f"encode with training={training}", before, _state(encoder, features))
        require_rows(f"encode with training={training}", expected, got)
        encoder.preprocess(items)
        _require_untouched("preprocess", before, _state(encoder, features))
        with torch.random.fork_rng(devices=[]):  # dropout may draw
            found = encoder(features)
        _require_untouched("a call", before, _state(encoder, features))
        if not training:
            require_rows("a call in evaluation mode, again", rows(found), rows(encoder(features)))
            _require_untouched("a call in evaluation mode", before, _state(encoder, features))


def _state(encoder: Encoder, features: Features) -> dict[str, Any]:
    weights: dict[str, Tensor] = {}
    if isinstance(encoder, nn.Module):
        weights |= encoder.named_parameters()
        weights |= {} if encoder.training else encoder.named_buffers()  # in training they may count
    tensors = {key: value for key, value in features.items() if isinstance(value, Tensor)}
    return {
        "the keys of its features": sorted(features),
        **{f"feature {key!r}": value.tolist() for key, value in tensors.items()},
        **{name: value._version for name, value in weights.items()},
        "the modes of its parts": list(modes_of(encoder).values()) if isinstance(encoder, nn.Module) else [],
        "the random state of torch": torch.get_rng_state().tolist(),
        "the random state of Python": random.getstate(),
        "the random state of numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]
        "the default dtype": torch.get_default_dtype(),
        "grad mode": torch.is_grad_enabled(),
    }


def _require_untouched(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name, was in before.items():
        if was != after[name]:
            short = isinstance(was, torch.dtype | bool | int | str)
            raise Violation(
                f"{what} changes {name}", was if short else "as before", after[name] if short else "another"
            )


LAWS = (encode, encoder_roles, encoder_modes)
