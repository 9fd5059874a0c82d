"""What laws of encoders need: an encoder that is ready, what it reads, and rows of what it makes of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from scipy.sparse import issparse
from torch import Tensor, nn

from ..errors import LosskitError
from ..output import Output
from ..protocols import Encoder, Features
from ..validation.findings import NotApplicable, Violation
from .compare import require_close
from .subject import Subject

__all__ = [
    "CLOSE",
    "ROLES",
    "at_rest",
    "in_batch",
    "made",
    "module_of",
    "ready",
    "record",
    "require_rows",
    "rows",
    "rows_encoded",
]

ROLES = ("text", "query", "document")
CLOSE = 1e-4
"""The relative error, by the largest entry, at which records count as equal: encoders work in float32, where sums in
another order differ by 1e-6 in one layer."""
TEXTS = (
    "word3 word14",
    "a cat sat on the mat",
    "word7",
    "the dogs bark at the fox, and the fox runs",
    "word3 word14 word15 word9 word2",
    "dogs bark",
)


@contextmanager
def _seeded(subject: Subject) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        yield


def made(subject: Subject) -> Encoder:
    """The encoder at rest, the same each time."""
    with _seeded(subject):
        return at_rest(subject.make())


def at_rest(encoder: Encoder) -> Encoder:
    """The encoder in evaluation mode, and in float32 where it is in less: that would hide small differences."""
    if isinstance(encoder, nn.Module):
        encoder.eval()
        if any(each.dtype in (torch.float16, torch.bfloat16) for each in encoder.parameters()):
            encoder.float()
    return encoder


def ready(subject: Subject) -> tuple[Encoder, list[Any]]:
    """The encoder, and items that it reads: its `examples`, else texts, or pairs of them.

    One that measures its inputs has seen them.

    Raises:
        NotApplicable: it refuses texts by name, and has no examples.
    """
    encoder = made(subject)
    stated = getattr(encoder, "examples", None)
    items: list[Any] = list(TEXTS if stated is None else stated)
    if stated is None and encoder.family == "cross-encoder":
        items = list(zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True))
    try:
        fit = getattr(encoder, "fit_inputs", None)
        if fit is not None:
            with _seeded(subject):  # what is new with its inputs begins at random
                fit(items)
        encoder.preprocess(items)
    except LosskitError as refusal:
        if stated is None:
            what = "texts" if isinstance(items[0], str) else "pairs of texts"
            raise NotApplicable(
                f"what it reads is not known: it refuses {what}, and has no attribute `examples` ({refusal})"
            ) from refusal
        raise
    return encoder, items


def module_of(encoder: Encoder) -> nn.Module:
    """The encoder as a module with something to train.

    Raises:
        NotApplicable: there is nothing.
    """
    if not isinstance(encoder, nn.Module) or not any(p.requires_grad for p in encoder.parameters()):
        raise NotApplicable("it has no parameters that are to be trained")
    return encoder


def record(encoder: Encoder, items: Sequence[Any], *, role: str = "text", prompt: str | None = None) -> Output:
    """What it makes of items, without gradients."""
    with torch.no_grad():
        return encoder(encoder.preprocess(items, role=role, prompt=prompt))


def rows(found: Output) -> list[Tensor]:
    """What a record says of each item: of tokens those that count."""
    assert found.embedding is not None
    embedding = found.embedding.detach().double()
    if found.mask is None:
        return list(embedding)
    return [tokens[mask] for tokens, mask in zip(embedding, found.mask, strict=True)]


def rows_encoded(found: Any) -> list[Tensor]:
    """What `encode` says of each item."""
    return [torch.as_tensor(each).double() for each in (found.toarray() if issparse(found) else found)]


def require_rows(what: str, expected: Sequence[Tensor], got: Sequence[Tensor], tolerance: float = CLOSE) -> None:
    """Raise unless each item has the same row.

    Raises:
        Violation: says which item has another.
    """
    if len(expected) != len(got):
        raise Violation(f"{what}: another number of items", len(expected), len(got))
    for place, (one, other) in enumerate(zip(expected, got, strict=True), start=1):
        told = f"{what}: item {place} of {len(expected)} differs"
        if one.shape != other.shape:
            raise Violation(f"{told} in shape", list(one.shape), list(other.shape))
        require_close(told, one, other, tolerance)


def in_batch(encoder: Encoder, items: Sequence[Any]) -> list[Features]:
    """A batch of a few rows for losses: a column of pairs, or one of queries and one of documents."""
    if encoder.family == "cross-encoder":
        return [{**encoder.preprocess(items), "lists": (1,) * len(items)}]
    others = [*items[1:], items[0]]
    return [encoder.preprocess(items, role="query"), encoder.preprocess(others, role="document")]
