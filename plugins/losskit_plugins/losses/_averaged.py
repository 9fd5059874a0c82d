"""What losses share that average over the pairs or documents of all lists, or first within each list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Execution, Output, ScoreLoss, Similarity
from losskit.errors import LossError
from losskit.math import mean_over_rows
from losskit.score_loss import Activation, ScoredLists

__all__ = ["AveragedLoss"]


class AveragedLoss(ScoreLoss):
    """Base of losses that are sums of terms within lists: write `terms`.

    Args:
        model: any encoder.
        average: "queries": the mean of each query's terms, and then over queries, which then may have sample
            weights; else the name of the terms: the mean over those of all queries.
        terms_are: that name.
        activation: applied to the scores first.
        similarity: for encoders that embed.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: another average.
    """

    def __init__(
        self,
        model: Any,
        *,
        average: str,
        terms_are: str,
        activation: Activation,
        similarity: str | Similarity | None,
        scale: float,
        execution: Execution | None,
    ) -> None:
        super().__init__(model, activation=activation, similarity=similarity, scale=scale, execution=execution)
        self.average = average
        if average not in (terms_are, "queries"):
            name = f"{type(self).__name__}.average"
            raise LossError(name, expected=f"{terms_are} or queries", got=repr(average))

    def terms(self, lists: ScoredLists) -> tuple[Tensor, Tensor]:
        """The sum of each list's terms, [q], and how many there are, [q], without gradient."""
        raise NotImplementedError(f"{type(self).__name__}.terms")

    @property
    def takes_weights(self) -> bool:
        """A mean over queries can be a weighted one."""
        return self.average == "queries"

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> int | Tensor:
        """How many queries, or terms, the tuples `rows` have."""
        if self.average == "queries":
            return rows.stop - rows.start
        with torch.no_grad():
            return self.terms(self.scored(columns, labels, rows))[1].sum()

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The mean over the tuples `rows`, or over their terms."""
        return self._mean(self.scored(columns, labels, rows))

    def score(self, scores: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        """The loss of scored lists."""
        return self._mean(ScoredLists(scores, labels, where))

    def _mean(self, lists: ScoredLists) -> Tensor:
        sums, numbers = self.terms(lists)
        if self.average == "queries":
            return mean_over_rows(sums / numbers.clamp(min=1), lists.weights)
        return sums.sum() / numbers.sum().clamp(min=1)
