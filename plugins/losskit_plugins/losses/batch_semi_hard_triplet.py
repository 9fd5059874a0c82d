"""Semi-hard triplets: for each positive the nearest negative that is farther."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number
from losskit.math import over_tiles

from ._batch_triplets import Classes, why_idle

__all__ = ["BatchSemiHardTripletLoss", "semi_hard_negatives"]


def semi_hard_negatives(
    positives: Float[Tensor, "rows k"], negatives: Float[Tensor, "rows items"]
) -> Int[Tensor, "rows k"]:
    """For each positive the place of the nearest negative that is farther; where none is, of the farthest negative.

    Negatives are put between the positives that they lie between; of those behind a positive the nearest is a running
    maximum. So there are no triplets to hold, and O(items log k) comparisons a row.

    Args:
        positives: similarities of each anchor with its positives, in ascending order.
        negatives: with all items; minus infinity for those that are no negatives.

    >>> semi_hard_negatives(torch.tensor([[0.1, 0.8]]), torch.tensor([[0.9, 0.5, 0.7, 0.2]]))
    tensor([[3, 2]])
    """
    rows, count = positives.shape
    between = torch.searchsorted(positives, negatives, right=True)
    nearest = negatives.new_full((rows, count + 1), float("-inf")).scatter_reduce_(1, between, negatives, "amax")
    # Items that are not the nearest of their gap are written to a further column.
    none = negatives == float("-inf")
    gap = between.masked_fill(none | (negatives < nearest.gather(1, between)), count + 1)
    item = torch.arange(negatives.shape[1], device=gap.device).expand_as(gap)
    places = between.new_zeros(rows, count + 2).scatter_reduce_(1, gap, item, "amax")
    best, gap = nearest[:, :count].cummax(1)
    farthest = negatives.masked_fill(none, float("inf")).argmin(1, keepdim=True)
    return places.gather(1, gap).where(best > float("-inf"), farthest)


class BatchSemiHardTripletLoss(Loss):
    """Wants each text nearer to one of its class than to the nearest farther one of any other class, by a margin.

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
        memory="tile",
        formula="mean over (a, p) of max(0, s_an - s_ap + margin), n = argmax {s_an < s_ap}, else argmin s_an",
        citation="""@inproceedings{schroff2015facenet,
  title = {{FaceNet}: A Unified Embedding for Face Recognition and Clustering},
  author = {Schroff, Florian and Kalenichenko, Dmitry and Philbin, James},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2015}
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
        """The loss of the anchors `rows` with each of their positives."""
        assert labels is not None
        classes = Classes(labels, rows)
        counts = classes.positives()

        def missed(scores: Tensor, part: slice) -> Tensor:
            with torch.no_grad():
                places, positives, of_negatives = classes.ordered_positives(scores, part)
                negatives = semi_hard_negatives(positives, of_negatives)
                where = torch.arange(places.shape[1], device=scores.device) < counts[part, None]
            values = functional.relu(scores.gather(1, negatives) - scores.gather(1, places) + self.margin)
            return values.where(where, values.new_zeros(())).sum()

        total = over_tiles(columns[0][rows], columns[0], missed, similarity=self.scorer)
        return total / counts.sum().clamp(min=1)

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """How many pairs of an anchor of `rows` and a positive there are, where there is a negative."""
        assert labels is not None
        return Classes(labels, rows).positives().sum()

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A triplet needs two texts of one class and one of another."""
        return why_idle(labels)
