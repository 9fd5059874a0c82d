"""What a player plays: records as features and texts that name their places, and as what a model returns for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..card import Format, split_input
from ..errors import LossError
from ..math.precision import promoted
from ..output import Output, Tokens

__all__ = ["Feed", "Playing", "place_of", "scores_of"]


class Feed:
    """What is played just now, shared by a player and its copies: a loss may copy its model."""

    def __init__(self) -> None:
        self.playing: Playing | None = None
        self.without_gradients = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Feed:
        return self


@dataclass(frozen=True)
class Playing:
    """Records as a player returns them.

    Args:
        columns: as a loss's `compute` gets them; of a cross-encoder one of scores with lists.
        form: the data that they come from.
    """

    columns: Sequence[Output]
    form: Format

    @property
    def joined(self) -> Output:
        """The records of all columns one after another."""
        return Output.cat(list(self.columns))

    def features(self) -> list[dict[str, Tensor]]:
        """Features per column: the first token of an item is its place, so whatever is cut or merged can be played."""
        starts = accumulate((column.items for column in self.columns), initial=0)
        return [_features(column, start) for column, start in zip(self.columns, starts, strict=False)]

    def labels(self, labels: Tensor | None) -> Tensor | list[Tensor] | None:
        """Labels as trainers hand them over: with lists of documents one tensor per row."""
        lists = self.columns[0].lists
        if labels is None or lists is None or not self._listed:
            return labels
        return list(labels.split(lists))

    @property
    def _listed(self) -> bool:
        return any(split_input(name)[0] == "documents" for name in self.form.inputs)

    def texts(self) -> list[list[Any]]:
        """Columns of texts, of which a cross-encoder scored query and documents; each names its place."""
        lists = self.columns[0].lists or (1,) * self.columns[0].items
        starts = list(accumulate(lists, initial=0))
        rows = [
            [f"document {start + place}" for place in range(size)] for start, size in zip(starts, lists, strict=False)
        ]
        queries = [f"query {row}" for row in range(len(lists))]
        if self._listed:
            return [queries, rows]
        return [queries, *map(list, zip(*rows, strict=True))]


def _features(column: Output, start: int) -> dict[str, Tensor]:
    values = column.embedding
    if values is None:
        raise LossError("records for a plain module", expected="embeddings in every column", got="none")
    tokens = column.parts.get("input_ids")
    mask = column.mask
    if mask is None:
        mask = tokens.mask if isinstance(tokens, Tokens) else values.new_ones((column.items, 1), dtype=torch.bool)
    ids = torch.zeros(mask.shape, dtype=torch.long, device=values.device)
    ids[:, 0] = torch.arange(start, start + column.items, device=values.device)
    made = {"input_ids": ids, "attention_mask": mask.long()}
    return {**made, "words": tokens.values} if isinstance(tokens, Tokens) else made


def scores_of(record: Output, queries: Tensor, documents: Tensor) -> Tensor:
    """The scores of pairs: recorded ones, and for a query with the document of another row a function of both's.

    A smooth one that stays within [-1, 1], so that it has a gradient and follows the rows wherever they stand.
    """
    own = record.embedding
    assert own is not None
    lists = torch.tensor(record.lists or (1,) * record.items, device=own.device)
    rows = torch.arange(len(lists), device=own.device).repeat_interleave(lists, output_size=record.items)
    wide = promoted(own)
    sums = wide.new_zeros(len(lists), *own.shape[1:]).index_add(0, rows, wide)
    means = sums / lists.clamp(min=1).view(-1, *(1 for _ in own.shape[1:]))
    foreign = (means.index_select(0, queries) + 2 * wide.index_select(0, documents)).sin()
    same = (rows.index_select(0, documents) == queries).view(-1, *(1 for _ in own.shape[1:]))
    return torch.where(same, own.index_select(0, documents), foreign.to(own.dtype))


def place_of(text: str) -> int:
    """The place that a text names.

    Raises:
        LossError: a text that is not of the batch.
    """
    name, _, place = text.rpartition(" ")
    if name not in ("query", "document") or not place.isdecimal():
        raise LossError("texts for the model", expected="those of the batch, as they are", got=repr(text))
    return int(place)
