"""Contrastive tension: two towers that agree on the same sentence and on no other."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from losskit import Card, Execution, Format, Loss, Output, Tokens
from losskit.errors import LossError

__all__ = ["ContrastiveTensionLoss", "TwoTowers", "contrastive_tension", "same_tokens"]


def contrastive_tension(products: Float[Tensor, " rows"], same: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """sum over rows of log(1 + exp(x_i)) - y_i x_i.

    Args:
        products: inner products of the two towers' embeddings.
        same: 1 where both read the same sentence, else 0.

    >>> contrastive_tension(torch.zeros(2), torch.tensor([1.0, 0.0]))
    tensor(1.3863)
    """
    return binary_cross_entropy_with_logits(products, same, reduction="sum")


def same_tokens(a: Tokens, b: Tokens) -> Bool[Tensor, " rows"]:
    """Whether row i of both holds the same tokens, whatever the padding.

    >>> a = Tokens(torch.tensor([[7, 8, 0]]), torch.tensor([[True, True, False]]))
    >>> b = Tokens(torch.tensor([[7, 8]]), torch.tensor([[True, True]]))
    >>> same_tokens(a, b)
    tensor([True])
    """
    a, b = a.leading(), b.leading()
    width = min(a.values.shape[1], b.values.shape[1])
    both = a.mask[:, :width] & b.mask[:, :width]
    equal = torch.where(both, a.values[:, :width] == b.values[:, :width], a.mask[:, :width] == b.mask[:, :width])
    beyond = a.mask[:, width:].any(1) | b.mask[:, width:].any(1)
    return equal.all(1) & ~beyond


class TwoTowers(Loss):
    """Base of losses between the model, which reads the last column, and a copy of it, which reads the first.

    Both are trained; the model is what remains.

    Args:
        model: an encoder that embeds; None where the embeddings of both towers are brought, a column each.
        execution: how records come about.
    """

    def __init__(self, model: Any, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        if model is not None:
            self.towers = {"tower": copy.deepcopy(model)}

    def views(self, columns: Sequence[Output]) -> tuple[Output, Output]:
        """What the copy made of the first column, and the model of the last.

        Raises:
            LossError: the copy's embeddings are missing.
        """
        first = columns[0].parts.get("tower", columns[0] if len(columns) > 1 else None)
        if first is None or (self.model is not None and not self.towers):
            raise LossError(
                f"the second tower of {type(self).__name__}",
                expected="a copy of the model, or its embeddings as a first column",
                got="neither",
                fix="build the loss with its model",
            )
        return first, columns[-1]


class ContrastiveTensionLoss(TwoTowers):
    """Draws two copies of the model together on the same sentence, and apart on different ones.

    Args:
        model: an encoder that embeds.
        execution: how records come about.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="binary"),
            Format(inputs=["text", "text"], labels="none"),
        ],
        encoders=["dense", "sparse"],
        needs=("input_ids?",),
        row_wise=False,
        reads={"model": [-1], "tower": [0]},
        memory="B",
        formula="sum of log(1 + exp(u.v)) - y u.v, y = 1 if both read the same sentence",
        citation="""@inproceedings{carlsson2021semantic,
  title = {Semantic Re-tuning with Contrastive Tension},
  author = {Carlsson, Fredrik and Gyllensten, Amaru Cuba and Gogoulou, Evangelia and
            Hellqvist, Erik Ylip{\\"a}{\\"a} and Sahlgren, Magnus},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}""",
        relations=["contrastive-tension-in-batch-negatives takes the batch's other sentences for negatives."],
        requirements=[
            "Pairs of a sentence with itself and with others: the data transform contrastive-tension-pairs makes them.",
            "Without labels a pair counts as the same sentence if its tokens are equal.",
        ],
        deviations={"batch-size": "it is the sum over the pairs of a batch, as it was published"},
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "dot", "sparse": "dot"}
    compares_rows = False

    def __init__(self, model: Any = None, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        columns = [column[rows] for column in columns]
        products = self.pairwise(*self.views(columns))
        same = self._same(columns) if labels is None else labels.reshape(-1)[rows]
        return contrastive_tension(products, same.to(products.dtype))

    def _same(self, columns: Sequence[Output]) -> Tensor:
        tokens = [column.parts.get("input_ids") for column in columns]
        if None in tokens:
            raise LossError(
                f"labels for {type(self).__name__}",
                expected="1 for pairs of the same sentence and 0 for others, or token ids to see it by",
                got="neither",
            )
        return same_tokens(*tokens)
