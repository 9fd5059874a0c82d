"""Columns of texts to features: for collators, and for trainers that hand over raw texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import torch

from .card import split_input
from .errors import LossError
from .protocols import Features

if TYPE_CHECKING:
    from .loss import Loss

__all__ = ["flatten", "preprocess", "query_document_pairs"]

ROLES = {"anchor": "query", "query": "query", "positive": "document", "negative": "document", "documents": "document"}
"""Which role a column's texts have, by its input name; any other is plain text."""

Column = Sequence[str] | Sequence[Sequence[str]]


def preprocess(
    loss: Loss,
    columns: Sequence[Column],
    *,
    inputs: Sequence[str] = (),
    prompts: Mapping[str, str] | None = None,
    weights: Sequence[float] | None = None,
) -> list[Features]:
    """What `loss.forward` takes, from the texts of a batch.

    Args:
        loss: whose encoder tokenises, and whose `pairs` says what a cross-encoder scores.
        columns: per input column n texts, or n lists of texts.
        inputs: the card's name of each column; roles and prompts follow from it.
        prompts: by input name or role.
        weights: one per row.

    Returns:
        One Features per column; for a cross-encoder one of pairs. `lists` says how many items belong to a row.
    """
    encoder = loss.encoder
    names = [split_input(name)[0] for name in inputs] or ["text"] * len(columns)
    prompts = prompts or {}
    if encoder.family == "cross-encoder":
        pairs, lists = loss.drawn_pairs(columns)
        prompt = next((prompts[key] for key in (*names, *map(_role, names)) if key in prompts), None)
        features = [encoder.preprocess(pairs, prompt=prompt)]
        features[0]["lists"] = lists
    else:
        features = []
        for name, column in zip(names, columns, strict=True):
            texts, lists_or_none = flatten(column)
            role = _role(name)
            made = encoder.preprocess(texts, role=role, prompt=prompts.get(name, prompts.get(role)))
            if lists_or_none is not None:
                made["lists"] = lists_or_none
            if loss.carries_texts:
                made["texts"], made["texts_role"] = texts, role
            features.append(made)
    if weights is not None:
        features[0]["weight"] = torch.as_tensor(weights, dtype=torch.float32)
    return features


def flatten(column: Column) -> tuple[list[str], tuple[int, ...] | None]:
    """The texts of a column one after another, and how many belong to each row if it holds lists.

    >>> flatten([["a", "b"], ["c"]])
    (['a', 'b', 'c'], (2, 1))
    """
    if _are_texts(column):
        return list(column), None  # type: ignore[arg-type]
    return [text for row in column for text in row], tuple(len(row) for row in column)


def query_document_pairs(columns: Sequence[Column]) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
    """Column 0 with each other column, row by row; list columns contribute each of their texts.

    >>> query_document_pairs([["q", "r"], [["a", "b"], ["c"]]])
    ([('q', 'a'), ('q', 'b'), ('r', 'c')], (2, 1))
    """
    if len(columns) < 2:
        raise LossError("pairs for a cross-encoder", expected="two columns or more", got=str(len(columns)))
    queries, *others = columns
    if not _are_texts(queries):
        raise LossError("column 1 of a cross-encoder's batch", expected="one text per row", got="a list of texts")
    if all(map(_are_texts, others)):
        paired: list[Any] = [list(zip(queries, other, strict=True)) for other in others]
        row_by_row = paired[0] if len(paired) == 1 else list(chain.from_iterable(zip(*paired, strict=True)))
        return row_by_row, (len(others),) * len(queries)
    pairs: list[tuple[str, str]] = []
    lists: list[int] = []
    for query, *row in zip(queries, *others, strict=True):
        documents = list(chain.from_iterable([each] if isinstance(each, str) else each for each in row))
        pairs.extend(zip(repeat(query), documents))
        lists.append(len(documents))
    return pairs, tuple(lists)


def is_raw(inputs: Any) -> bool:
    """Whether a trainer handed over columns of texts instead of features.

    Raises:
        LossError: the features of one column, outside a list.
    """
    if isinstance(inputs, Mapping):
        raise LossError(
            "the batch", expected="a list of columns", got=f"one {type(inputs).__name__}", fix="put it in a list"
        )
    return bool(inputs) and not isinstance(inputs[0], Mapping)


def _role(name: str) -> str:
    return ROLES.get(name, "text")


def _are_texts(column: Column) -> bool:
    return not column or isinstance(column[0], str)
