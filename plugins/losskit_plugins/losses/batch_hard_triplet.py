"""Batch-hard triplets: the farthest positive and the nearest negative of each text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number
from losskit.math import masked_mean

from ._batch_triplets import Classes, hardest_similarities, why_idle

__all__ = ["BatchHardTripletLoss", "batch_hard_triplet"]


def batch_hard_triplet(
    positives: Float[Tensor, " rows"],
    negatives: Float[Tensor, " rows"],
    where: Bool[Tensor, " rows"],
    *,
    margin: float = 5.0,
) -> Float[Tensor, ""]:
    """mean over anchors of max(0, s_negative - s_positive + margin).

    Args:
        positives: similarity of each anchor with its farthest positive.
        negatives: with its nearest negative.
        where: which anchors have both.
        margin: by how much the positive should be more similar.

    >>> import torch
    >>> batch_hard_triplet(torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -9.0]), torch.tensor([True, True]))
    tensor(2.)
    """
    return masked_mean(functional.relu(negatives - positives + margin), where)


class BatchHardTripletLoss(Loss):
    """Wants each text nearer to the farthest of its class than to the nearest of any other class, by a margin.

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
        formula="mean over a of max(0, max_n s_an - min_p s_ap + margin) with s = -|x - y|_2",
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
        """The loss of the anchors `rows` that have a positive and a negative."""
        assert labels is not None
        positives, negatives, where = hardest_similarities(self, columns[0], labels, rows)
        return batch_hard_triplet(positives, negatives, where, margin=self.margin)

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """How many of the anchors `rows` have a positive and a negative."""
        assert labels is not None
        return (Classes(labels, rows).positives() > 0).sum()

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A triplet needs two texts of one class and one of another."""
        return why_idle(labels)
