"""CoSENT: pairs ranked by their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number

__all__ = ["CoSENTLoss", "cosent"]

FEW = 128
"""Up to so many rows all pairs are formed: three operations on a small matrix cost less than ten on vectors."""

BOUND = 300.0
"""Scores within it can be raised to exponents in float64: their differences stay below 600."""


def cosent(
    scores: Float[Tensor, " rows"], labels: Float[Tensor, " rows"], *, bound: float | None = None
) -> Float[Tensor, ""]:
    """log(1 + sum over pairs with y_i < y_j of exp(s_i - s_j)).

    Time O(B log B) and memory O(B): pairs are sorted by label, and what lies below is a cumulative sum.

    Args:
        scores: scaled similarities.
        labels: higher means more similar; equal labels are not compared.
        bound: what the absolute value of scores never exceeds, if known; low ones cost less.

    >>> cosent(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    tensor(1.0986)
    """
    rows = scores.shape[0]
    if 0 < rows <= FEW:
        return _of_all_pairs(scores, labels)
    labels, order = labels.sort()
    scores = scores[order]
    # How many labels are strictly below each: the pairs of row j are the first below[j] rows.
    below = torch.searchsorted(labels, labels)
    if bound is not None and bound <= BOUND:
        raised = scores.double().exp()
        sums = torch.cat([raised.new_zeros(1), raised.cumsum(0)])
        return (sums[below] / raised).sum().log1p().to(scores.dtype)
    sums = torch.cat([scores.new_full((1,), float("-inf")), scores.logcumsumexp(0)])
    terms = sums[below] - scores
    # A row with nothing below has -inf, whose gradient through logsumexp is 0; the zero is the 1 of the formula.
    return torch.cat([scores.new_zeros(1), terms]).logsumexp(0)


def _of_all_pairs(scores: Tensor, labels: Tensor) -> Tensor:
    left_out = labels[:, None] >= labels
    left_out[:1, :1] = False  # s_0 - s_0 is the 1 of the formula
    return (scores[:, None] - scores).masked_fill(left_out, float("-inf")).logsumexp((0, 1))


class CoSENTLoss(Loss):
    """Orders pairs: a higher label means a higher similarity.

    Args:
        model: an encoder that embeds.
        scale: factor of the similarities, the inverse temperature.
        similarity: by name; None: cosine on dense and sparse, maxsim on multi-vector.
        execution: how records come about.

    Raises:
        LossError: a scale that is not positive.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score", outputs=1)],
        encoders=["dense", "sparse", "multi-vector"],
        row_wise=False,
        memory="B",
        formula="log(1 + sum over y_i < y_j of exp(scale (s_i - s_j)))",
        citation="""@article{huang2024cosent,
  title = {{CoSENT}: Consistent Sentence Embedding via Similarity Ranking},
  author = {Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and Liu, Kay and
            Wu, Jia and Su, Jianlin and Yu, Philip S.},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  year = {2024}
}""",
        requirements=["Labels of different height in every batch: equal labels are not compared."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "cosine", "multi-vector": "maxsim"}

    def __init__(
        self,
        model: Any = None,
        scale: float = 20.0,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale
        self.similarity = similarity
        check_number(f"{type(self).__name__}.scale", scale, "a positive number")

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Equal labels are not compared."""
        equal = labels is None or bool((labels == labels.flatten()[0]).all())
        return "all labels are equal, and equal labels are not compared" if equal else ""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        scores = self.pairwise(columns[0][rows], columns[1][rows]) * self.scale
        assert labels is not None
        bound = getattr(self.scorer, "bound", None)
        labels = labels.flatten()[rows].to(scores.dtype)
        return cosent(scores, labels, bound=None if bound is None else bound * self.scale)
