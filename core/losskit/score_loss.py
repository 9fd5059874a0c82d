"""`ScoreLoss`: a loss that reads scores, whatever encoder they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .errors import LossError, check_number
from .execution import Execution
from .loss import Loss, Value
from .math.lists import pad_alike, pad_lists, tuple_index
from .math.precision import promoted
from .math.reduce import masked_mean, mean_over_rows
from .output import Output
from .protocols import Similarity

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ScoreLoss",
    "ScoredLists",
    "activated",
    "check_activation",
    "check_constant",
    "described",
    "list_weights",
    "single_documents",
]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda scores: scores,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
Activation = Literal["identity", "sigmoid", "tanh", "relu"] | Callable[[Tensor], Tensor]
"""What is applied to scores first: by name, or from Python any function of them, a module for instance."""


def check_activation(option: str, activation: Activation) -> None:
    """Refuse what is neither a function nor the name of one.

    Args:
        option: as `{type(self).__name__}.activation`.
        activation: what was given.

    Raises:
        LossError: lists the names.
    """
    if not callable(activation) and not (isinstance(activation, str) and activation in ACTIVATIONS):
        expected = f"a function, or one of {', '.join(ACTIVATIONS)}"
        raise LossError(option, expected=expected, got=repr(activation))


def activated(activation: Activation, scores: Tensor) -> Tensor:
    """The scores with an activation applied, in float32 at least.

    Raises:
        LossError: an activation that does not give one number for each.

    >>> activated("relu", torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if isinstance(activation, str):
        return ACTIVATIONS[activation](scores)
    made = activation(scores)
    if not isinstance(made, Tensor) or made.shape != scores.shape or not made.is_floating_point():
        raise LossError(
            "the activation of scores",
            expected=f"floating numbers of shape {list(scores.shape)} from such scores",
            got=described(made),
            fix="apply functions that treat each score by itself",
        )
    return promoted(made)


def check_constant(option: str, weights: Any) -> None:
    """Refuse what weighs terms of a loss and has parameters, which nothing would train.

    Args:
        option: as `{type(self).__name__}.weighting`.
        weights: what was given: any object.

    Raises:
        LossError: names the class.
    """
    if isinstance(weights, nn.Module) and any(parameter.requires_grad for parameter in weights.parameters()):
        got = f"{type(weights).__name__} with parameters"
        raise LossError(
            option, expected="constant weights", got=got, fix="write a loss of your own for weights to learn"
        )


def described(value: Any) -> str:
    """What somebody's function has given, in few words.

    >>> described(torch.zeros(2, 3, dtype=torch.int64)), described(None)
    ('int64 of shape [2, 3]', 'NoneType')
    """
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"


def single_documents(rows: int, labels: Tensor | None) -> str:
    """Why so many lists, with these labels of their documents, hold nothing to compare, or nothing.

    >>> single_documents(2, torch.zeros(2)), single_documents(2, torch.zeros(3))
    ('every list has one document', '')
    """
    return "" if labels is None or labels.numel() > rows else "every list has one document"


class ScoredLists(NamedTuple):
    """Scored lists, padded to [q, n].

    Args:
        scores: [q, n].
        labels: [q, n]; for margins [q, n - 1].
        where: [q, n], True where there is a document; None: everywhere.
        counts: how many documents each list has, on the host; None: n of them, or not known there.
        weights: the sample weight of each list, [q], if there are any.
    """

    scores: Tensor
    labels: Tensor
    where: Tensor | None = None
    counts: tuple[int, ...] | None = None
    weights: Tensor | None = None


class ScoreLoss(Loss):
    """Base of losses on scores: write a `card`, a constructor, and `score`, `per_query` or `per_document`.

    With a cross-encoder the scores are its logits; with any other encoder they are `scale` times the similarity
    of a query with its documents.

    Args:
        model: the encoder.
        activation: applied to the scores first; a name, or from Python any function.
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
        check_activation(f"{name}.activation", activation)
        if model is not None and similarity is not None and self.encoder.family == "cross-encoder":
            raise LossError(
                f"{name}.similarity",
                expected="None with a cross-encoder, which gives scores itself",
                got=repr(similarity),
            )

    def score(self, scores: Tensor, labels: Tensor, where: Tensor) -> Value:
        """The loss of scored lists; unless written, the mean of `per_query` or `per_document`.

        Args:
            scores: [q, n].
            labels: [q, n]; for margins [q, n - 1].
            where: [q, n], True where there is a document.
        """
        if self._by_document:
            return masked_mean(self.per_document(scores, labels), where)
        return mean_over_rows(self.per_query(scores, labels, where))

    def per_query(self, scores: Tensor, labels: Tensor, where: Tensor | None) -> Tensor:
        """The loss of each list, [q], of a loss that is their mean and `uses_weights`.

        Args:
            scores: [q, n].
            labels: [q, n]; for margins [q, n - 1].
            where: [q, n], True where there is a document; None: everywhere, and then a list may give [q, k]
                terms, of which its loss is the mean.
        """
        raise NotImplementedError(f"{type(self).__name__}.score, per_query or per_document")

    def per_document(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The loss of each document by itself, of a loss that is the mean over the documents of all queries.

        Args:
            scores: of any shape; lists are not padded.
            labels: of the same shape.

        Returns:
            Of the same shape.
        """
        raise NotImplementedError(f"{type(self).__name__}.per_document")

    @property
    def row_wise(self) -> bool:
        """No with a similarity of pairs that depends on the other documents of the batch."""
        return super().row_wise and not getattr(self.scorer, "pooled", False)

    @property
    def _by_document(self) -> bool:
        return type(self).per_document is not ScoreLoss.per_document

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Tensor]:
        """The number of queries; of a loss that is the mean over documents, theirs."""
        lists = columns[-1].lists
        if self._by_document and lists is not None:
            return sum(lists[rows])
        return super().denominator(columns, labels, rows)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """Score the tuples `rows`, and hand them to `per_document`, or with lists padded to `per_query` or `score`."""
        assert labels is not None
        if self._by_document:
            picked = [column[rows] for column in columns]
            scores = self._unpadded(picked, self.scale)
            wanted = _unpadded_labels(labels, columns, rows)
            if wanted.numel() != scores.numel():
                raise LossError(
                    f"labels for {type(self).__name__}",
                    expected=f"one for each of {scores.numel()} documents",
                    got=str(wanted.numel()),
                    fix="give each document a label, or a row of its own",
                )
            wanted = wanted.view_as(scores)
            return mean_over_rows(self.per_document(scores, wanted), _document_weights(picked))
        scores, padded, where, _, weights = self.scored(columns, labels, rows)
        if not self.uses_weights:
            return self.score(scores, padded, torch.ones_like(scores, dtype=torch.bool) if where is None else where)
        return mean_over_rows(self.per_query(scores, padded, where), weights)

    def scored(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> ScoredLists:
        """The scores and labels of the tuples `rows`, padded: what a loss reads that writes its own `compute`."""
        assert labels is not None
        picked = [column[rows] for column in columns]
        scores, weights = self._unpadded(picked, self.scale), list_weights(picked[0])
        lists = picked[-1].lists
        if lists is None or len(set(lists)) == 1 or labels.shape != (columns[-1].items,):
            padded, where = _padded(scores, picked[-1])
            counts = None if where is None else lists
            return ScoredLists(padded, _padded_labels(labels, columns, rows), where, counts, weights)
        # Labels that are as many as scores go to the same places.
        (padded, wanted), where = pad_alike([scores, _unpadded_labels(labels, columns, rows)], lists)
        return ScoredLists(padded, wanted, where, lists, weights)

    def scores(self, columns: Sequence[Output], scale: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """The scores of lists, padded to [q, n], and where there is one; None: everywhere.

        Args:
            columns: queries and documents; or the pairs that a cross-encoder has scored.
            scale: factor of similarities, before the activation.
        """
        return _padded(self._unpadded(columns, scale), columns[-1])

    def _unpadded(self, columns: Sequence[Output], scale: float) -> Tensor:
        """The scores of documents: of several columns [q, n], of lists one after another, [N]."""
        first, *documents = columns
        if not documents:
            return self.activated(self._given(first))
        if len(documents) > 1:
            return self.activated(self.pairwise_each(first, documents), scale)
        if documents[0].lists is not None:
            first = first[tuple_index(documents[0].lists, documents[0].items, first.tensors()[0].device)]
        return self.activated(self.pairwise(first, documents[0]), scale)

    def activated(self, scores: Tensor, scale: float = 1.0) -> Tensor:
        """The activation of scores times a scale, in float32 at least."""
        scores = promoted(scores)
        return activated(self.activation, scores if scale == 1.0 else scores * scale)

    def _given(self, column: Output) -> Tensor:
        """The scores of a cross-encoder."""
        scores = column.embedding
        assert scores is not None
        if scores.ndim != 1:
            raise LossError(
                f"scores for {type(self).__name__}",
                expected="one score per pair",
                got=f"{scores.shape[1]} per pair",
                fix="give the cross-encoder num_labels=1",
            )
        return scores


def _padded(scores: Tensor, column: Output) -> tuple[Tensor, Tensor | None]:
    """The scores of documents as one row per tuple, and where there is one; None: everywhere."""
    if scores.ndim == 2:
        return scores, None
    if column.lists is None:
        return scores[:, None], None
    padded, where = pad_lists(scores, column.lists)
    return padded, None if len(set(column.lists)) == 1 else where


def list_weights(column: Output) -> Tensor | None:
    """The sample weight of each list, [q]: a record holds one per item, which are equal in a list; None without."""
    weight = column.weight
    if weight is None or column.lists is None:
        return weight
    return pad_lists(weight, column.lists)[0][:, :1].sum(1)  # 0 where there is no document


def _document_weights(columns: Sequence[Output]) -> Tensor | None:
    """The sample weight of each document: that of its tuple."""
    weight, lists = columns[0].weight, columns[-1].lists
    if weight is None or lists is None or columns[0].lists is not None:
        return weight
    return weight[tuple_index(lists, columns[-1].items, weight.device)]


def _unpadded_labels(labels: Tensor, columns: Sequence[Output], rows: slice) -> Tensor:
    """The labels of the documents of the tuples `rows`, in their order."""
    lists = columns[-1].lists
    if lists is None:
        return labels.reshape(columns[0].tuples, -1)[rows]
    flat = labels.reshape(-1)
    return flat if rows == slice(0, len(lists)) else Output(flat, lists=lists)[rows].tensors()[0]


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
