"""Batch-all triplets: every triplet of a batch that is not yet in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number
from losskit.math import over_tiles

from ._batch_triplets import Classes, why_idle

__all__ = ["BatchAllTripletLoss", "active_triplets"]


def active_triplets(
    positives: Float[Tensor, "rows k"], thresholds: Float[Tensor, "rows items"]
) -> tuple[Int[Tensor, "rows k"], Int[Tensor, "rows items"]]:
    """How many items each positive is below the threshold of, and how many positives are below each item's.

    By sorting, in O(k log k + items log k) a row and without the triplets.

    Args:
        positives: similarities of each anchor with its positives, in ascending order.
        thresholds: what a positive has to reach: the similarity of a negative plus the margin; minus infinity for
            items that are no negatives.

    >>> active_triplets(torch.tensor([[0.1, 0.5, 0.9]]), torch.tensor([[0.5, 0.6]]))
    (tensor([[2, 1, 0]]), tensor([[1, 2]]))
    """
    below = torch.searchsorted(positives, thresholds)
    often = below.new_zeros(len(positives), positives.shape[1] + 1).scatter_add_(1, below, torch.ones_like(below))
    return often.flip(1).cumsum(1).flip(1)[:, 1:], below


class BatchAllTripletLoss(Loss):
    """Wants each text nearer to all of its class than to any of other classes, by a margin.

    The mean is over the triplets that are not in order by the margin; the others cost nothing and do not count.

    Args:
        model: an encoder that embeds.
        margin: by how much, in units of the similarity: 5 suits Euclidean distances, cosines lie within 2.
        similarity: by name; None: Euclidean.
        execution: how records come about.

    Raises:
        LossError: a margin that is not positive.
    """

    card = Card(
        formats=[Format(inputs=["text"], labels="class")],
        encoders=["dense", "sparse"],
        row_wise=False,
        memory="tile",
        formula="mean over (a, p, n) with s_an - s_ap + margin > 0 of s_an - s_ap + margin, s = -|x - y|_2",
        citation="""@misc{hermans2017defense,
  title = {In Defense of the Triplet Loss for Person Re-Identification},
  author = {Hermans, Alexander and Beyer, Lucas and Leibe, Bastian},
  year = {2017},
  eprint = {1703.07737},
  archivePrefix = {arXiv}
}""",
        requirements=["Batches of several classes with several texts each: the sampler classes draws them."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "euclidean", "sparse": "euclidean"}

    def __init__(
        self,
        model: Any = None,
        margin: float = 5.0,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.margin = margin
        self.similarity = similarity
        check_number(f"{type(self).__name__}.margin", margin, "a positive number")

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The mean over all triplets whose anchor is in `rows`."""
        assert labels is not None
        classes = Classes(labels, rows)

        def missed(scores: Tensor, part: slice) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                places, positives, negatives = classes.ordered_positives(scores, part)
                of_positives, of_items = active_triplets(positives, negatives.add_(self.margin))
                # The sum over triplets takes each similarity as often as it occurs: that is its derivative.
                often = of_items.scatter_add_(1, places, -of_positives).to(scores.dtype)
                active = of_positives.sum()
            return (often * scores).sum() + active.to(scores.dtype) * self.margin, active

        total, active = over_tiles(columns[0][rows], columns[0], missed, similarity=self.scorer)
        return total / active.clamp(min=1)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A triplet needs two texts of one class and one of another."""
        return why_idle(labels)
