"""Encoders beside the trained one: frozen guides and teachers, and towers that are trained with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .errors import LossError
from .execution import encode
from .features import Riders, move, token_ids
from .modes import in_evaluation
from .output import Output
from .protocols import Encoder, Features

if TYPE_CHECKING:
    from .loss import Loss

__all__ = ["columns_read", "encode_further", "unread"]


def columns_read(losses: Iterable[Loss], name: str, columns: int) -> list[int]:
    """Which columns an encoder reads for a tree of losses; without a word about it the trained one reads all.

    A negative place counts from the last column.
    """
    read: set[int] = set()
    for loss in losses:
        reads = loss.reads
        # The trained encoder reads all where nothing is said of it; a further one is read by those that name it.
        found = None if reads is None else reads.get(name, None if name == "model" else ())
        if found is None:
            return list(range(columns))
        read |= {index + columns if index < 0 else index for index in found}
    return sorted(index for index in read if 0 <= index < columns)


def unread(encoder: Encoder, features: Features, needs: Sequence[str], lists: tuple[int, ...] | None) -> Output:
    """The record of a column that the trained encoder does not read: no embedding, but what was asked for."""
    padding = getattr(encoder, "padding", {})
    return Output(None, parts={"input_ids": token_ids(features, padding)} if "input_ids" in needs else {}, lists=lists)


def encode_further(
    root: Loss, columns: Sequence[Output], features: Sequence[Features], riders: Sequence[Riders]
) -> list[Output]:
    """The records with those of the further encoders of the tree in their parts, by name."""
    records = [dict(column.parts) for column in columns]
    for _, loss in root.tree():
        for name, encoder in loss.frozen.items():
            for index in columns_read([loss], name, len(columns)):
                if name not in records[index]:
                    seen = root.view(encoder)
                    own = _own_features(root.encoder, name, seen, features[index], riders[index])
                    records[index][name] = _frozen(encoder, seen, own, root)
        for name, tower in loss.towers.items():
            places = [i for i in columns_read([loss], name, len(columns)) if name not in records[i]]
            module = tower if isinstance(tower, nn.Module) else None
            made = encode(root.view(tower), module, [features[i] for i in places], root.execution, ())
            for index, output in zip(places, made, strict=True):
                records[index][name] = output
    return [replace(column, parts=parts) for column, parts in zip(columns, records, strict=True)]


def _own_features(student: Encoder, name: str, encoder: Encoder, features: Features, riders: Riders) -> Features:
    """What a frozen encoder reads: texts with its own prompts, else the student's tokens if it knows the same ones.

    Token ids never cross from one vocabulary to another.
    """
    texts = riders.texts
    if texts is None and _reads_the_same(student, encoder):
        return features
    if texts is None:
        decode = getattr(student, "decode", None)
        if decode is None:
            raise LossError(
                f"the frozen encoder {name!r}",
                expected="texts that ride along with the features, or a model that can decode them",
                got=f"neither ({type(student).__name__} has no method decode)",
                fix="train with losskit.train, whose batches carry texts",
            )
        texts = decode(features)
    device = next(value.device for value in features.values() if isinstance(value, torch.Tensor))
    # Plain texts ask for nothing, for a foreign tokeniser may know no roles.
    role = {} if riders.role == "text" else {"role": riders.role}
    return move(encoder.preprocess(texts, **role), device)


def _reads_the_same(student: Encoder, encoder: Encoder) -> bool:
    """Whether the tokens of the student mean the same to another encoder, and are not too many for it."""
    tokenizers = [getattr(each, "tokenizer", None) for each in (student, encoder)]
    if not all(callable(getattr(tokenizer, "get_vocab", None)) for tokenizer in tokenizers):
        return False
    if not _same_vocabulary(*tokenizers):
        return False
    most, limit = (getattr(each, "max_length", None) for each in (student, encoder))
    return limit is None or (most is not None and most <= limit)


@lru_cache(maxsize=8)
def _same_vocabulary(a: Any, b: Any) -> bool:
    vocabulary: bool = a is b or a.get_vocab() == b.get_vocab()
    return vocabulary


def _frozen(encoder: Any, seen: Encoder, features: Features, root: Loss) -> Output:
    """Without gradients, in evaluation mode, on the device of the features."""
    module = encoder if isinstance(encoder, nn.Module) else None
    if module is not None:
        module.to(next(value.device for value in features.values() if isinstance(value, torch.Tensor)))
    with in_evaluation(module), torch.no_grad():
        (output,) = encode(seen, None, [features], root.execution, ())
    return output
