"""What the triplet losses over the classes of a batch share: who is whose positive, and the hardest of them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from losskit import Loss, Output
from losskit.math import found_scores

__all__ = ["Classes", "hardest_similarities", "why_idle"]


class Classes:
    """The items of a batch by class: an anchor's positives are the others of its class, all else are negatives.

    Args:
        labels: [items] or [items, 1].
        rows: the items that are anchors.
    """

    def __init__(self, labels: Tensor, rows: slice) -> None:
        # Of tensors that are not contiguous searchsorted copies, and warns.
        self.labels = labels.reshape(-1).long().contiguous()
        self.rows = rows
        ordered, self.order = self.labels.sort()
        self.first = torch.searchsorted(ordered, self.labels)
        self.counts = torch.searchsorted(ordered, self.labels, right=True) - self.first
        # The host knows the sizes of classes only on the CPU, and not while it is traced.
        known = labels.device.type == "cpu" and not torch.compiler.is_compiling()
        self.largest = int(self.counts.max()) if known else len(self.labels)

    def positives(self) -> Int[Tensor, " rows"]:
        """How many positives each anchor has; 0 for one without negatives, which is in no triplet."""
        counts = self.counts[self.rows]
        return (counts - 1) * (counts < len(self.labels))

    def members(self, part: slice) -> tuple[Int[Tensor, "rows k"], Bool[Tensor, "rows k"]]:
        """The places of the class of each anchor of a tile, and which of them are its positives.

        Where a class is smaller than the largest, its last member stands there again.
        """
        own = slice(self.rows.start + part.start, self.rows.start + part.stop)
        counts = self.counts[own, None]
        offset = torch.arange(self.largest, device=counts.device)
        ordered = self.first[own, None] + offset.minimum(counts - 1)
        places = self.order.take(ordered)
        anchors = torch.arange(own.start, own.stop, device=counts.device)
        return places, (offset < counts) & (places != anchors[:, None])

    def ordered_positives(
        self, scores: Float[Tensor, "rows items"], part: slice
    ) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows k"], Float[Tensor, "rows items"]]:
        """The places of the positives of each anchor of a tile, the farthest first, and their similarities.

        Where an anchor has fewer, places of no meaning follow, with a similarity of infinity. And the similarities of
        the negatives, with minus infinity where an item is none.
        """
        places, positive = self.members(part)
        found, order = scores.gather(1, places).masked_fill_(~positive, float("inf")).sort(1)
        return places.gather(1, order), found, scores.scatter(1, places, float("-inf"))


def hardest_similarities(
    loss: Loss, record: Output, labels: Tensor, rows: slice
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Bool[Tensor, " rows"]]:
    """The similarities of each anchor with its farthest positive and its nearest negative, and whether it has both."""
    classes = Classes(labels, rows)

    def hardest(scores: Tensor, part: slice) -> Tensor:
        """The places of both; where there is none, a place of no meaning."""
        members, positive = classes.members(part)
        farthest = scores.gather(1, members).masked_fill_(~positive, float("inf")).argmin(1, keepdim=True)
        nearest = scores.scatter_(1, members, float("-inf")).argmax(1, keepdim=True)
        return torch.cat([members.gather(1, farthest), nearest], 1)

    found = found_scores(record[rows], record, hardest, similarity=loss.scorer, pairwise=loss.pairwise_each)
    positive, negative = found.unbind(1)
    return positive, negative, classes.positives() > 0


def why_idle(labels: Tensor | None) -> str:
    """Why a batch has no triplet, or nothing."""
    if labels is None:
        return ""
    counts = labels.reshape(-1).unique(return_counts=True)[1]
    if len(counts) == 1:
        return "all rows are of one class, so there are no negatives"
    return "" if int(counts.max()) > 1 else "no two rows are of one class, so there are no positives"
