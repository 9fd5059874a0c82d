"""CoSENT: pairs ranked by their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import LossError

__all__ = ["CoSENTLoss", "cosent"]


def cosent(scores: Float[Tensor, " rows"], labels: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """log(1 + sum over pairs with y_i < y_j of exp(s_i - s_j)).

    Time O(B log B) and memory O(B): pairs are sorted by label, and what lies below is a cumulative sum.

    Args:
        scores: scaled similarities.
        labels: higher means more similar; equal labels are not compared.

    >>> cosent(torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    tensor(1.0986)
    """
    labels, order = labels.sort()
    scores = scores[order]
    # How many labels are strictly below each: the pairs of row j are the first below[j] rows.
    below = torch.searchsorted(labels, labels)
    sums = torch.cat([scores.new_full((1,), float("-inf")), scores.logcumsumexp(0)])
    terms = sums[below] - scores
    # A row with nothing below has -inf, whose gradient through logsumexp is 0; the zero is the 1 of the formula.
    return torch.cat([scores.new_zeros(1), terms]).logsumexp(0)


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
        if not scale > 0:
            raise LossError(f"{type(self).__name__}.scale", expected="a positive number", got=repr(scale))

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Equal labels are not compared."""
        equal = labels is None or bool((labels == labels.flatten()[0]).all())
        return "all labels are equal, and equal labels are not compared" if equal else ""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        scores = self.pairwise(columns[0][rows], columns[1][rows]) * self.scale
        assert labels is not None
        return cosent(scores, labels.reshape(-1)[rows].to(scores.dtype))
