"""Mega-batch margin: the hardest negative of a large batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import check_number
from losskit.math import found_scores

__all__ = ["MegaBatchMarginLoss", "mega_batch_margin"]


def mega_batch_margin(
    positive: Float[Tensor, " rows"],
    negative: Float[Tensor, " compared"],
    *,
    positive_margin: float = 0.8,
    negative_margin: float = 0.3,
) -> Float[Tensor, ""]:
    """mean over rows of relu(m+ - s_positive) + relu(s_negative - m-).

    Args:
        positive: similarity of each anchor with its positive.
        negative: with its hardest negative; empty where there are none.
        positive_margin: m+, above which a positive is near enough.
        negative_margin: m-, below which a negative is far enough.

    >>> mega_batch_margin(torch.tensor([0.5]), torch.tensor([0.4]))
    tensor(0.4000)
    """
    missed = (positive_margin - positive).relu().sum() + (negative - negative_margin).relu().sum()
    return missed / max(1, len(positive))


class MegaBatchMarginLoss(Loss):
    """Draws each anchor to its positive and away from the nearest other positive of the batch, up to margins.

    Args:
        model: an encoder that embeds.
        positive_margin: the similarity that a positive should reach.
        negative_margin: the similarity that a negative should stay below.
        similarity: by name; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        execution: how records come about.

    Raises:
        LossError: a margin that is no finite number.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive"], labels="none")],
        encoders=["dense", "sparse", "multi-vector"],
        memory="tile",
        formula="mean over i of relu(m+ - s_ii) + relu(max_{j != i} s_ij - m-)",
        citation="""@inproceedings{wieting2018paranmt,
  title = {{ParaNMT-50M}: Pushing the Limits of Paraphrastic Sentence Embeddings with Millions of Machine Translations},
  author = {Wieting, John and Gimpel, Kevin},
  booktitle = {Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics},
  year = {2018}
}""",
        requirements=[
            "Batches of 500 rows or more, in which some negative is hard; grad-cache makes them fit.",
            "Batches without duplicate texts: a duplicate of the positive would be the hardest negative.",
        ],
        relations=["multiple-negatives-ranking: learns from all negatives of a batch."],
    )

    def __init__(
        self,
        model: Any = None,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.similarity = similarity
        for option in ("positive_margin", "negative_margin"):
            check_number(f"{type(self).__name__}.{option}", getattr(self, option))

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`, whose negatives are the positives of all others."""
        anchors, positives = columns[0][rows], columns[1]
        alone = positives.items == 1

        def own_and_hardest(scores: Tensor, part: slice) -> Tensor:
            own = torch.arange(rows.start + part.start, rows.start + part.stop, device=scores.device)[:, None]
            if alone:
                return own
            hardest = scores.scatter_(1, own, float("-inf")).argmax(1, keepdim=True)
            return torch.cat([own, hardest], 1)

        found = found_scores(anchors, positives, own_and_hardest, similarity=self.scorer, pairwise=self.pairwise_each)
        margins = {"positive_margin": self.positive_margin, "negative_margin": self.negative_margin}
        return mega_batch_margin(found[:, 0], found[:0, 0] if alone else found[:, 1], **margins)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single positive is nobody else's."""
        return "" if rows > 1 else "one row has no negative"
