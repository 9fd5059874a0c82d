"""Triplet loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number
from losskit.math import mean_over_rows

__all__ = ["TripletLoss", "triplet"]


def triplet(
    positives: Float[Tensor, " rows"], negatives: Float[Tensor, " rows"], *, margin: float = 5.0
) -> Float[Tensor, " rows"]:
    """max(0, s_negative - s_positive + margin) of each triplet.

    Args:
        positives: similarities of anchor and positive.
        negatives: similarities of anchor and negative.
        margin: by how much the positive should be more similar.

    >>> import torch
    >>> triplet(torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -9.0]), margin=5.0)
    tensor([4., 0.])
    """
    return functional.relu(negatives - positives + margin)


class TripletLoss(Loss):
    """Wants an anchor more similar to its positive than to its negative, by a margin.

    Args:
        model: an encoder that embeds.
        margin: by how much, in units of the similarity: 5 suits Euclidean distances, cosines lie within 2.
        similarity: by name; None: Euclidean on dense and sparse.
        execution: how records come about.

    Raises:
        LossError: a negative margin.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative"], labels="none")],
        encoders=["dense", "sparse"],
        memory="B",
        formula="mean of max(0, s(a, n) - s(a, p) + margin) with s = -|a - b|_2",
        citation="""@misc{hermans2017defense,
  title = {In Defense of the Triplet Loss for Person Re-Identification},
  author = {Hermans, Alexander and Beyer, Lucas and Leibe, Bastian},
  year = {2017},
  eprint = {1703.07737},
  archivePrefix = {arXiv}
}""",
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "euclidean", "sparse": "euclidean"}
    uses_weights = True
    compares_rows = False

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
        check_number(f"{type(self).__name__}.margin", margin, "0 or more")

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the triplets `rows`."""
        anchor, *others = (column[rows] for column in columns)
        values = triplet(*self.pairwise_each(anchor, others).unbind(1), margin=self.margin)
        return mean_over_rows(values, anchor.weight)
