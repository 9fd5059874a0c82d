"""RankNet: pairs of a list put in order, all weighed alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from losskit import Card, Execution, Format, Similarity, build
from losskit.score_loss import Activation, ScoredLists

from ._averaged import AveragedLoss
from ._pairs import Average, Logarithm, check_pair_options, unordered
from .lambda_loss import lambda_loss

__all__ = ["RankNetLoss"]


class RankNetLoss(AveragedLoss):
    """Puts pairs of documents in the order of their labels, by the logarithm of the probability of that order.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        k: leaves out pairs of which neither document is among the k highest scores; None: none.
        sigma: factor of the differences between scores.
        eps: taken for the sake of `lambda`; no gain is read.
        reduction_log: the base of the logarithm, 2 or e.
        average: over the pairs of all queries, so that long lists count more; or first within each query.
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
        formula="-mean over pairs with y_i > y_j of log2 sigmoid(sigma (s_i - s_j))",
        citation="""@inproceedings{burges2005learning,
  title = {Learning to Rank using Gradient Descent},
  author = {Burges, Chris and Shaked, Tal and Renshaw, Erin and Lazier, Ari and Deeds, Matt and
            Hamilton, Nicole and Hullender, Greg},
  booktitle = {Proceedings of the 22nd International Conference on Machine Learning},
  year = {2005}
}""",
        relations=["lambda with no-weighting; lambda with another weighting puts the top of the list first."],
        requirements=[
            "Labels of different height in a list: equal labels are not put in order.",
            "A label of minus infinity takes its document out of all pairs.",
        ],
    )

    def __init__(
        self,
        model: Any = None,
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
        self.k = k
        self.sigma = sigma
        self.eps = eps
        self.reduction_log: Logarithm = reduction_log
        self._weighting = build("no-weighting", kind="weighting")

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """Without a pair there is nothing to learn."""
        return unordered(rows, labels)

    def terms(self, lists: ScoredLists) -> tuple[Tensor, Tensor]:
        """The sum over each list's pairs, and how many there are."""
        return lambda_loss(
            lists, self._weighting, k=self.k, sigma=self.sigma, eps=self.eps, reduction_log=self.reduction_log
        )
