"""`ScoreLoss`: a loss that reads scores, whatever encoder they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import LossError
from .execution import Execution
from .loss import Loss, Value
from .math.lists import pad_lists, tuple_index
from .math.precision import promoted
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
    """Base of losses on scores: write a `card`, a constructor, and `score`.

    With a cross-encoder the scores are its logits; with any other encoder they are `scale` times the similarity
    of a query with its documents.

    Args:
        model: the encoder.
        activation: applied to the scores first.
        similarity: for encoders that embed; None: the default of the family.
        scale: for encoders that embed, factor of the similarity.
        execution: how records come about.

    Raises:
        LossError: a similarity for a cross-encoder, or an unknown activation.
    """

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
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise LossError(f"{name}.activation", expected=f"one of {', '.join(ACTIVATIONS)}", got=repr(activation))
        if model is not None and similarity is not None and self.encoder.family == "cross-encoder":
            raise LossError(
                f"{name}.similarity",
                expected="None with a cross-encoder, which gives scores itself",
                got=repr(similarity),
            )

    def score(self, scores: Tensor, labels: Tensor, where: Tensor) -> Value:
        """The loss of scored lists.

        Args:
            scores: [q, n].
            labels: [q, n]; for margins [q, n - 1].
            where: [q, n], True where there is a document.
        """
        raise NotImplementedError(f"{type(self).__name__}.score")

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """Score the tuples `rows`, pad their lists, and hand them to `score`."""
        picked = [column[rows] for column in columns]
        flat, lists = self._flat_scores(picked)
        activation = ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation
        scores, where = pad_lists(activation(promoted(flat)), lists)
        assert labels is not None
        return self.score(scores, _padded_labels(labels, columns, rows, lists), where)

    def _flat_scores(self, columns: Sequence[Output]) -> tuple[Tensor, tuple[int, ...]]:
        """Scores of all documents, list after list, and the length of each list."""
        first = columns[0]
        if len(columns) == 1:
            assert first.embedding is not None
            if first.embedding.ndim != 1:
                raise LossError(
                    f"scores for {type(self).__name__}",
                    expected="one score per pair",
                    got=f"{first.embedding.shape[1]} per pair",
                    fix="give the cross-encoder num_labels=1",
                )
            return first.embedding, first.lists or (1,) * first.items
        documents = columns[1:]
        if len(documents) == 1:
            lists = documents[0].lists or (1,) * first.items
            if documents[0].lists is not None:
                first = first[tuple_index(lists, documents[0].items, first.tensors()[0].device)]
            return self.pairwise(first, documents[0]) * self.scale, lists
        scores = torch.stack([self.pairwise(first, each) for each in documents], dim=1)
        return scores.flatten() * self.scale, (len(documents),) * first.items


def _padded_labels(labels: Tensor, columns: Sequence[Output], rows: slice, lists: Sequence[int]) -> Tensor:
    """The labels of the tuples `rows`, padded like their scores."""
    if labels.ndim == 2:
        return labels[rows]
    owner = columns[-1].lists
    if owner is None:
        return labels[rows].view(len(lists), -1)
    padded, _ = pad_lists(Output(labels, lists=owner)[rows].tensors()[0], lists)
    return padded
