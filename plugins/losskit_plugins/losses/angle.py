"""AnglE: CoSENT with the angle of complex vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError, check_number

from .cosent import cosent

__all__ = ["AnglELoss", "tuple_labels"]


def tuple_labels(labels: Float[Tensor, " rows"], documents: int) -> Float[Tensor, "rows documents"]:
    """Labels of an anchor with each of its documents: y with the positive, 1 - y with every negative.

    >>> tuple_labels(torch.tensor([1.0, 0.75]), 3)
    tensor([[1.0000, 0.0000, 0.0000],
            [0.7500, 0.2500, 0.2500]])
    """
    return torch.cat([labels[:, None], (1 - labels)[:, None].expand(-1, documents - 1)], 1)


class AnglELoss(Loss):
    """Orders pairs: a higher label means a smaller angle between complex vectors.

    Tuples are pairs too: the anchor with its positive, of label y or 1, and with each negative, of label 1 - y.

    Args:
        model: an encoder that embeds.
        scale: factor of the similarities, the inverse temperature.
        execution: how records come about.

    Raises:
        LossError: a scale that is not positive.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="score"),
            Format(inputs=["anchor", "positive", "negative+"], labels="none"),
            Format(inputs=["anchor", "positive", "negative+"], labels="score"),
        ],
        encoders=["dense", "sparse"],
        row_wise=False,
        memory="B",
        formula="log(1 + sum over y_i < y_j of exp(scale (s_i - s_j))) with the similarity angle",
        citation="""@inproceedings{li2024aoe,
  title = {{AoE}: Angle-Optimized Embeddings for Semantic Textual Similarity},
  author = {Li, Xianming and Li, Jing},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics},
  year = {2024}
}""",
        relations=["cosent with the similarity angle, which is not flat where vectors are nearly parallel."],
        requirements=["Labels of different height in every batch: equal labels are not compared."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "angle", "sparse": "angle"}

    def __init__(self, model: Any = None, scale: float = 20.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale
        check_number(f"{type(self).__name__}.scale", scale, "a positive number")

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Of tuples, y and 1 - y are labels."""
        super().check_labels(columns, labels)
        if columns > 2 and not bool(((labels >= 0) & (labels <= 1)).all()):
            raise LossError(
                f"labels for {type(self).__name__}",
                expected="scores in [0, 1] of tuples, whose negatives get 1 - y",
                got=f"some from {float(labels.min()):g} to {float(labels.max()):g}",
                fix="scale them, as with label: {column: NAME, from: [0, 5], to: [0, 1]} in a recipe",
            )

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Equal labels are not compared."""
        if labels is None:
            return ""
        known = labels.flatten()[0] if columns == 2 else 0.5
        return "all labels are equal, and equal labels are not compared" if bool((labels == known).all()) else ""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs, or of the pairs of tuples, `rows`."""
        anchor, *others = (column[rows] for column in columns)
        scores = self.pairwise_each(anchor, others) * self.scale
        labels = scores.new_ones(len(scores)) if labels is None else labels.flatten()[rows].to(scores.dtype)
        labels = labels if len(others) == 1 else tuple_labels(labels, len(others))
        return cosent(scores.flatten(), labels.flatten(), bound=self.scorer.bound * self.scale)
