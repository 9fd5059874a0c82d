"""ListNet: the distribution of scores over a list drawn to that of its labels."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.math import masked_log_softmax
from losskit.score_loss import Activation, single_documents

__all__ = ["ListNetLoss", "list_net"]


def list_net(
    scores: Float[Tensor, "queries documents"],
    labels: Float[Tensor, "queries documents"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
) -> Float[Tensor, " queries"]:
    """-sum_j softmax(y)_j log softmax(s)_j of each query.

    Args:
        scores: of each query's documents.
        labels: their relevance; minus infinity gives a document the probability 0.
        where: True where there is a document; None: everywhere.

    A list without documents, or without one that has a probability, counts as a loss of 0.

    >>> import torch
    >>> scores, labels = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    >>> list_net(scores, labels, where=torch.tensor([[True, True, False]]))
    tensor([0.6931])
    """
    if where is not None:
        labels = labels.masked_fill(~where, float("-inf"))
    # Where no label is above minus infinity, softmax gives no number.
    relevance = labels.softmax(1).nan_to_num_(0.0)
    logs = scores.log_softmax(1) if where is None else masked_log_softmax(scores, where)
    return (relevance * logs).sum(1).neg()


class ListNetLoss(ScoreLoss):
    """Learns the order of a list from the softmax of its labels.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
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
        formula="mean over queries of -sum_j softmax(y)_j log softmax(s)_j",
        citation="""@inproceedings{cao2007learning,
  title = {Learning to Rank: From Pairwise Approach to Listwise Approach},
  author = {Cao, Zhe and Qin, Tao and Liu, Tie-Yan and Tsai, Ming-Feng and Li, Hang},
  booktitle = {Proceedings of the 24th International Conference on Machine Learning},
  year = {2007}
}""",
        requirements=["Labels whose differences count: a document is e times as relevant for each 1 more."],
        relations=["list-mle and lambda learn from the order of labels."],
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has probability 1 whatever its score."""
        return single_documents(rows, labels)

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each scored list."""
        return list_net(scores, labels.to(scores.dtype), where=where)
