"""What the triplet losses over the classes of a batch share: who is whose positive, and the hardest of them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from losskit import Loss, Output, Similarity
from losskit.math import tiles

__all__ = ["Classes", "hardest_similarities", "why_idle"]


def same_class(labels: Tensor, anchors: Tensor) -> Bool[Tensor, "anchors items"]:
    """Which items are of the class of each anchor, itself among them."""
    return labels[anchors, None] == labels


class Classes:
    """The items of a batch by class: an anchor's positives are the others of its class, all else are negatives.

    Args:
        labels: [items] or [items, 1].
        rows: the items that are anchors.
    """

    def __init__(self, labels: Tensor, rows: slice) -> None:
        self.labels = labels.reshape(-1)
        self.anchors = torch.arange(rows.start, rows.stop, device=labels.device)
        ordered, self.order = self.labels.sort()
        self.first = torch.searchsorted(ordered, self.labels)
        self.counts = torch.searchsorted(ordered, self.labels, right=True) - self.first
        # The host knows the sizes of classes only on the CPU, and not while it is traced.
        known = labels.device.type == "cpu" and not torch.compiler.is_compiling()
        self.largest = int(self.counts.max()) if known else len(self.labels)

    def positives(self) -> Int[Tensor, " rows"]:
        """How many positives each anchor has; 0 for one without negatives, which is in no triplet."""
        counts = self.counts[self.anchors]
        return (counts - 1) * (counts < len(self.labels))

    def same(self, part: slice) -> Bool[Tensor, "rows items"]:
        """Which items are no negatives of the anchors of a tile."""
        return same_class(self.labels, self.anchors[part])

    def ordered_positives(
        self, scores: Float[Tensor, "rows items"], part: slice
    ) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"]]:
        """The places of the positives of each anchor of a tile, the farthest first, and their similarities.

        Where an anchor has fewer, places of no meaning follow, with a similarity of infinity.
        """
        own = self.anchors[part, None]
        offset = torch.arange(self.largest, device=scores.device)
        places = self.order[(self.first[own] + offset).clamp(max=len(self.labels) - 1)]
        there = (offset < self.counts[own]) & (places != own)
        found, order = scores.gather(1, places).masked_fill(~there, float("inf")).sort(1)
        return places.gather(1, order), found


def hardest_similarities(
    loss: Loss, record: Output, labels: Tensor, rows: slice
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """The similarities of each anchor with its farthest positive and its nearest negative, and whether it has both."""
    anchors = record[rows]
    positives, negatives, where = _hardest(anchors, record, labels.reshape(-1), rows.start, loss.scorer)
    positive, negative = loss.pairwise_each(anchors, [record[positives], record[negatives]]).unbind(1)
    return positive, negative, where


def why_idle(labels: Tensor | None) -> str:
    """Why a batch has no triplet, or nothing."""
    if labels is None:
        return ""
    counts = labels.reshape(-1).unique(return_counts=True)[1]
    if len(counts) == 1:
        return "all rows are of one class, so there are no negatives"
    return "" if int(counts.max()) > 1 else "no two rows are of one class, so there are no positives"


def _hardest(
    anchors: Output, record: Output, labels: Tensor, first: int, similarity: Similarity
) -> tuple[Tensor, Tensor, Tensor]:
    """The places of both, without gradient, and whether there are both; where not, a place of no meaning."""
    found = [(labels[:0], labels[:0], labels[:0] > 0)]
    for part, scores in tiles(anchors, record, similarity):
        own = torch.arange(first + part.start, first + part.stop, device=labels.device)
        same = same_class(labels, own)
        counts = same.sum(1)
        negatives = scores.masked_fill(same, float("-inf")).argmax(1)
        positives = scores.masked_fill(~same.scatter_(1, own[:, None], False), float("inf")).argmin(1)
        found.append((positives, negatives, (counts > 1) & (counts < len(labels))))
    positives, negatives, where = map(torch.cat, zip(*found, strict=True))
    return positives, negatives, where
