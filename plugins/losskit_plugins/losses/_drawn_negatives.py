"""Negatives of an anchor that are drawn among the documents of the batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["draw_places", "draw_texts"]


def draw_places(
    numbers: Float[Tensor, "rows picks"], size: int, taken: Int[Tensor, "rows _"]
) -> Int[Tensor, "rows picks"]:
    """Distinct places from 0 to size - 1; at each pick all that are left are as likely.

    Args:
        numbers: uniform in [0, 1), one per pick.
        size: how many places there are.
        taken: rising places of each row that are not to be picked; `size` fills up.

    Returns:
        The places; `size` where none is left.

    >>> draw_places(torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.9, 0.9]]), 3, torch.tensor([[0], [1]]))
    tensor([[1, 2, 3],
            [2, 0, 3]])
    """
    picked = taken[:, :0]
    for number in numbers.unbind(1):
        left = size - (taken < size).sum(1)
        place = (number * left).long()
        for other in taken.unbind(1):  # counted among those left, it moves on past each that is not
            place = place + (other <= place)
        place = place.clamp(max=size)[:, None]
        picked, taken = torch.cat([picked, place], 1), torch.cat([taken, place], 1).sort(1).values
    return picked


def draw_texts(columns: Sequence[Sequence[str]], numbers: Tensor | None) -> list[list[str]]:
    """Documents of other rows for each anchor, none of which the batch says is its own.

    Left out are its own negatives, and the positives of all rows with the same anchor, wherever their texts stand.

    Args:
        columns: anchors, positives and any number of columns of negatives.
        numbers: of `draw_places`, [rows, picks]; None: all documents of other rows.

    >>> draw_texts([["a", "b", "a"], ["p", "q", "r"], ["n", "o", "s"]], None)
    [['q', 'o', 's'], ['p', 'r', 'n', 's'], ['q', 'n', 'o']]
    """
    anchors, positives, *negatives = columns
    documents = [text for column in columns[1:] for text in column]
    places, answers = defaultdict(list), defaultdict(set)
    for place, text in enumerate(documents):
        places[text].append(place)
    for anchor, positive in zip(anchors, positives, strict=True):
        answers[anchor].add(positive)
    own = [answers[anchor].union(rest) for anchor, *rest in zip(anchors, *negatives, strict=True)]
    if numbers is None:
        return [[text for text in documents if text not in texts] for texts in own]
    size = len(documents)
    taken = [sorted(place for text in texts for place in places[text]) for texts in own]
    longest = max(map(len, taken))
    padded = torch.tensor([row + [size] * (longest - len(row)) for row in taken])
    picked = draw_places(numbers, size, padded).tolist()
    return [[documents[place] for place in row if place < size] for row in picked]
