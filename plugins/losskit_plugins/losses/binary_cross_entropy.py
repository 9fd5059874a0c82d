"""Binary cross-entropy: each score the logit of a label."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, ScoreLoss, Similarity
from losskit.errors import LossError, check_number
from losskit.score_loss import Activation

__all__ = ["BinaryCrossEntropyLoss", "binary_cross_entropy"]


def binary_cross_entropy(
    scores: Float[Tensor, "*documents"], labels: Float[Tensor, "*documents"], *, pos_weight: float | None = None
) -> Float[Tensor, "*documents"]:
    """-(p y log sigmoid(s) + (1 - y) log(1 - sigmoid(s))) of each document.

    Args:
        scores: logits.
        labels: in [0, 1].
        pos_weight: p; None: 1.

    >>> import torch
    >>> binary_cross_entropy(torch.zeros(2), torch.tensor([1.0, 0.0]), pos_weight=2.0)
    tensor([1.3863, 0.6931])
    """
    weight = None if pos_weight is None else scores.new_full((), pos_weight)
    return functional.binary_cross_entropy_with_logits(scores, labels, pos_weight=weight, reduction="none")


class BinaryCrossEntropyLoss(ScoreLoss):
    """Classifies pairs as relevant or not, each by itself.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        pos_weight: factor of what positive documents cost: above 1 where they are few; None: 1.
        activation: applied to the scores first; a name, or from Python any function.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        scale: for encoders that embed, factor of the similarity. Cosines need one of 10 or so, as logits in [-1, 1]
            never come near certainty.
        execution: how records come about.

    Raises:
        LossError: a `pos_weight` that is not a positive number.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="binary", outputs=1),
            Format(inputs=["text", "text"], labels="score", outputs=1),
            Format(inputs=["query", "documents"], labels="scores", outputs=1),
            Format(inputs=["query", "positive", "negative+"], labels="scores", outputs=1),
        ],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="n",
        formula="mean over documents of -(p y log sigmoid(s) + (1 - y) log(1 - sigmoid(s)))",
        citation="""@misc{nogueira2019passage,
  title = {Passage Re-ranking with {BERT}},
  author = {Nogueira, Rodrigo and Cho, Kyunghyun},
  year = {2019},
  eprint = {1901.04085},
  archivePrefix = {arXiv}
}""",
        requirements=["Labels from 0 to 1: a class, or the probability of one."],
        relations=["list-net, list-mle and lambda compare the documents of a list with each other."],
    )
    uses_weights = True

    def __init__(
        self,
        model: Any = None,
        pos_weight: float | None = None,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.pos_weight = pos_weight
        if pos_weight is not None:
            check_number(f"{type(self).__name__}.pos_weight", pos_weight, "a positive number")

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Refuse what is no probability."""
        super().check_labels(columns, labels)
        low, high = (float(bound) for bound in labels.aminmax()) if labels.numel() else (0.0, 0.0)
        if not 0 <= low <= high <= 1:
            raise LossError(
                f"labels for {type(self).__name__}",
                expected="numbers in [0, 1]",
                got=f"some from {low:g} to {high:g}",
                fix="scale them, as with label: {column: NAME, from: [0, 5], to: [0, 1]} in a recipe",
            )

    def per_document(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each scored document."""
        return binary_cross_entropy(scores, labels.to(scores.dtype), pos_weight=self.pos_weight)
