"""Checks of a batch: what trainers hand over, shapes once per signature, and the values of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .card import Format, split_input
from .errors import LossError, brief
from .output import Output

__all__ = [
    "check_batch",
    "check_lists",
    "check_values",
    "flat_labels",
    "one_per_row",
    "require_texts",
    "signature",
]


def signature(columns: Sequence[Output], labels: Tensor | None) -> tuple[Any, ...]:
    """What `check_batch` looks at."""
    shapes = tuple((c.items, *map(_form, (c.embedding, c.mask))) for c in columns)
    return shapes, tuple(c.lists for c in columns), _form(labels)


def _form(tensor: Tensor | None) -> tuple[torch.Size, torch.dtype] | None:
    return None if tensor is None else (tensor.shape, tensor.dtype)


def require_texts(name: str, **given: Any) -> None:
    """Refuse a column that a trainer has taken for what it knows by the same name itself.

    Raises:
        LossError: names the column.
    """
    for column, value in given.items():
        if value is not None and not isinstance(value, str):
            raise LossError(
                f"the {column} for {name}",
                expected="one text",
                got=f"a {type(value).__name__}, which the trainer takes from a column called {column}",
                fix="rename that column, or train with losskit.Trainer, to which it is just a column",
            )


def flat_labels(
    name: str, labels: Tensor | Sequence[Tensor] | None, lists: Sequence[int] | None = None
) -> Tensor | None:
    """One tensor: of a list per row the values one after another; an empty tensor is none.

    Args:
        name: of the loss.
        labels: as they came.
        lists: how many documents each row has, if it has lists.

    Raises:
        LossError: what no tensor can hold, or rows whose labels would be those of other rows' documents.
    """
    if labels is None or isinstance(labels, Tensor):
        return None if labels is None or labels.numel() == 0 else labels
    try:
        rows = [torch.as_tensor(row) for row in labels]
    except (TypeError, ValueError, RuntimeError) as error:
        raise LossError(
            f"labels for {name}", expected="a tensor, or numbers for each row", got=brief(error), fix="convert them"
        ) from error
    if lists is not None:
        _check_lengths(name, [row.numel() for row in rows], lists)
    return torch.cat([row.reshape(-1) for row in rows]) if rows else None


def check_batch(
    name: str, formats: Sequence[Format], family: str, columns: Sequence[Output], labels: Tensor | None
) -> None:
    """Refuse a batch that fits none of the formats.

    Args:
        name: of the loss.
        formats: what it takes; none: anything.
        family: of the encoder.
        columns: the records.
        labels: as they came.

    Raises:
        LossError: says which columns and labels were expected, and what came.
    """
    if not columns:
        raise LossError(f"the batch for {name}", expected="at least one column", got="none")
    _check_rows(name, columns)
    _check_embeddings(name, family, columns)
    _check_masks(name, columns)
    if not formats:
        return
    fitting = list(formats)
    if family != "cross-encoder":  # whose columns have become pairs
        fitting = [item for item in formats if _fits(item, len(columns))]
        if not fitting:
            wanted = " or ".join(dict.fromkeys(f"({', '.join(item.inputs)})" for item in formats))
            raise LossError(
                f"the batch for {name}",
                expected=f"columns {wanted}",
                got=f"{len(columns)} columns",
                fix="drop the columns it does not use, or choose a loss for this data",
            )
    _check_labels(name, fitting, columns, labels)


def one_per_row(formats: Sequence[Format], columns: Sequence[Output], labels: Tensor) -> Tensor:
    """Labels of shape [n, 1] as [n] where each row has one number, against which they would broadcast to [n, n]."""
    fitting = [item for item in formats if _fits(item, len(columns))] or formats  # pairs are one column of scores
    return labels.squeeze(1) if {item.labels for item in fitting} <= _ONE_PER_ROW else labels


_ONE_PER_ROW = {"binary", "class", "score"}


def check_lists(name: str, formats: Sequence[Format], listed: Sequence[str], columns: Sequence[Output]) -> None:
    """Refuse lists of texts in a column where a loss takes one text per row.

    Args:
        name: of the loss.
        formats: what it takes; none: anything.
        listed: the inputs that may hold lists.
        columns: the records.

    Raises:
        LossError: names the column.
    """
    fitting = [item for item in formats if _fits(item, len(columns))]
    for place, column in enumerate(columns):
        names = [split_input(item.inputs[min(place, len(item.inputs) - 1)])[0] for item in fitting]
        if column.lists is not None and fitting and not set(names) & set(listed):
            raise LossError(
                f"column {place + 1} ({names[0]}) of the batch for {name}",
                expected="one text per row",
                got="a list of texts per row",
                fix="give each text a row of its own, or choose a loss that takes lists",
            )


def _fits(item: Format, columns: int) -> bool:
    fewest, most = item.arity
    return fewest <= columns and (most is None or columns <= most)


def _check_rows(name: str, columns: Sequence[Output]) -> None:
    for place, column in enumerate(columns, start=1):
        if column.lists is not None and (min(column.lists, default=0) < 0 or sum(column.lists) != column.items):
            raise LossError(
                f"the lists of column {place} for {name}",
                expected=f"lengths that sum to its {column.items} items",
                got=str(list(column.lists)),
            )
    counts = [column.tuples for column in columns]
    if len(set(counts)) > 1 or not counts[0]:
        wanted = "at least one row" if len(set(counts)) == 1 else "as many rows in every column"
        raise LossError(f"the batch for {name}", expected=wanted, got=f"{counts}")


_AXES = {"dense": (2,), "sparse": (2,), "multi-vector": (3,), "cross-encoder": (1, 2)}


def _check_embeddings(name: str, family: str, columns: Sequence[Output]) -> None:
    """Of one kind: as many axes as the family has, one width, one floating type."""
    found = [column.embedding for column in columns if column.embedding is not None]
    shapes = [list(embedding.shape) for embedding in found]
    axes = _AXES.get(family, (1, 2, 3))
    if any(embedding.ndim not in axes for embedding in found):
        raise LossError(
            f"embeddings for {name}",
            expected=f"{' or '.join(map(str, axes))} axes from a {family} encoder",
            got=f"shapes {shapes}",
        )
    if len({(embedding.dtype, *embedding.shape[-1:]) for embedding in found if embedding.ndim > 1}) > 1:
        types = [str(embedding.dtype).removeprefix("torch.") for embedding in found]
        raise LossError(f"embeddings for {name}", expected="one width and type", got=f"shapes {shapes} of {types}")
    if not all(embedding.is_floating_point() for embedding in found):
        raise LossError(f"embeddings for {name}", expected="floating numbers", got=str(found[0].dtype))


def _check_masks(name: str, columns: Sequence[Output]) -> None:
    """Of each token a boolean; in all columns or in none, for joined with others a column without would hide theirs."""
    found = [(column.embedding.shape[:2], column.mask) for column in columns if column.embedding is not None]
    for shape, mask in found:
        if mask is not None and _form(mask) != (shape, torch.bool):
            got = f"{str(mask.dtype).removeprefix('torch.')} of shape {list(mask.shape)}"
            raise LossError(f"a mask for {name}", expected=f"bool of shape {list(shape)}", got=got)
    if len({mask is None for _, mask in found}) > 1:
        missing = sum(mask is None for _, mask in found)
        raise LossError(f"masks for {name}", expected="one for every column", got=f"{missing} columns without")


def _check_labels(name: str, formats: Sequence[Format], columns: Sequence[Output], labels: Tensor | None) -> None:
    kinds = {item.labels for item in formats}
    wanted = ", ".join(sorted(kinds - {"none"}))
    if labels is None:
        if "none" not in kinds:
            raise LossError(f"labels for {name}", expected=wanted, got="none", fix="name the label column")
        return
    if kinds == {"none"}:
        raise LossError(
            f"labels for {name}",
            expected="none, for it learns from the columns alone",
            got=f"a tensor of shape {list(labels.shape)}",
            fix="drop the label column, or choose a loss that uses it",
        )
    allowed = {kind: _label_shapes(kind, columns) for kind in kinds - {"none"}}
    fitting = {kind for kind, shapes in allowed.items() for shape in shapes if _shape_fits(tuple(labels.shape), shape)}
    if not fitting:
        possible = dict.fromkeys(shape for each in allowed.values() for shape in each)
        shapes = " or ".join(str(list(shape)).replace("None", "*") for shape in possible)
        raise LossError(f"labels for {name}", expected=f"{wanted} of shape {shapes}", got=f"{list(labels.shape)}")
    if fitting == {"class"} and labels.is_floating_point():
        got = str(labels.dtype).removeprefix("torch.")
        raise LossError(f"labels for {name}", expected="integers, one per class", got=got, fix="convert them")


def check_values(name: str, formats: Sequence[Format], labels: Tensor) -> None:
    """Refuse labels on the CPU: binary ones that are neither 0 nor 1, and scores that are no numbers.

    Raises:
        LossError: says what else there is.
    """
    kinds = {item.labels for item in formats} - {"none"}
    # A sum tells at once that there is nothing to be found; it may overflow without.
    suspect = kinds <= {"score", "scores", "margins"} and not math.isfinite(labels.sum())
    if suspect and _wrong_scores(labels, kinds == {"scores"}).any():
        got = "NaN" if labels.isnan().any() else "infinity"
        raise LossError(f"labels for {name}", expected="numbers", got=got, fix="drop the rows without a label")
    if kinds == {"binary"} and not torch.equal(labels, labels.bool().to(labels.dtype)):
        others = [value for value in labels.flatten().tolist() if value not in (0, 1)]
        raise LossError(f"labels for {name}", expected="0 or 1", got=f"{others[0]:g}", fix="map them to 0 and 1")


def _wrong_scores(labels: Tensor, listed: bool) -> Tensor:
    # A list may hold candidates of probability 0, whose score is minus infinity; its margins are no numbers.
    return labels.isnan() | (labels == float("inf")) if listed else ~labels.isfinite()


def _check_lengths(name: str, counts: list[int], lists: Sequence[int]) -> None:
    """Refuse as many labels as there are documents, or negatives, that are not as many in each row."""
    short = sum(lists) - sum(counts)
    of_negatives = short == len(lists) == len(counts)
    wanted = [count - 1 for count in lists] if of_negatives else list(lists)
    if counts != wanted and sum(counts) == sum(wanted):
        of = "negatives" if of_negatives else "documents"
        raise LossError(
            f"labels for {name}", expected=f"as many for each row as it has {of}, {wanted}", got=str(counts)
        )


def _label_shapes(kind: str, columns: Sequence[Output]) -> list[tuple[int | None, ...]]:
    """The shapes that labels of a kind may have; None stands for any size."""
    rows = columns[0].tuples
    if kind in ("binary", "class", "score"):
        return [(rows,), (rows, 1)]
    if kind == "scores":
        lists = columns[-1].lists
        if lists is None:
            return [(rows * (len(columns) - 1),), (rows, len(columns) - 1)]
        return [(columns[-1].items,), *([(rows, lists[0])] if len(set(lists)) == 1 else [])]
    if kind == "margins":
        lists = columns[-1].lists
        if lists is not None:
            return [(columns[-1].items - rows,), *([(rows, lists[0] - 1)] if len(set(lists)) == 1 else [])]
        negatives = len(columns) - 2
        return [(rows, negatives), *([(rows,)] if negatives == 1 else [])]
    return [(rows, None), (rows, None, None)]  # distribution, embedding


def _shape_fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))
