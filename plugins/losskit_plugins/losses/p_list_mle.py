"""Position-aware ListMLE: the likelihood of the order that labels ask for, its first places first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.errors import LossError
from losskit.score_loss import Activation, check_constant, described, single_documents

from ._plackett_luce import Discount, check_falling, plackett_luce

__all__ = ["DISCOUNTS", "PListMLELoss", "p_list_mle"]

DISCOUNTS: dict[str, Discount] = {
    # 2^(n - i) - 1 divided by 2^n, which cannot overflow.
    "exponential": lambda ranks, counts: torch.exp2(-ranks) - torch.exp2(-counts),
    "logarithmic": lambda ranks, counts: torch.log2(1 + ranks).reciprocal(),
    "reciprocal": lambda ranks, counts: ranks.reciprocal(),
}
RankDiscount = Literal["exponential", "logarithmic", "reciprocal"] | Discount


def p_list_mle(
    scores: Float[Tensor, "queries documents"],
    labels: Real[Tensor, "queries documents"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
    rank_discount: RankDiscount | None = "exponential",
    respect_input_order: bool = False,
) -> Float[Tensor, " queries"]:
    """sum_i w_i (log sum_{j >= i} exp(s_j) - s_i) of each query, its documents by falling labels.

    Args:
        scores: of each query's documents.
        labels: their relevance; documents of equal labels keep the order in which they came.
        where: True where there is a document; None: everywhere.
        rank_discount: w up to a factor, for its sum over the list is 1: "exponential" 2^(n - i) - 1,
            "logarithmic" 1 / log2(1 + i), "reciprocal" 1 / i; or a function of ranks i [1, n] and numbers of
            documents [q, 1] or [1, 1]. None: w = 1, which is list-mle.
        respect_input_order: take the documents as they come, whatever their labels.

    A list of one document, or of none, counts as a loss of 0.

    Raises:
        LossError: a function that gives other weights; on the CPU, their values are looked at too.

    >>> p_list_mle(torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([0.9972])
    """
    if isinstance(rank_discount, str):
        discount: Discount | None = DISCOUNTS[rank_discount]
    else:
        discount = None if rank_discount is None else _checked(rank_discount)
    return plackett_luce(scores, labels, where=where, discount=discount, respect_input_order=respect_input_order)


def _checked(discount: Discount) -> Discount:
    """A discount that somebody has written, refused where it gives no weights."""

    def checked(ranks: Tensor, counts: Tensor) -> Tensor:
        made, shape = discount(ranks, counts), (len(counts), ranks.shape[1])
        try:
            weights = made.detach().to(ranks.dtype).expand(shape)
        except (AttributeError, RuntimeError):
            expected = f"a tensor that broadcasts to {list(shape)}"
            raise LossError("the weights of rank_discount", expected=expected, got=described(made)) from None
        if weights.is_cpu and not torch.compiler.is_compiling():
            lowest, highest = map(float, weights.where(ranks <= counts, 0.0).aminmax())
            if not 0 <= lowest <= highest < math.inf:
                got = f"some from {lowest:g} to {highest:g}"
                raise LossError("the weights of rank_discount", expected="finite numbers from 0", got=got)
        return weights

    return checked


class PListMLELoss(ScoreLoss):
    """Makes the order of a list by its labels the most likely one, the first places most of all.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        rank_discount: weight of rank i among n documents, up to a factor: exponential 2^(n - i) - 1, logarithmic
            1 / log2(1 + i), reciprocal 1 / i. From Python any function of ranks [1, n] and numbers of documents
            [q, 1] or [1, 1], at least 0. None: equal weights that are 1, which is list-mle.
        respect_input_order: take documents in the order in which they come, in which labels must not rise;
            False: by falling labels, in which documents of equal labels keep the order in which they came.
        activation: applied to the scores first; a name, or from Python any function.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: an unknown discount, or one with parameters, which nothing would train.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative*"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over queries of sum_i w_i (log sum_{j >= i} exp(s_j) - s_i), documents by falling labels",
        citation="""@inproceedings{lan2014position,
  title = {Position-Aware {ListMLE}: A Sequential Learning Process for Ranking},
  author = {Lan, Yanyan and Zhu, Yadong and Guo, Jiafeng and Niu, Shuzi and Cheng, Xueqi},
  booktitle = {Proceedings of the 30th Conference on Uncertainty in Artificial Intelligence},
  year = {2014}
}""",
        requirements=["Lists of two documents or more, best with labels that are all different."],
        relations=["list-mle gives all places the weight 1."],
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        rank_discount: RankDiscount | None = "exponential",
        respect_input_order: bool = False,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.rank_discount = rank_discount
        self.respect_input_order = respect_input_order
        named = isinstance(rank_discount, str) and rank_discount in DISCOUNTS
        if not (rank_discount is None or callable(rank_discount) or named):
            raise LossError(
                f"{type(self).__name__}.rank_discount",
                expected=f"None, a function, or one of {', '.join(DISCOUNTS)}",
                got=repr(rank_discount),
            )
        check_constant(f"{type(self).__name__}.rank_discount", rank_discount)

    def check_lists(self, columns: int, labels: Tensor, lists: Sequence[int] | None) -> None:
        """Refuse labels that rise along a list whose order is to be respected."""
        if self.respect_input_order:
            check_falling(type(self).__name__, columns, labels, lists)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has but one order."""
        return single_documents(rows, labels)

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each scored list."""
        return p_list_mle(
            scores,
            labels,
            where=where,
            rank_discount=self.rank_discount,
            respect_input_order=self.respect_input_order,
        )
