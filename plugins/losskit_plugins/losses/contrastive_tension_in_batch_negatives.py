"""Contrastive tension with the batch's other sentences for negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from losskit import Card, Execution, Format, Output, Similarity
from losskit.errors import check_number
from losskit.math import Block, promoted, softmax_cross_entropy

from .contrastive_tension import TwoTowers

__all__ = ["ContrastiveTensionLossInBatchNegatives"]

HELD = 512
"""Up to so many rows both directions read one matrix of scores; beyond, each goes through tiles of its own."""


class ContrastiveTensionLossInBatchNegatives(TwoTowers):
    """Tells each sentence from the batch's others by what two copies of the model make of it, in both directions.

    Args:
        model: an encoder that embeds.
        scale: inverse temperature at the start; the loss owns and trains its logarithm, `logit_scale`.
        similarity: by name; None: cosine on dense, dot on sparse.
        execution: how records come about.

    Raises:
        LossError: a scale that is not positive.
    """

    card = Card(
        formats=[Format(inputs=["text"]), Format(inputs=["anchor", "anchor"])],
        encoders=["dense", "sparse"],
        reads={"model": [-1], "tower": [0]},
        memory="tile",
        formula="mean over i of half of CE(exp(t) s_i., i) + CE(exp(t) s_.i, i), s between the two towers",
        citation="""@inproceedings{carlsson2021semantic,
  title = {Semantic Re-tuning with Contrastive Tension},
  author = {Carlsson, Fredrik and Gyllensten, Amaru Cuba and Gogoulou, Evangelia and
            Hellqvist, Erik Ylip{\\"a}{\\"a} and Sahlgren, Magnus},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}""",
        relations=["contrastive-tension takes pairs as they are given."],
        requirements=["Batches without duplicate texts; more rows per batch mean more negatives."],
    )

    def __init__(
        self,
        model: Any = None,
        scale: float = 20.0,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale
        self.similarity = similarity
        check_number(f"{type(self).__name__}.scale", scale, "a positive number")
        like = next(self.model.parameters(), torch.zeros(())) if isinstance(model, nn.Module) else torch.zeros(())
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale), device=like.device, dtype=promoted(like).dtype))

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single sentence has no negatives."""
        return "" if rows > 1 else "one row has nothing to be told from"

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The contrastive loss of the sentences `rows` against all, in both directions."""
        a, b = self.views(columns)
        scale = self.logit_scale.exp()
        targets = torch.arange(rows.start, rows.stop, device=b.embedding.device)
        count = rows.stop - rows.start
        if count == a.items <= HELD:
            scores = self.matrix(a, b) * scale
            return (cross_entropy(scores, targets) + cross_entropy(scores.T, targets)) / 2
        share = 0.5 / max(1, count)
        weights = torch.full_like(targets, share, dtype=promoted(b.embedding).dtype)
        directions = [Block(a[rows], b), Block(b[rows], a)]
        return sum(
            softmax_cross_entropy([block], targets, weights, similarity=self.scorer, scale=scale)
            for block in directions
        )
