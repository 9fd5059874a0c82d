"""Embedding bags: features that are the tokens of all texts in a row, and where each text begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losskit.protocols import Features

__all__ = ["join_bags", "lengths_of_bags", "split_bags", "take_bags"]


def lengths_of_bags(features: Features) -> list[int]:
    """How many tokens each text has.

    >>> lengths_of_bags({"input_ids": torch.tensor([5, 7, 6]), "offsets": torch.tensor([0, 2, 2])})
    [2, 0, 1]
    """
    offsets, end = features["offsets"], len(features["input_ids"])
    counts: list[int] = torch.diff(offsets, append=offsets.new_tensor([end])).tolist()
    return counts


def split_bags(features: Features) -> Sequence[Tensor]:
    """The tokens of each text."""
    return features["input_ids"].split(lengths_of_bags(features))


def take_bags(features: Features, rows: slice | Sequence[int]) -> Features:
    """Some texts."""
    texts = split_bags(features)
    return _of(features, texts[rows] if isinstance(rows, slice) else [texts[row] for row in rows])


def join_bags(features: Sequence[Features]) -> Features:
    """The texts of several features one after another."""
    return _of(features[0], [text for each in features for text in split_bags(each)])


def _of(features: Features, texts: Sequence[Tensor]) -> Features:
    """Like the features, of other texts."""
    ids, offsets = features["input_ids"], features["offsets"]
    counts = offsets.new_tensor([len(text) for text in texts])
    return {**features, "input_ids": torch.cat([ids[:0], *texts]), "offsets": counts.cumsum(0) - counts}
