"""Global orthogonal regularization as a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit_plugins.regularizers.global_orthogonal import check_options, global_orthogonal

__all__ = ["GlobalOrthogonalRegularizationLoss"]


class GlobalOrthogonalRegularizationLoss(Loss):
    """Asks that the similarities within each column have the mean and spread of random directions.

    Args:
        model: an encoder that embeds.
        mean_weight: of the squared mean similarity, `gor_mean`.
        second_moment_weight: of what the mean squared similarity exceeds 1 / d by, `gor_second_moment`.
        aggregation: "mean" or "sum" over the columns.
        similarity: by name; None: cosine.
        execution: how records come about.

    Raises:
        LossError: weights that are both 0, or another aggregation.
    """

    card = Card(
        formats=[Format(inputs=["text+"], labels="none")],
        encoders=["dense", "sparse"],
        row_wise=False,
        memory="D^2 or tile",
        formula="w1 (mean_{i != j} s_ij)^2 + w2 max(0, mean_{i != j} s_ij^2 - 1/d), over columns",
        citation="""@inproceedings{zhang2017spread,
  title = {Learning Spread-Out Local Feature Descriptors},
  author = {Zhang, Xu and Yu, Felix X. and Kumar, Sanjiv and Chang, Shih-Fu},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  year = {2017}
}""",
        relations=[
            "weighted-sum: adds it to a loss that says what shall be near, which it does not.",
            "global-orthogonal is the same as a regularizer.",
        ],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "cosine"}
    uses_lists = ("text",)

    def __init__(
        self,
        model: Any = None,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: str = "mean",
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        check_options(type(self).__name__, mean_weight, second_moment_weight, aggregation)
        self.mean_weight = mean_weight
        self.second_moment_weight = second_moment_weight
        self.aggregation = aggregation
        self.similarity = similarity

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> dict[str, Tensor]:
        """Both terms over the tuples `rows` of each column."""
        return global_orthogonal(
            [column[rows] for column in columns],
            self.scorer,
            mean_weight=self.mean_weight,
            second_moment_weight=self.second_moment_weight,
            aggregation=self.aggregation,
        )

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single row has nothing to be orthogonal to."""
        return "" if rows > 1 else "one row has no other to be orthogonal to"
