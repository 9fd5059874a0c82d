"""Regression of scores on those of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.score_loss import Activation

__all__ = ["ScoreMSELoss", "score_mse"]


def score_mse(scores: Float[Tensor, "*documents"], labels: Float[Tensor, "*documents"]) -> Float[Tensor, "*documents"]:
    """(s - y)^2 of each document.

    >>> import torch
    >>> score_mse(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0]))
    tensor([4., 0.])
    """
    return functional.mse_loss(scores, labels, reduction="none")


class ScoreMSELoss(ScoreLoss):
    """Brings each score to that of a teacher, or to a grade.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        activation: applied to the scores first; a name, or from Python any function.
        similarity: for encoders that embed; None: dot on dense and sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="score", outputs=1),
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative+"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over documents of (s - y)^2",
        citation="""@misc{hofstaetter2020improving,
  title = {Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation},
  author = {Hofst{\\"a}tter, Sebastian and Althammer, Sophia and Schr{\\"o}der, Michael and Sertkan, Mete and
            Hanbury, Allan},
  year = {2020},
  eprint = {2010.02666},
  archivePrefix = {arXiv}
}""",
        requirements=["Labels in the range of the scores: of probabilities with the activation sigmoid."],
        relations=["margin-mse brings differences of scores to those of a teacher, whatever its range."],
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

    def per_document(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each scored document."""
        return score_mse(scores, labels.to(scores.dtype))
