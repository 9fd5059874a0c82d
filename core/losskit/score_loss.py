"""`ScoreLoss`: a loss that reads scores, whatever encoder they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import LossError, check_number
from .execution import Execution
from .loss import Loss, Value
from .math.lists import pad_lists, tuple_index
from .math.precision import promoted
from .math.reduce import mean_over_rows
from .output import Output
from .protocols import Similarity

__all__ = ["ACTIVATIONS", "Activation", "ScoreLoss"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda scores: scores,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
Activation = Literal["identity", "sigmoid", "tanh", "relu"]


class ScoreLoss(Loss):
    """Base of losses on scores: write a `card`, a constructor, and `score` or `per_query`.

    With a cross-encoder the scores are its logits; with any other encoder they are `scale` times the similarity
    of a query with its documents.

    Args:
        model: the encoder.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: the default of the family.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: a similarity for a cross-encoder, an unknown activation, or a scale that is no positive number.
    """

    compares_rows = False

    def __init__(
        self,
        model: Any = None,
        *,
        activation: Activation = "identity",
        similarity: str | Similarity | None = None,
        scale: float = 1.0,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.activation: Activation = activation
        self.similarity = similarity
        self.scale = scale
        name = type(self).__name__
        check_number(f"{name}.scale", scale, "a positive number")
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise LossError(f"{name}.activation", expected=f"one of {', '.join(ACTIVATIONS)}", got=repr(activation))
        if model is not None and similarity is not None and self.encoder.family == "cross-encoder":
            raise LossError(
                f"{name}.similarity",
                expected="None with a cross-encoder, which gives scores itself",
                got=repr(similarity),
            )

    def score(self, scores: Tensor, labels: Tensor, where: Tensor) -> Value:
        """The loss of scored lists; unless written, the mean of `per_query`.

        Args:
            scores: [q, n].
            labels: [q, n]; for margins [q, n - 1].
            where: [q, n], True where there is a document.
        """
        return mean_over_rows(self.per_query(scores, labels, where))

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each list, [q], of a loss that is their mean and `uses_weights`.

        Args:
            scores: [q, n].
            labels: [q, n]; for margins [q, n - 1].
            where: [q, n], True where there is a document; None: everywhere, and then a list may give [q, k]
                terms, of which its loss is the mean.
        """
        raise NotImplementedError(f"{type(self).__name__}.score or per_query")

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """Score the tuples `rows`, pad their lists, and hand them to `score` or `per_query`."""
        assert labels is not None
        picked = [column[rows] for column in columns]
        scores, where = self._scores(picked)
        padded = _padded_labels(labels, columns, rows)
        if not self.uses_weights:
            return self.score(scores, padded, torch.ones_like(scores, dtype=torch.bool) if where is None else where)
        return mean_over_rows(self.per_query(scores, padded, where), _weights(picked[0]))

    def _scores(self, columns: Sequence[Output]) -> tuple[Tensor, Tensor | None]:
        """The scores of lists, padded to [q, n], and where there is one; None: everywhere."""
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        first, *documents = columns
        if len(documents) > 1:
            return activation(self._scaled(self.pairwise_each(first, documents))), None
        if not documents:
            return _padded(activation(self._given(first)), first)
        if documents[0].lists is not None:
            first = first[tuple_index(documents[0].lists, documents[0].items, first.tensors()[0].device)]
        return _padded(activation(self._scaled(self.pairwise(first, documents[0]))), documents[0])

    def _scaled(self, similarities: Tensor) -> Tensor:
        similarities = promoted(similarities)
        return similarities if self.scale == 1.0 else similarities * self.scale

    def _given(self, column: Output) -> Tensor:
        """The scores of a cross-encoder, in float32 at least."""
        scores = column.embedding
        assert scores is not None
        if scores.ndim != 1:
            raise LossError(
                f"scores for {type(self).__name__}",
                expected="one score per pair",
                got=f"{scores.shape[1]} per pair",
                fix="give the cross-encoder num_labels=1",
            )
        return promoted(scores)


def _padded(scores: Tensor, column: Output) -> tuple[Tensor, Tensor | None]:
    """The scores of a column's items as one row per tuple, and where there is one; None: everywhere."""
    if column.lists is None:
        return scores[:, None], None
    padded, where = pad_lists(scores, column.lists)
    return padded, None if len(set(column.lists)) == 1 else where


def _weights(column: Output) -> Tensor | None:
    """The sample weight of each tuple: one per item, of which all of a list are equal."""
    weight = column.parts.get("weight")
    if not isinstance(weight, Tensor) or column.lists is None:
        return weight if isinstance(weight, Tensor) else None
    return pad_lists(weight, column.lists)[0][:, 0]


def _padded_labels(labels: Tensor, columns: Sequence[Output], rows: slice) -> Tensor:
    """The labels of the tuples `rows`: one per document, or for margins one less, padded like scores."""
    if labels.ndim == 2:
        return labels[rows]
    lists = columns[-1].lists
    if lists is None:
        return labels.reshape(columns[0].tuples, -1)[rows]
    if labels.shape[0] != columns[-1].items:
        lists = tuple(max(count - 1, 0) for count in lists)
    picked = Output(labels, lists=lists)[rows]
    assert picked.lists is not None
    return pad_lists(picked.tensors()[0], picked.lists)[0]
