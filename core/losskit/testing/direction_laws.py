"""The law of direction: a loss is low where the model is right.

What is right follows from the format: a positive is its anchor's double, a similarity is its label, a class is one
point. The records are made by hand, so that the law needs no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..card import Format
from ..loss import Loss
from ..output import Output
from .changes import objective, owned, require_rows, tuples_of
from .compare import Violation
from .law import NotApplicable, law
from .stage import prepare
from .subject import Subject

__all__ = ["direction"]

SPARE = 2
"""Axes on which no anchor lies."""
LENGTHS = (1.0, 8.0)
"""Of embeddings and scores: a loss of ranks may need large differences, one of numbers those that labels have."""

Models = tuple[list[Tensor], list[Tensor]]
"""What a right and a wrong model give for each column."""


@law(None, "loss", "wrapper", cause="a sign, the order of arguments, or the place of the positive is wrong")
def direction(subject: Subject) -> None:
    """A better model has a lower loss: right records give less than wrong ones."""
    require_rows(subject)
    loss, columns, labels = prepare(subject)
    if owned(loss):
        raise NotApplicable("parameters of its own stand between records and what is right")
    form = subject.form or loss.formats[0]
    if form.labels == "distribution":  # which class a text has is beyond doubt, whatever weights classes have
        labels = None if labels is None else torch.nn.functional.one_hot(labels.argmax(1), labels.shape[1]).to(labels)
    pairs = subject.family == "cross-encoder"
    right, wrong = _scores(form, columns, labels) if pairs else _embeddings(loss, form, columns, labels)
    frozen = {name for _, part in loss.tree() for name in part.frozen}

    def value(vectors: Sequence[Tensor], length: float) -> float:
        made = [
            _made(column, length * each, truth, frozen)
            for column, each, truth in zip(columns, vectors, right, strict=True)
        ]
        return float(objective(subject, loss, made, labels).detach())

    found = [(value(right, length), value(wrong, length)) for length in LENGTHS]
    if not any(best < worst for best, worst in found):
        message = "the loss is no lower for records that are as the labels say, or the format, than for the opposite"
        raise Violation(message, f"less than {found[0][1]:.6g}", f"{found[0][0]:.6g}")
    if form.labels != "binary" or labels is None:
        return
    for label in (0, 1):
        mixed = [_where(labels.eq(label), *each) for each in zip(wrong, right, strict=True)]
        found = [(value(right, length), value(mixed, length)) for length in LENGTHS]
        if not any(best <= worst for best, worst in found):
            message = f"the loss is lower if the records of pairs with label {label} are wrong than if none are"
            raise Violation(message, f"at most {found[0][1]:.6g}", f"{found[0][0]:.6g}")


def _where(rows: Tensor, wrong: Tensor, right: Tensor) -> Tensor:
    """The wrong vectors, or scores, in some rows and the right ones in the others."""
    return wrong.where(rows.view(-1, *[1] * (wrong.ndim - 1)), right)


def _made(column: Output, vectors: Tensor, truth: Tensor, frozen: set[str]) -> Output:
    """The record of encoders that give these vectors; frozen ones are right.

    Of a multi-vector record the first token is the vector, and the other tokens are 0.
    """
    parts = {
        name: (Output(truth) if name in frozen else _made(part, vectors, truth, frozen))
        if isinstance(part, Output)
        else part
        for name, part in column.parts.items()
    }
    if column.mask is not None:
        vectors = vectors[:, None] * (column.mask & (column.mask.cumsum(1) == 1))[..., None]
    return replace(column, embedding=vectors, layers=tuple(vectors for _ in column.layers), parts=parts)


def _scores(form: Format, columns: Sequence[Output], labels: Tensor | None) -> Models:
    """What a right and a wrong cross-encoder give."""
    (column,) = columns
    given = column.embedding
    assert given is not None
    if labels is None:  # the first of a list is the positive
        owners = tuples_of(column)
        first = (owners != owners.roll(1)).to(given)
        return [first], [1 - first]
    if form.labels in ("class", "distribution") and given.ndim == 1:
        raise NotApplicable("the encoder gives a single score, and no logits of classes")
    if form.labels == "class":
        logits = torch.eye(given.shape[1]).to(given)[labels]
    elif form.labels == "distribution":
        logits = labels
    elif form.labels == "margins":
        logits = torch.cat([torch.zeros_like(labels[:, :1]), -labels], 1).flatten()
    else:
        scores = labels.to(given).flatten()
        return [scores], [1 - scores]
    return [logits], [-logits]


def _embeddings(loss: Loss, form: Format, columns: Sequence[Output], labels: Tensor | None) -> Models:
    """What a right and a wrong encoder give for each column."""
    if form.labels == "embedding":
        assert labels is not None
        if any(column.embedding is None or column.embedding.shape != labels.shape for column in columns):
            raise NotApplicable("the labels are no embeddings of the encoder's width")
        return [labels for _ in columns], [-labels for _ in columns]
    rows, width = columns[0].tuples, max(c.embedding.shape[-1] for c in columns if c.embedding is not None)
    if width < rows + SPARE:
        raise NotApplicable(f"{rows} rows have no directions of their own in {width} dimensions")
    axes = torch.eye(width, dtype=torch.float64)
    contrasted = form.labels == "none" and form.inputs[0] in ("anchor", "query")
    if contrasted and len(columns) > 1:
        return _contrasted(columns, axes)
    if form.labels == "class" and len(columns) == 1:
        assert labels is not None
        earlier = (labels[:, None] == labels).tril(-1).sum(1)
        return [axes[labels]], [axes[earlier]]
    if form.labels == "margins":
        return _with_margins(loss, columns, labels, axes)
    if form.labels in ("binary", "score", "scores") and len(columns) > 1:
        return _graded(loss, form, columns, labels, axes)
    raise NotApplicable("its data do not say what a right model would give")


def _contrasted(columns: Sequence[Output], axes: Tensor) -> Models:
    """Positives and negatives: right are the anchor's double and a direction of nobody, wrong are these exchanged."""
    rows = columns[0].tuples
    anchors, positives, *negatives = [tuples_of(column) for column in columns]
    right = [anchors, positives, *(each % SPARE + rows for each in negatives)]
    wrong = [anchors, (positives + 1) % rows, *negatives]
    return [axes[places] for places in right], [axes[places] for places in wrong]


