"""The rows and candidates that the contrastive losses of a batch share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from losskit import Output
from losskit.math import Block, promoted, tuple_index

__all__ = ["InBatch"]

Adjust = Callable[[Tensor, slice], Tensor]
REMOVED = float("-inf")


class InBatch:
    """The rows of the softmax: one per positive of the tuples in question.

    `owners` holds the tuple of each row, `targets` its positive's place among all positives, which come first of
    the documents, and `weights` what it counts. Every block takes a function that adjusts its tiles further.
    """

    def __init__(self, columns: Sequence[Output], rows: slice) -> None:
        self.columns, self.rows = columns, rows
        self.anchors, self.positives = columns[0], columns[1]
        self.counts = self.positives.lists
        self.device = self.positives.embedding.device
        self.first, self.last = rows.start, rows.stop
        if self.counts is not None:
            self.first, self.last = sum(self.counts[: rows.start]), sum(self.counts[: rows.stop])
        self.targets = torch.arange(self.first, self.last, device=self.device)
        self.owners = self.targets
        if self.counts is not None:
            self.owners = tuple_index(self.counts, self.positives.items, self.device)[self.first : self.last]
        self._documents: Output | None = None
        # A record that stands in several places is the very same object: scoring then works on it once.
        self.every_row = (self.first, self.last) == (0, self.positives.items)
        self.row_anchors = self.anchors if self.every_row and self.counts is None else self.anchors.map(self.of_anchors)
        self.row_positives = self.positives if self.every_row else self.positives.map(self.of_positives)

    def of_anchors(self, values: Tensor) -> Tensor:
        """Of values per anchor those of the rows."""
        if self.counts is not None:
            return values[self.owners]
        return values if self.every_row else values[self.rows]

    def of_positives(self, values: Tensor) -> Tensor:
        """Of values per positive those of the rows."""
        return values if self.every_row else values[self.first : self.last]

    @property
    def documents(self) -> Output:
        """Positives and negatives: one record however often it is asked for."""
        if self._documents is None:
            self._documents = self.positives if len(self.columns) == 2 else Output.cat(self.columns[1:])
        return self._documents

    @property
    def weights(self) -> Tensor:
        """The mean over tuples of the mean over their positives, times sample weights."""
        size, dtype = self.rows.stop - self.rows.start, promoted(self.positives.embedding).dtype
        share = torch.full((self.last - self.first,), 1 / max(1, size), device=self.device, dtype=dtype)
        if self.counts is not None:
            share = share / torch.tensor(self.counts, device=self.device, dtype=dtype)[self.owners]
        weight = self.anchors.weight
        return share if weight is None else share * self.of_anchors(weight).to(dtype)

    def query_to_doc(self, adjust: Adjust | None = None) -> Block:
        """Each anchor with all documents, without its other positives."""
        return Block(self.row_anchors, self.documents, self._without_siblings(self.documents.items, adjust))

    def query_to_positive(self, adjust: Adjust | None = None) -> Block:
        """Each anchor with all positives, without its other ones."""
        return Block(self.row_anchors, self.positives, self._without_siblings(self.positives.items, adjust))

    def query_to_negative(self, negatives: Output, adjust: Adjust | None = None) -> Block:
        """Each anchor with all texts of a column of negatives."""
        return Block(self.row_anchors, negatives, adjust)

    def query_to_query(self, adjust: Adjust | None = None) -> Block:
        """Each anchor with the other anchors."""
        return Block(self.row_anchors, self.anchors, self._without_own_place(adjust))

    def doc_to_query(self) -> Block:
        """Each positive with all anchors, its own among them."""
        return Block(self.row_positives, self.anchors, turned=True)

    def doc_to_doc(self) -> Block:
        """Each positive with the documents of other tuples."""
        return Block(self.row_positives, self.documents, self._without_own(self.documents.items), turned=True)

    def positive_to_positive(self, adjust: Adjust | None = None) -> Block:
        """Each positive with those of other tuples."""
        if self.counts is None:
            return Block(self.row_positives, self.positives, self._without_own_place(adjust))
        return Block(self.row_positives, self.positives, self._without_own(self.positives.items, adjust))

    def penalty(self, mode: str, strength: float) -> Adjust:
        """Adds `strength` times their logits to the negatives that the hardness mode picks."""
        own, places = self._document_owners(), torch.arange(self.documents.items, device=self.device)
        picked: dict[str, Callable[[slice], Tensor]] = {
            "in_batch_negatives": lambda part: own != self.owners[part, None],
            "hard_negatives": lambda part: (own == self.owners[part, None]) & (places >= self.positives.items),
            "all_negatives": lambda part: places != self.targets[part, None],
        }
        negatives = picked[mode]

        def adjust(logits: Tensor, part: slice) -> Tensor:
            return (logits * strength).masked_fill_(~negatives(part), 0.0)

        return adjust

    def _document_owners(self) -> Tensor:
        """The tuple of each document."""
        return torch.cat([tuple_index(column.lists, column.items, self.device) for column in self.columns[1:]])

    def _without_own(self, candidates: int, adjust: Adjust | None = None) -> Adjust:
        """Without the first documents that belong to a row's own tuple."""
        own = self._document_owners()[:candidates]
        return _without(lambda part: own == self.owners[part, None], adjust)

    def _without_siblings(self, candidates: int, adjust: Adjust | None) -> Adjust | None:
        if self.counts is None:
            return adjust
        own, places = self._document_owners()[:candidates], torch.arange(candidates, device=self.device)
        sibling = places < self.positives.items
        return _without(
            lambda part: (own == self.owners[part, None]) & sibling & (places != self.targets[part, None]), adjust
        )

    def _without_own_place(self, adjust: Adjust | None) -> Adjust:
        def adjusted(logits: Tensor, part: slice) -> Tensor:
            added = torch.zeros_like(logits) if adjust is None else adjust(logits, part)
            return added.scatter_(1, self.owners[part, None], REMOVED)

        return adjusted


def _without(which: Callable[[slice], Tensor], adjust: Adjust | None) -> Adjust:
    """An adjustment that also removes the candidates of some rows that a mask picks."""

    def adjusted(logits: Tensor, part: slice) -> Tensor:
        added = torch.zeros_like(logits) if adjust is None else adjust(logits, part)
        return added.masked_fill_(which(part), REMOVED)

    return adjusted
