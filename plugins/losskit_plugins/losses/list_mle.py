"""ListMLE: the likelihood of the order that labels ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Real
from torch import Tensor

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.score_loss import Activation, single_documents

from ._plackett_luce import check_falling, plackett_luce

__all__ = ["ListMLELoss", "list_mle"]


def list_mle(
    scores: Float[Tensor, "queries documents"],
    labels: Real[Tensor, "queries documents"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
    respect_input_order: bool = False,
) -> Float[Tensor, " queries"]:
    """sum_i (log sum_{j >= i} exp(s_j) - s_i) of each query, its documents by falling labels.

    Args:
        scores: of each query's documents.
        labels: their relevance; documents of equal labels keep the order in which they came.
        where: True where there is a document; None: everywhere.
        respect_input_order: take the documents as they come, whatever their labels.

    A list of one document, or of none, counts as a loss of 0.

    >>> import torch
    >>> list_mle(torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([1.7918])
    """
    return plackett_luce(scores, labels, where=where, respect_input_order=respect_input_order)


class ListMLELoss(ScoreLoss):
    """Makes the order of a list by its labels the most likely one.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        respect_input_order: take documents in the order in which they come, in which labels must not rise;
            False: by falling labels, in which documents of equal labels keep the order in which they came.
        activation: applied to the scores first; a name, or from Python any function.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative*"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over queries of sum_i (log sum_{j >= i} exp(s_j) - s_i), documents by falling labels",
        citation="""@inproceedings{xia2008listwise,
  title = {Listwise Approach to Learning to Rank: Theory and Algorithm},
  author = {Xia, Fen and Liu, Tie-Yan and Wang, Jue and Zhang, Wensheng and Li, Hang},
  booktitle = {Proceedings of the 25th International Conference on Machine Learning},
  year = {2008}
}""",
        requirements=["Lists of two documents or more, best with labels that are all different."],
        relations=["p-list-mle gives the first places more weight."],
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        respect_input_order: bool = False,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.respect_input_order = respect_input_order

    def check_lists(self, columns: int, labels: Tensor, lists: Sequence[int] | None) -> None:
        """Refuse labels that rise along a list whose order is to be respected."""
        if self.respect_input_order:
            check_falling(type(self).__name__, columns, labels, lists)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has but one order."""
        return single_documents(rows, labels)

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each scored list."""
        return list_mle(scores, labels, where=where, respect_input_order=self.respect_input_order)
