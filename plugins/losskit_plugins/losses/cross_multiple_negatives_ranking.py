"""Multiple negatives ranking by scores of pairs: a positive among a few negatives drawn from the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from losskit import Card, Execution, Format, Output, ScoreLoss, Similarity
from losskit.errors import LossError
from losskit.math import masked_log_softmax, mean_over_rows
from losskit.score_loss import Activation, list_weights

from ._drawn_negatives import draw_places, draw_texts

__all__ = ["CrossMultipleNegativesRankingLoss", "in_list_cross_entropy"]


def in_list_cross_entropy(
    scores: Float[Tensor, "queries documents"],
    positives: Int[Tensor, " queries"] | None = None,
    *,
    where: Bool[Tensor, "queries documents"] | None = None,
) -> Float[Tensor, " queries"]:
    """log sum_j exp(s_j) - s_positive of each query.

    Args:
        scores: scaled scores of each query's documents.
        positives: the place of each query's positive; None: the first.
        where: True where there is a document; None: everywhere.

    A query without documents counts as a loss of 0.

    >>> in_list_cross_entropy(torch.zeros(1, 3), where=torch.tensor([[True, True, False]]))
    tensor([0.6931])
    """
    found = scores.log_softmax(1) if where is None else masked_log_softmax(scores, where)
    return -(found[:, 0] if positives is None else found.gather(1, positives[:, None]).squeeze(1))


class CrossMultipleNegativesRankingLoss(ScoreLoss):
    """Tells each anchor's positive from its negatives and from some drawn among the batch's other texts.

    With a cross-encoder a text is not drawn that is the anchor's own negative, or the positive of any row with
    the same anchor; an encoder that embeds knows no texts, and an anchor's own row alone is left out.

    Args:
        model: any encoder: a cross-encoder's scores, or the similarities of an embedding one.
        num_negatives: how many are drawn for each anchor, without replacement, beside its own; None, or more than
            there are: all.
        scale: inverse temperature, factor of the activated scores.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        execution: how records come about.

    Raises:
        LossError: a number of negatives below 0, or a scale that is not positive.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"], labels="none", outputs=1)],
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        stochastic=True,
        memory="n or B^2 n",
        formula="mean over i of log sum over its documents j of exp(scale a(s_ij)) - scale a(s_i,positive)",
        citation="""@misc{henderson2017efficient,
  title = {Efficient Natural Language Response Suggestion for Smart Reply},
  author = {Henderson, Matthew and others},
  year = {2017},
  eprint = {1705.00652},
  archivePrefix = {arXiv}
}""",
        relations=[
            "multiple-negatives-ranking takes all texts of the batch for negatives, in tiles, with encoders that embed."
        ],
        requirements=["A cross-encoder scores 1 + num_negatives pairs per row, and one for each negative of its own."],
    )
    uses_weights = True
    uses_lists = ()
    compares_rows = True

    def __init__(
        self,
        model: Any = None,
        num_negatives: int | None = 4,
        scale: float = 10.0,
        activation: Activation = "sigmoid",
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.num_negatives = num_negatives
        if num_negatives is not None and (type(num_negatives) is not int or num_negatives < 0):
            name = f"{type(self).__name__}.num_negatives"
            raise LossError(name, expected="an integer from 0, or None for all", got=repr(num_negatives))

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> Tensor | None:
        """A number in [0, 1) for each negative, which picks among the texts left; None: all are taken."""
        others = (sizes[0] - 1) * (len(sizes) - 1)
        if self.num_negatives is None or self.num_negatives >= others:
            return None
        numbers: Tensor = torch.empty(sizes[0], self.num_negatives, dtype=torch.float64, device=generator.device)
        return numbers.uniform_(generator=generator)

    def pairs(
        self, columns: Sequence[Sequence[str]], drawn: Tensor | None = None
    ) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """Each anchor with its positive, its negatives and those drawn for it.

        Raises:
            LossError: lists of texts, or anchors alone.
        """
        if len(columns) < 2:
            expected = "columns (anchor, positive, negative*)"
            raise LossError(f"the batch for {type(self).__name__}", expected=expected, got="1 column")
        if any(not isinstance(text, str) for column in columns for text in column):
            raise LossError(
                f"the batch for {type(self).__name__}",
                expected="one text per row in each column",
                got="a list of texts",
                fix="give each negative of a row a column of its own, and each positive a row",
            )
        rows = [
            (anchor, [*own, *others]) for anchor, *own, others in zip(*columns, draw_texts(columns, drawn), strict=True)
        ]
        pairs = [(anchor, document) for anchor, documents in rows for document in documents]
        return pairs, tuple(len(documents) for _, documents in rows)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has no negatives."""
        alone = columns == 2 and (rows == 1 or self.num_negatives == 0)
        return "rows without negatives have nothing to be told from" if alone else ""

    def per_query(self, scores: Tensor, labels: Tensor | None, where: Tensor | None) -> Tensor:
        """The loss of each list, whose positive comes first."""
        return in_list_cross_entropy(scores * self.scale, where=where)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the tuples `rows`, among the pairs that were scored or the documents drawn for them."""
        picked = [column[rows] for column in columns]
        if len(columns) == 1 or self.drawn is not None:
            scores, where = self.scores([*picked, *self._drawn_documents(columns, rows)])
            losses = self.per_query(scores, labels, where)
        else:
            scores = self.activated(self.matrix(picked[0], Output.cat(columns[1:])))
            places = torch.arange(rows.start, rows.stop, device=scores.device)
            losses = in_list_cross_entropy(scores * self.scale, places)
        return mean_over_rows(losses, list_weights(picked[0]))

    def _drawn_documents(self, columns: Sequence[Output], rows: slice) -> list[Output]:
        """A column for each draw; none where pairs were scored, which hold what was drawn."""
        if self.drawn is None:
            return []
        documents, count = Output.cat(columns[1:]), columns[0].tuples
        place = self.drawn.device
        own = torch.arange(rows.start, rows.stop, device=place)[:, None]
        own = own + count * torch.arange(len(columns) - 1, device=place)
        places = draw_places(self.drawn[rows], documents.items, own)
        return [documents[place] for place in places.to(columns[0].tensors()[0].device).unbind(1)]
