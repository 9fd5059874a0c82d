"""LambdaLoss: pairs of a list put in order, each weighed by what it means for the ranking."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from losskit import Card, Execution, Format, Similarity, Weighting, build
from losskit.errors import LossError
from losskit.math import descending, over_lists
from losskit.score_loss import Activation, ScoredLists, check_constant, described

from ._averaged import AveragedLoss
from ._pairs import Average, Logarithm, check_pair_options, unordered

__all__ = ["LambdaLoss", "lambda_loss"]

INFINITY = float("inf")

LARGEST_LABEL = 100.0
"""Of which 2^y is a number in float32, as is a sum of many."""


def lambda_loss(
    lists: ScoredLists,
    weighting: Weighting,
    *,
    k: int | None = None,
    sigma: float = 1.0,
    eps: float = 1e-10,
    reduction_log: Logarithm = "binary",
) -> tuple[Float[Tensor, " queries"], Int[Tensor, " queries"]]:
    """-sum over pairs with y_i > y_j of w_ij log sigmoid(sigma (s_i - s_j)) of each list, and how many pairs it has.

    Ranks are those by score, equal scores in the order in which they came. A weight is a function of the gains
    G_i = (2^max(y_i, 0) - 1) / max(DCG@k of the best order, eps) and of the discounts D_i = log2(1 + i).

    Args:
        lists: scored lists; a label of minus infinity takes a document out of all pairs.
        weighting: of pairs; one with `all_pairs` counts all pairs, whatever their labels.
        k: leaves out pairs of which neither document is among the k highest scores; None: none.
        sigma: factor of the differences.
        eps: the least DCG that gains are divided by.
        reduction_log: the base of the logarithm, 2 or e.

    >>> lists = ScoredLists(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    >>> lambda_loss(lists, build("no-weighting", kind="weighting"))
    (tensor([1.4519]), tensor([2]))
    """
    scores, labels = lists.scores, lists.labels.to(lists.scores.dtype)
    if lists.where is not None:
        labels = torch.where(lists.where, labels, -INFINITY)
    order = descending(scores, lists.where)
    ranked = labels.gather(1, order)
    gain, discount = _gains(labels, order, k, eps)
    higher, lower = _compared(ranked, getattr(weighting, "all_pairs", False))

    def terms(
        scores: Tensor, higher: Tensor, lower: Tensor, gain: Tensor, true: Tensor, *, gradient: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        pairs = higher[:, :, None] > lower[:, None, :]
        if k is not None:
            pairs[:, k:, k:] = False
        differences = (scores[:, :, None] - scores[:, None, :]).mul_(sigma)
        # Somebody's weighting may write into what it gets; the discount is that of further blocks as well.
        weights = _kept(weighting(gain, discount[:, : gain.shape[1]].clone(), true), pairs)
        sums, pulls = _weighed(differences, weights, gradient)
        own = None if pulls is None else pulls.mul_(sigma / unit)
        return sums.div_(unit), pairs.sum((1, 2)), own

    unit = math.log(2) if reduction_log == "binary" else 1.0
    others = higher, lower, gain, ranked.clamp(min=0)
    return over_lists(terms, scores, *others, counts=lists.counts, order=order)


def _gains(labels: Tensor, order: Tensor, k: int | None, eps: float) -> tuple[Tensor, Tensor]:
    """The gain of each document, in the order of the scores, and the discount of each rank, [1, n]."""
    labels = labels.clamp(min=0)
    highest_first = labels.sort(dim=-1, descending=True).values
    # What all gains of a list are divided by changes no quotient, and powers that are numbers need none.
    shift = highest_first[:, :1].sub(LARGEST_LABEL).clamp_(min=0).ceil_()
    one = shift.neg().exp2_()
    discount = torch.arange(2, labels.shape[1] + 2, device=labels.device, dtype=labels.dtype).log2_()[None]
    best = highest_first.sub_(shift).exp2_().sub_(one).div_(discount)[:, :k].sum(-1, keepdim=True)
    raised = labels.sub_(shift).exp2_().sub_(one)
    return raised.gather(1, order).div_(torch.maximum(best, one * eps)), discount


def _compared(labels: Tensor, all_pairs: bool) -> tuple[Tensor, Tensor]:
    """Two numbers for each document: (i, j) is a pair where the first of i is above the second of j."""
    absent = labels == -INFINITY
    if all_pairs:
        labels = torch.zeros_like(labels)
        return labels.masked_fill(absent, -INFINITY), (labels - 1.0).masked_fill(absent, INFINITY)
    return labels, labels.masked_fill(absent, INFINITY)


def _kept(weights: Tensor, pairs: Tensor) -> Tensor:
    """The weights of pairs [b, n, n], and 0 elsewhere.

    Of a weight that is not read nothing is asked, not even that it is finite.

    Raises:
        LossError: what somebody's weighting gave does not broadcast to the pairs.
    """
    with contextlib.suppress(RuntimeError, TypeError):
        kept = torch.where(pairs, weights, 0.0)
        if kept.shape == pairs.shape:
            return kept
    expected = f"a tensor that broadcasts to {list(pairs.shape)}"
    raise LossError("the weights of a weighting", expected=expected, got=described(weights))


def _weighed(differences: Tensor, weights: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None]:
    """-sum_ij w_ij log sigmoid(s_i - s_j) of each list, and its gradient by s; the differences are overwritten."""
    values = logsigmoid(differences).mul_(weights).sum((1, 2)).neg_()
    if not gradient:
        return values, None
    pulls = differences.neg_().sigmoid_().mul_(weights)
    return values, pulls.sum(1).sub_(pulls.sum(2))


class LambdaLoss(AveragedLoss):
    """Puts pairs of documents in the order of their labels, each weighed by what it means for nDCG.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        weighting: of pairs, by name or as an object.
        k: leaves out pairs of which neither document is among the k highest scores; None: none.
        sigma: factor of the differences between scores.
        eps: the least DCG that gains are divided by.
        reduction_log: the base of the logarithm, 2 or e.
        average: over the pairs of all queries, so that long lists count more; or first within each query.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: an option that is out of its range, or a weighting with parameters, which nothing would train.
        NotFoundError: an unknown weighting.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative*"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n^2 + tile",
        formula="-mean over pairs with y_i > y_j of w_ij log2 sigmoid(sigma (s_i - s_j))",
        citation="""@inproceedings{wang2018lambdaloss,
  title = {The {LambdaLoss} Framework for Ranking Metric Optimization},
  author = {Wang, Xuanhui and Li, Cheng and Golbandi, Nadav and Bendersky, Michael and Najork, Marc},
  booktitle = {Proceedings of the 27th ACM International Conference on Information and Knowledge Management},
  year = {2018}
}""",
        recommends=["ndcg-loss2pp", "ndcg-loss2", "lambda-rank"],
        relations=["rank-net is this loss with no-weighting."],
        requirements=[
            "Labels of different height in a list: equal labels are not put in order.",
            "Labels below 0 have the gain of 0; one of minus infinity takes its document out of all pairs.",
        ],
    )

    def __init__(
        self,
        model: Any = None,
        weighting: str | Weighting = "ndcg-loss2pp",
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Logarithm = "binary",
        average: Average = "pairs",
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(
            model,
            average=average,
            terms_are="pairs",
            activation=activation,
            similarity=similarity,
            scale=scale,
            execution=execution,
        )
        check_pair_options(type(self).__name__, k, sigma, eps, reduction_log)
        self.weighting = weighting
        self.k = k
        self.sigma = sigma
        self.eps = eps
        self.reduction_log: Logarithm = reduction_log
        self._scheme: tuple[Any, Weighting] | None = None
        if not callable(self.scheme) or isinstance(self.scheme, type):
            expected = "the name of a weighting, or one as an object"
            raise LossError(f"{type(self).__name__}.weighting", expected=expected, got=repr(weighting))
        check_constant(f"{type(self).__name__}.weighting", weighting)

    @property
    def scheme(self) -> Weighting:
        """The weighting in use."""
        chosen = self.weighting
        if not isinstance(chosen, str):
            return chosen
        if self._scheme is None or self._scheme[0] != chosen:
            self._scheme = chosen, build(chosen, kind="weighting")
        return self._scheme[1]

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Without a pair there is nothing to learn; where all pairs count, without a gain."""
        if labels is not None and getattr(self.scheme, "all_pairs", False) and labels.numel() > rows:
            return "" if bool((labels > 0).any()) else "no document is relevant"
        return unordered(rows, labels)

    def terms(self, lists: ScoredLists) -> tuple[Tensor, Tensor]:
        """The sum over each list's pairs, and how many there are."""
        return lambda_loss(
            lists, self.scheme, k=self.k, sigma=self.sigma, eps=self.eps, reduction_log=self.reduction_log
        )
