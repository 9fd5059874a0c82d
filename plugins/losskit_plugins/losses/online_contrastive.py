"""Contrastive loss on the hard pairs of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number

from .contrastive import residuals

__all__ = ["OnlineContrastiveLoss", "hard_pairs", "online_contrastive"]


def hard_pairs(distances: Float[Tensor, " rows"], labels: Shaped[Tensor, " rows"]) -> Shaped[Tensor, " rows"]:
    """Positives farther than the nearest negative, and negatives nearer than the farthest positive.

    Where all pairs are of one kind, those beyond their mean.

    >>> hard_pairs(torch.tensor([0.1, 0.6, 0.3, 0.9]), torch.tensor([1, 1, 0, 0]))
    tensor([False,  True,  True, False])
    """
    positive, distances = labels == 1, distances.detach()
    mean = distances.mean()
    farthest = torch.where(positive.any(), distances.masked_fill(~positive, float("-inf")).amax(), mean)
    nearest = torch.where(positive.all(), mean, distances.masked_fill(positive, float("inf")).amin())
    # Negated, for of NaN every comparison is False, and it must not be left out.
    return torch.where(positive, distances <= nearest, distances >= farthest).logical_not()


def online_contrastive(
    distances: Float[Tensor, " rows"], labels: Shaped[Tensor, " rows"], *, margin: float = 0.5
) -> Float[Tensor, ""]:
    """sum over hard pairs of y d^2 + (1 - y) max(0, margin - d)^2.

    Args:
        distances: 0 is nearest.
        labels: 1 for positives, 0 for negatives.
        margin: how far negatives are pushed.

    >>> online_contrastive(torch.tensor([0.1, 0.5, 0.25, 0.9]), torch.tensor([1, 1, 0, 0]), margin=0.5)
    tensor(0.3125)
    """
    lacking = residuals(distances, labels, margin=margin)
    return lacking.where(hard_pairs(distances, labels), lacking.new_zeros(())).square().sum()


class OnlineContrastiveLoss(Loss):
    """Draws the hard positive pairs of a batch together and pushes its hard negative ones apart.

    Args:
        model: an encoder that embeds.
        margin: how far negatives are pushed.
        similarity: by name, with a highest value; the distance is what is lacking to it. None: cosine.
        execution: how records come about.

    Raises:
        LossError: a negative margin, or a similarity without a highest value.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="binary")],
        encoders=["dense", "sparse"],
        row_wise=False,
        memory="B",
        formula="sum over hard pairs of y d^2 + (1 - y) max(0, margin - d)^2 with d = 1 - cosine",
        citation="""@inproceedings{hadsell2006dimensionality,
  title = {Dimensionality Reduction by Learning an Invariant Mapping},
  author = {Hadsell, Raia and Chopra, Sumit and LeCun, Yann},
  booktitle = {2006 IEEE Computer Society Conference on Computer Vision and Pattern Recognition},
  year = {2006}
}""",
        relations=["contrastive with the pairs of a batch that are hard."],
        requirements=["Positive and negative pairs in every batch: hard is what the other kind makes so."],
        deviations={"batch-size": "it is the sum over the hard pairs of a batch, as it is known"},
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "cosine"}

    def __init__(
        self,
        model: Any = None,
        margin: float = 0.5,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.margin = margin
        self.similarity = similarity
        check_number(f"{type(self).__name__}.margin", margin, "0 or more")
        self.highest()  # so that a similarity without one is refused here

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        distances = self.distances(columns[0][rows], columns[1][rows])
        return online_contrastive(distances, labels.flatten()[rows], margin=self.margin)
