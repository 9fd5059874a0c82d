"""Batch-hard triplets with a soft margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.math import masked_mean

from ._batch_triplets import Classes, hardest_similarities, why_idle

__all__ = ["BatchHardSoftMarginTripletLoss", "batch_hard_soft_margin_triplet"]


def batch_hard_soft_margin_triplet(
    positives: Float[Tensor, " rows"], negatives: Float[Tensor, " rows"], where: Bool[Tensor, " rows"]
) -> Float[Tensor, ""]:
    """mean over anchors of log(1 + exp(s_negative - s_positive)).

    Args:
        positives: similarity of each anchor with its farthest positive.
        negatives: with its nearest negative.
        where: which anchors have both.

    >>> import torch
    >>> batch_hard_soft_margin_triplet(torch.tensor([-1.0]), torch.tensor([-1.0]), torch.tensor([True]))
    tensor(0.6931)
    """
    return masked_mean(functional.softplus(negatives - positives), where)


class BatchHardSoftMarginTripletLoss(Loss):
    """Wants each text nearer to the farthest of its class than to the nearest of any other class, without a margin.

    Args:
        model: an encoder that embeds.
        similarity: by name; None: Euclidean.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text"], labels="class")],
        encoders=["dense", "sparse"],
        memory="tile",
        formula="mean over a of log(1 + exp(max_n s_an - min_p s_ap)) with s = -|x - y|_2",
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
        self, model: Any = None, similarity: str | Similarity | None = None, *, execution: Execution | None = None
    ) -> None:
        super().__init__(model, execution=execution)
        self.similarity = similarity

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the anchors `rows` that have a positive and a negative."""
        assert labels is not None
        positives, negatives, where = hardest_similarities(self, columns[0], labels, rows)
        return batch_hard_soft_margin_triplet(positives, negatives, where)

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """How many of the anchors `rows` have a positive and a negative."""
        assert labels is not None
        return (Classes(labels, rows).positives() > 0).sum()

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A triplet needs two texts of one class and one of another."""
        return why_idle(labels)
