"""Margin distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import mse_loss

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.math import masked_mean
from losskit.score_loss import Activation

__all__ = ["MarginMSELoss", "margin_mse"]


def margin_mse(
    scores: Float[Tensor, "queries documents"],
    labels: Float[Tensor, "queries _"],
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
) -> Float[Tensor, " queries"]:
    """mean over k > 0 of (s_0 - s_k - y_k)^2 of each query.

    Args:
        scores: of each query's documents, that of the positive first.
        labels: margins [q, n - 1]; or scores of a teacher [q, n], whose margins are y_0 - y_k.
        where: True where there is a document; None: everywhere.

    A query without negatives counts as a loss of 0.

    >>> import torch
    >>> scores = torch.tensor([[3.0, 1.0, 2.0]])
    >>> margin_mse(scores, torch.tensor([[1.0, 1.0]])), margin_mse(scores, torch.tensor([[5.0, 4.0, 4.0]]))
    (tensor([0.5000]), tensor([0.5000]))
    """
    errors = _errors(scores, labels)
    return errors.sum(1) / max(1, errors.shape[1]) if where is None else masked_mean(errors, where[:, 1:], dim=1)


def _errors(scores: Tensor, labels: Tensor) -> Tensor:
    """(s_0 - s_k - y_k)^2 of each query and negative."""
    documents = scores.shape[1]
    if labels.shape[1] == documents:
        labels = labels[:, :1] - labels[:, 1:]
    positives, negatives = scores.split_with_sizes([min(documents, 1), max(documents - 1, 0)], 1)
    return mse_loss(positives - negatives, labels, reduction="none")


class MarginMSELoss(ScoreLoss):
    """Brings the margin between the scores of positive and negative to that of a teacher.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: dot on dense and sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[
            Format(inputs=["query", "positive", "negative+"], labels="margins", outputs=1),
            Format(inputs=["query", "positive", "negative+"], labels="scores", outputs=1),
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over queries and negatives k of (s_0 - s_k - y_k)^2",
        citation="""@misc{hofstaetter2020improving,
  title = {Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation},
  author = {Hofst{\\"a}tter, Sebastian and Althammer, Sophia and Schr{\\"o}der, Michael and Sertkan, Mete and
            Hanbury, Allan},
  year = {2020},
  eprint = {2010.02666},
  archivePrefix = {arXiv}
}""",
        requirements=[
            "Labels: margins of a teacher, one per negative, or its scores, one per document.",
            "In a list of documents the positive comes first.",
        ],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "dot", "sparse": "dot", "multi-vector": "maxsim"}
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
        """A single document has no margin."""
        alone = columns == 2 and labels is not None and labels.numel() == rows
        return "every list has one document" if alone else ""

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each scored list, or the terms of it."""
        labels = labels.to(scores.dtype)
        return _errors(scores, labels) if where is None else margin_mse(scores, labels, where=where)
