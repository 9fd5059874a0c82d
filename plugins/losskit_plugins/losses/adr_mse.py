"""ADR-MSE: soft ranks drawn to the ranks of the labels, the top of the list first."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from losskit import Card, Execution, Format, Similarity
from losskit.errors import check_number
from losskit.math import average_ranks, over_lists
from losskit.score_loss import Activation, ScoredLists, single_documents

from ._averaged import AveragedLoss

__all__ = ["ADRMSELoss", "adr_mse"]

INFINITY = float("inf")


def adr_mse(lists: ScoredLists, *, alpha: float = 1.0) -> tuple[Float[Tensor, " queries"], Int[Tensor, " queries"]]:
    """sum over documents of (r_i - r^_i)^2 / log2(r_i + 1) of each list, and how many documents it has.

    r_i is the rank of label y_i, equal labels sharing the mean of their ranks, and
    r^_i = 1 + sum over j != i of sigmoid(alpha (s_j - s_i)) the soft rank of the score.

    Args:
        lists: scored lists.
        alpha: how closely soft ranks follow the order of the scores.

    >>> adr_mse(ScoredLists(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
    (tensor([0.4077]), tensor([2]))
    """
    scores, labels = lists.scores, lists.labels.to(lists.scores.dtype)
    there = torch.ones_like(labels, dtype=torch.bool) if lists.where is None else lists.where

    def terms(scores: Tensor, ranks: Tensor, there: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        scaled = scores * alpha
        # Of padding is neither asked how many are above it, nor is it above any.
        below, above = torch.where(there, scaled, INFINITY), torch.where(there, scaled, -INFINITY)
        shares = (above[:, None, :] - below[:, :, None]).sigmoid_()
        # The own share, sigmoid(0), is not counted.
        errors = (shares.sum(2) + 0.5 - ranks).mul_(there)
        pulls = errors / (ranks + 1.0).log2_()
        sums, numbers = (errors * pulls).sum(1), there.sum(1)
        if not gradient:
            return sums, numbers, None
        slopes = shares.addcmul_(shares, shares, value=-1.0)
        of_others, own = slopes.bmm(torch.stack([pulls, torch.ones_like(pulls)], 2)).unbind(2)
        return sums, numbers, of_others.sub_(own * pulls).mul_(2.0 * alpha)

    return over_lists(terms, scores, average_ranks(labels, there), there, counts=lists.counts)


class ADRMSELoss(AveragedLoss):
    """Draws the soft rank of each document to the rank of its label, the first ranks more than the last.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        alpha: how closely soft ranks follow the order of the scores; a high one gives distant scores no gradient.
        average: over the documents of all queries, so that long lists count more; or first within each query.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: an option that is out of its range.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative*"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n^2 + tile",
        formula="mean over documents of (r_i - 1 - sum_{j != i} sigmoid(alpha (s_j - s_i)))^2 / log2(r_i + 1)",
        citation="""@inproceedings{schlatt2025rankdistillm,
  title = {{Rank-DistiLLM}: Closing the Effectiveness Gap Between Cross-Encoders and {LLMs} for Passage Re-ranking},
  author = {Schlatt, Ferdinand and Fr{\\"o}be, Maik and Scells, Harrisen and Zhuang, Shengyao and Koopman, Bevan and
            Zuccon, Guido and Stein, Benno and Potthast, Martin and Hagen, Matthias},
  booktitle = {Advances in Information Retrieval},
  year = {2025}
}""",
        requirements=["Labels of which only the order is read: the ranking of a teacher, for instance."],
    )

    def __init__(
        self,
        model: Any = None,
        alpha: float = 1.0,
        average: Literal["documents", "queries"] = "documents",
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(
            model,
            average=average,
            terms_are="documents",
            activation=activation,
            similarity=similarity,
            scale=scale,
            execution=execution,
        )
        check_number(f"{type(self).__name__}.alpha", alpha, "a positive number")
        self.alpha = alpha

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has the first rank whatever its score."""
        return single_documents(rows, labels)

    def terms(self, lists: ScoredLists) -> tuple[Tensor, Tensor]:
        """The sum over each list's documents, and how many there are."""
        return adr_mse(lists, alpha=self.alpha)
