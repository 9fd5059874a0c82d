"""Inference over many texts: sorted by length, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from losskit.errors import DataError, RecipeError
from losskit.modes import in_evaluation

__all__ = ["check_pairs", "check_texts", "evaluating", "in_batches"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every part is in the mode it was in."""
    with in_evaluation(module), torch.inference_mode():
        yield


def in_batches(
    items: Sequence[Item],
    run: Callable[[list[Item]], Sequence[Result]],
    *,
    length: Callable[[Item], int],
    batch_size: int,
    progress: bool,
) -> list[Result]:
    """The result of each item, computed in batches of items of like length.

    Args:
        items: n of them.
        run: a batch of b items to as many results.
        length: a measure of an item's length.
        batch_size: the most items of a batch.
        progress: show a bar on stderr.

    Returns:
        n results, in the order of the items.
    """
    if batch_size < 1:
        raise RecipeError("batch_size", expected="1 or more", got=str(batch_size))
    order = sorted(range(len(items)), key=lambda index: -length(items[index]))
    starts = range(0, len(items), batch_size)
    console = Console(stderr=True)
    results: dict[int, Result] = {}
    for start in track(starts, "Encoding", console=console, disable=not progress):
        batch = order[start : start + batch_size]
        results.update(zip(batch, run([items[index] for index in batch]), strict=True))
    return [results[index] for index in range(len(items))]


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        DataError: something is no text.
    """
    if isinstance(texts, str):
        raise DataError("texts", expected="a list of texts", got="a single one", fix="put it in a list")
    texts = list(texts)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"text {position + 1} of {len(texts)}", expected="a string", got=_short(text), fix=_fix(text)
            )
    return texts


def check_pairs(pairs: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The (query, document) pairs as a list.

    Raises:
        DataError: something is no pair of texts.
    """
    if isinstance(pairs, str):
        raise DataError("pairs", expected="a list of (query, document)", got="a single text")
    pairs = list(pairs)
    for position, pair in enumerate(pairs):
        if not _is_pair(pair):
            raise DataError(
                f"pair {position + 1} of {len(pairs)}", expected="(query, document), both strings", got=_short(pair),
                fix=_fix(*pair[1:]) if isinstance(pair, list | tuple) else "",
            )  # fmt: skip
    return [(query, document) for query, document in pairs]


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fix(*documents: object) -> str:
    """Where numbers stand in the place of a text."""
    numbers = (isinstance(each, list | tuple) and each and isinstance(each[0], int | float) for each in documents)
    return "for rows of features take the encoder mlp" if any(numbers) else ""
