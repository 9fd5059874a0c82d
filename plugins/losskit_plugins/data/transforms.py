"""Transforms: pairs that are made of single texts, anew in every epoch, each from (seed, epoch, row) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losskit.card import Format
from losskit.errors import DataError, did_you_mean
from losskit.recipe import ContrastiveTensionPairs, DeleteWords, TrainSource

from .columns import Match, match
from .files import match_source, peek, read

__all__ = ["Transformed", "delete_words", "match_training", "read_training"]

SINGLE = (Format(["text"]),)

Row = dict[str, Any]


class Transformed(Sequence[Row]):
    """Rows of pairs, made when asked for.

    The same seed and epoch give the same rows, in any order and in any process.

    Args:
        texts: of which pairs are made.
        transform: of a recipe.
        seed: of the draws.

    Raises:
        DataError: pairs of different texts are wanted, and there is one text only.

    >>> pairs = Transformed(["a", "b"], ContrastiveTensionPairs(name="contrastive-tension-pairs", ratio=2))
    >>> sorted(pairs[row]["label"] for row in range(2))
    [0, 1]
    """

    def __init__(self, texts: Sequence[str], transform: DeleteWords | ContrastiveTensionPairs, seed: int = 0) -> None:
        self.texts = texts
        self.transform = transform
        self.seed = seed
        self._make = _MAKERS[transform.name]
        self.set_epoch(0)
        if isinstance(transform, ContrastiveTensionPairs) and all(text == texts[0] for text in texts):
            raise DataError(f"transform {transform.name}", expected="two different texts or more", got="one")

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other pairs; a DataLoader that accelerate has prepared says which it is."""
        self.epoch = epoch
        self.places: NDArray[np.int64] = np.random.default_rng((self.seed, epoch)).permutation(len(self.texts))

    def __len__(self) -> int:
        """As many pairs as texts."""
        return len(self.texts)

    def __getitem__(self, row: Any) -> Any:
        """A pair."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        row = range(len(self))[row]
        return self._make(self, row, np.random.default_rng((self.seed, self.epoch, row)))

    def __iter__(self) -> Iterator[Row]:
        """All pairs of the epoch."""
        return (self[row] for row in range(len(self)))


def delete_words(text: str, ratio: float, random: np.random.Generator) -> str:
    """A text without about a share of its words; at least one stays.

    Args:
        text: words between spaces.
        ratio: the probability with which a word is left out.
        random: what is drawn from.

    >>> delete_words("a b c d e f", 0.5, np.random.default_rng(0))
    'a e f'
    """
    words = text.split()
    if not words:
        return text
    kept = random.random(len(words)) >= ratio
    if not kept.any():
        kept[random.integers(len(words))] = True
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)


def _damaged(rows: Transformed, row: int, random: np.random.Generator) -> Row:
    text = rows.texts[row]
    return {"text_1": delete_words(text, float(rows.transform.ratio), random), "text_2": text}


def _same_or_other(rows: Transformed, row: int, random: np.random.Generator) -> Row:
    text = rows.texts[row]
    if rows.places[row] % rows.transform.ratio == 0:
        return {"text_1": text, "text_2": text, "label": 1}
    other = int(random.integers(len(rows)))
    while rows.texts[other] == text:
        other = (other + 1) % len(rows)
    return {"text_1": text, "text_2": rows.texts[other], "label": 0}


_PAIRS: dict[str, Row] = {
    "delete-words": {"text_1": "", "text_2": ""},
    "contrastive-tension-pairs": {"text_1": "", "text_2": "", "label": 0},
}
"""What the pairs of each transform look like."""

_MAKERS: dict[str, Callable[[Transformed, int, np.random.Generator], Row]] = {
    "delete-words": _damaged,
    "contrastive-tension-pairs": _same_or_other,
}


def match_training(source: TrainSource, formats: Sequence[Format], loss: str = "the loss") -> Match:
    """Which columns of training data, or of the pairs made of it, are which inputs of a loss.

    Raises:
        DataError: it cannot be read, lacks the transform's column, or fits none of the formats.
    """
    if source.transform is None:
        return match_source(source, formats, loss)
    _single(source)
    pair = _PAIRS[source.transform.name]
    return match(list(pair), formats, source.columns, where=source.path, loss=loss, sample=[pair])


def read_training(source: TrainSource, matched: Match, seed: int) -> tuple[Any, Match]:
    """All rows, or the pairs made of them; and the match with class names, if it has some.

    Raises:
        DataError: a row that is malformed or has a wrong value; with file, line and column.
    """
    if source.transform is None:
        return read(source, matched)
    rows, single = read(source, _single(source))
    return Transformed(rows[single.columns[0].data][:], source.transform, seed), matched


def _single(source: TrainSource) -> Match:
    """The data as single texts, as a transform reads them."""
    assert source.transform is not None
    seen, column = peek(source), source.transform.column
    if column not in seen.columns:
        raise DataError(
            f"data.train.transform.column of {source.path}",
            expected=f"the column of texts, one of {', '.join(seen.columns)}",
            got=repr(column),
            fix=did_you_mean(column, seen.columns),
        )
    mapping = {"text": column}
    return match(seen.columns, SINGLE, mapping, where=source.path, loss=source.transform.name, sample=seen.rows)
