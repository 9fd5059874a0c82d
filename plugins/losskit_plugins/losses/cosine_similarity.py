"""Cosine similarity as a regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError
from losskit.math import mean_over_rows
from losskit.score_loss import Activation, activated, check_activation

__all__ = ["CRITERIA", "CosineSimilarityLoss"]

CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": partial(functional.mse_loss, reduction="none"),
    "absolute": partial(functional.l1_loss, reduction="none"),
}
Criterion = Literal["squared", "absolute"]


class CosineSimilarityLoss(Loss):
    """Brings the cosine of a pair to its label.

    Args:
        model: an encoder that embeds.
        criterion: error of a score; or a function of scores and labels [n] to errors [n], or to their mean.
        activation: applied to the cosines first; or a function of them.
        execution: how records come about.

    Raises:
        LossError: an unknown criterion or activation.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense", "sparse"],
        memory="B",
        formula="mean of (cosine - y)^2",
        citation="""@inproceedings{reimers2019sentence,
  title = {Sentence-{BERT}: Sentence Embeddings using Siamese {BERT}-Networks},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing},
  year = {2019}
}""",
        requirements=["Labels in [-1, 1], as cosines are."],
        relations=["cosent and angle rank pairs by their labels, instead of regressing on them."],
    )
    default_similarity: ClassVar[Mapping[str, str]] = {"dense": "cosine", "sparse": "cosine"}
    uses_weights = True
    compares_rows = False

    def __init__(
        self,
        model: Any = None,
        criterion: Criterion | Callable[..., Any] = "squared",
        activation: Activation = "identity",
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.criterion = criterion
        self.activation: Activation = activation
        name = type(self).__name__
        check_activation(f"{name}.activation", activation)
        if not callable(criterion) and criterion not in CRITERIA:
            expected = f"a function, or one of {', '.join(CRITERIA)}"
            raise LossError(f"{name}.criterion", expected=expected, got=repr(criterion))

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """A cosine cannot reach a label beyond 1; what a function of it can is not known."""
        super().check_labels(columns, labels)
        low, high = (float(end) for end in torch.aminmax(labels))
        if not callable(self.activation) and not -1 <= low <= high <= 1:
            raise LossError(
                f"labels for {type(self).__name__}",
                expected="scores in [-1, 1], as cosines are",
                got=f"some from {low:g} to {high:g}",
                fix="scale them, as with label: {column: NAME, from: [0, 5], to: [0, 1]} in a recipe",
            )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The loss of the pairs `rows`."""
        a, b = (column[rows] for column in columns)
        criterion = self.criterion if callable(self.criterion) else CRITERIA[self.criterion]
        scores = activated(self.activation, self.pairwise(a, b))
        errors = criterion(scores, labels.flatten()[rows].to(scores.dtype))
        weight = a.weight
        if errors.ndim == 0 and weight is not None:
            raise LossError(
                f"sample weights for {type(self).__name__}",
                expected="a criterion with one error per row",
                got="one that returns their mean",
                fix="build it with reduction='none'",
            )
        return errors if errors.ndim == 0 else mean_over_rows(errors, weight)