def _with_margins(loss: Loss, columns: Sequence[Output], labels: Tensor | None, axes: Tensor) -> Models:
    """Inner products of a query with its documents, whose differences are the margins, or their negatives."""
    assert labels is not None
    if loss.similarity_name not in ("dot", "maxsim"):
        raise NotApplicable(f"similarities by {loss.similarity_name} have no margins of any size")
    queries, *documents = [axes[tuples_of(column)] for column in columns]
    margins = torch.cat([torch.zeros_like(labels[:, :1]), labels], 1).unbind(1)
    highest = labels.abs().max()

    def vectors(sign: int) -> list[Tensor]:
        factors = [(highest - sign * margin)[:, None] for margin in margins]
        return [queries, *(factor * each for factor, each in zip(factors, documents, strict=True))]

    return vectors(1), vectors(-1)


def _graded(loss: Loss, form: Format, columns: Sequence[Output], labels: Tensor | None, axes: Tensor) -> Models:
    """Similarities: right are the labels, wrong is 1 less the labels; a tuple's label is that of its positive."""
    assert labels is not None
    first, *documents = [axes[tuples_of(column)] for column in columns]
    truths = [labels, *(1 - labels for _ in documents[1:])]
    if form.labels == "scores" and labels.ndim == 2:
        truths = list(labels.unbind(1))
    for _, part in loss.tree():
        if not _rises(part, columns[0].mask is not None, axes):
            raise NotApplicable(f"similarities by {part.similarity_name} do not rise with cosines")
    right = [_similar(each, truth, axes) for each, truth in zip(documents, truths, strict=True)]
    wrong = [_similar(each, 1 - truth, axes) for each, truth in zip(documents, truths, strict=True)]
    return [first, *right], [first, *wrong]


def _rises(loss: Loss, tokens: bool, axes: Tensor) -> bool:
    """Whether the similarity of two vectors rises with their cosine, and depends on nothing else."""
    cosines = torch.tensor([0.0, 0.5, 1.0], dtype=axes.dtype)
    found = []
    for axis in axes[:-1]:
        vectors = axis.expand(len(cosines), -1)
        pair = [vectors, _similar(vectors, cosines, axes)]
        if tokens:
            pair = [each[:, None] for each in pair]
        mask = pair[0].new_ones(len(cosines), 1, dtype=torch.bool) if tokens else None
        found.append(loss.pairwise(*(Output(each, mask) for each in pair)))
    return all(bool((each.diff() > 0).all()) and torch.allclose(each, found[0]) for each in found)


def _similar(vectors: Tensor, cosines: Tensor, axes: Tensor) -> Tensor:
    """Unit vectors that have these cosines with others, which are axes but the last."""
    cosines = cosines.to(axes.dtype)[:, None]
    return cosines * vectors + (1 - cosines.square()).sqrt() * axes[-1]


LAWS = (direction,)
