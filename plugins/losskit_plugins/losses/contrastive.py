"""Contrastive loss on labelled pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import LossError, check_number
from losskit.math import mean_over_rows

__all__ = ["ContrastiveLoss", "contrastive", "residuals"]

Reduction = Literal["mean", "sum"]


def residuals(
    distances: Float[Tensor, " rows"], labels: Shaped[Tensor, " rows"], *, margin: float
) -> Float[Tensor, " rows"]:
    """How far each pair is from where it belongs: d of a positive, max(0, margin - d) of a negative.

    >>> residuals(torch.tensor([0.25, 0.25, 0.75]), torch.tensor([1, 0, 0]), margin=0.5)
    tensor([0.2500, 0.2500, 0.0000])
    """
    return torch.where(labels == 1, distances, functional.relu(margin - distances))


def contrastive(
    distances: Float[Tensor, " rows"], labels: Shaped[Tensor, " rows"], *, margin: float = 0.5
) -> Float[Tensor, " rows"]:
    """1/2 (y d^2 + (1 - y) max(0, margin - d)^2) of each pair.

    Args:
        distances: 0 is nearest.
        labels: 1 for positives, 0 for negatives.
        margin: how far negatives are pushed.

    >>> contrastive(torch.tensor([1.0, 0.5]), torch.tensor([1, 0]), margin=1.0)
    tensor([0.5000, 0.1250])
    """
    return residuals(distances, labels, margin=margin).square() / 2


class ContrastiveLoss(Loss):
    """Draws positive pairs together and pushes negative ones apart, as far as the margin.

    Args:
        model: an encoder that embeds.
        margin: how far negatives are pushed.
        reduction: the mean over pairs, or their sum.
        similarity: by name, with a highest value; the distance is what is lacking to it. None: cosine.
        execution: how records come about.

    Raises:
        LossError: a negative margin, an unknown reduction, or a similarity without a highest value.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="binary")],
        encoders=["dense", "sparse"],
        memory="B",
        formula="mean of 1/2 (y d^2 + (1 - y) max(0, margin - d)^2) with d = 1 - cosine",
        citation="""@inproceedings{hadsell2006dimensionality,
  title = {Dimensionality Reduction by Learning an Invariant Mapping},
  author = {Hadsell, Raia and Chopra, Sumit and LeCun, Yann},
  booktitle = {2006 IEEE Computer Society Conference on Computer Vision and Pattern Recognition},
  year = {2006}
}""",
        relations=["online-contrastive looks at the hard pairs of a batch only."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "cosine"}
    uses_weights = True
    compares_rows = False

    def __init__(
        self,
        model: Any = None,
        margin: float = 0.5,
        reduction: Reduction = "mean",
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.margin = margin
        self.reduction = reduction
        self.similarity = similarity
        name = type(self).__name__
        check_number(f"{name}.margin", margin, "0 or more")
        if reduction not in get_args(Reduction):
            raise LossError(f"{name}.reduction", expected="'mean' or 'sum'", got=repr(reduction))
        self.highest()  # so that a similarity without one is refused here

    @property
    def row_wise(self) -> bool:
        """A sum is no mean of its parts."""
        return self.reduction == "mean"

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        a, b = (column[rows] for column in columns)
        values = contrastive(self.distances(a, b), labels.flatten()[rows], margin=self.margin)
        mean = mean_over_rows(values, a.weight)
        return mean if self.reduction == "mean" else mean * len(values)
