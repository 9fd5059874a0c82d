"""Embedding bags: features that are the tokens of all texts in a row, and where each text begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from losskit.protocols import Features

__all__ = ["join_bags", "lengths_of_bags", "split_bags", "take_bags"]


def lengths_of_bags(features: Features) -> list[int]:
    """How many tokens each text has.

    >>> lengths_of_bags({"input_ids": torch.tensor([5, 7, 6]), "offsets": torch.tensor([0, 2, 2])})
    [2, 0, 1]
    """
    counts: list[int] = _counts(features).tolist()
    return counts


def split_bags(features: Features) -> Sequence[Tensor]:
    """The tokens of each text."""
    return features["input_ids"].split(lengths_of_bags(features))


def take_bags(features: Features, rows: slice | Sequence[int]) -> Features:
    """Some texts.

    >>> bags = {"input_ids": torch.tensor([5, 7, 6]), "offsets": torch.tensor([0, 2, 2])}
    >>> take_bags(bags, [2, 0])
    {'input_ids': tensor([6, 5, 7]), 'offsets': tensor([0, 1])}
    """
    ids, offsets = features["input_ids"], features["offsets"]
    picked = rows if isinstance(rows, slice) else torch.tensor(rows, dtype=torch.long, device=offsets.device)
    counts = _counts(features)[picked]
    begins = counts.cumsum(0) - counts
    shifts = torch.repeat_interleave(offsets[picked] - begins, counts)
    places = shifts + torch.arange(len(shifts), device=shifts.device)
    return {**features, "input_ids": ids[places], "offsets": begins}


def join_bags(features: Sequence[Features]) -> Features:
    """The texts of several features one after another."""
    ids = [each["input_ids"] for each in features]
    starts = accumulate(map(len, ids[:-1]), initial=0)
    offsets = [each["offsets"] + start for each, start in zip(features, starts, strict=True)]
    return {**features[0], "input_ids": torch.cat(ids), "offsets": torch.cat(offsets)}


def _counts(features: Features) -> Tensor:
    offsets = features["offsets"]
    return torch.diff(offsets, append=offsets.new_tensor([len(features["input_ids"])]))
