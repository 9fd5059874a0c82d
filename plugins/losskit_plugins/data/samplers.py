"""Batches in which no text occurs twice, for losses that take other rows for negatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch.utils.data import Sampler

from losskit.errors import DataError

from .columns import LABEL_COLUMNS

__all__ = ["NoDuplicatesBatchSampler"]

logger = logging.getLogger("losskit")

Integers = NDArray[np.int64]


class NoDuplicatesBatchSampler(Sampler[list[int]]):
    """Batches of row numbers in which no two rows share a text, in any of their columns.

    Every row occurs once per epoch. Rows that hold a text of another row are spread over the batches first, at
    random; the others fill what is left. So all batches are full but the last, unless a text is in more rows than
    there would be batches: then there is a batch for each of those rows, and all are smaller.

    Several processes build the same batches from the same seed and epoch. accelerate hands batch i to process
    i % processes; with `shards` processes every `shards` batches in a row share no text either, so a loss that gathers
    sees no text twice. Where batches do not go round evenly, accelerate repeats those of the beginning.
    `batch_size` is None as seen from there, which says that batches may differ in size.

    Args:
        dataset: of `datasets`, or rows as a sequence of maps.
        batch_size: rows per batch.
        columns: with texts or lists of texts; None: all such columns that are not called like a label.
        shards: processes that take a batch each per step.
        drop_last: leave out the last batch if it is smaller.
        seed: of the order.

    Raises:
        DataError: no such column, or no column of texts.

    >>> rows = [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": "c"}, {"anchor": "d", "positive": "e"}]
    >>> sorted(map(len, NoDuplicatesBatchSampler(rows, 2)))
    [1, 2]
    """

    batch_size = None

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        columns: Sequence[str] | None = None,
        *,
        shards: int = 1,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        self.rows = len(dataset)
        self.rows_per_step = batch_size * shards
        self.shards = shards
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self._texts, self._ends = _repeated_texts(_columns(dataset, columns), self.rows)
        self._often = _highest(self._texts, self._ends)
        self._first = self._steps(0)
        self._planned = (0, self._first)

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches; the same in every epoch."""
        return sum(len(self._split(step)) for step in self._first)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        if self._planned[0] != self.epoch:
            self._planned = self.epoch, self._steps_like_first(self.epoch)
        for step in self._planned[1]:
            yield from self._split(step)

    def _split(self, step: Integers) -> list[list[int]]:
        return [part.tolist() for part in np.array_split(step, self.shards) if len(part)]

    def _steps_like_first(self, epoch: int) -> list[Integers]:
        steps = self._steps(epoch)
        if [len(step) for step in steps] == [len(step) for step in self._first]:
            return steps
        # Another draw needed other sizes, but the number of steps was promised: the first grouping in another order.
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self._first))
        return [self._first[index] for index in order]

    def _steps(self, epoch: int) -> list[Integers]:
        """The rows of each step: repeated texts spread, the rest filled in."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.rows)
        room = self._room()
        place = np.full(self.rows, -1)
        repeated = order[self._often[order] > 0]
        # The most frequent first: they need a place in most steps.
        repeated = repeated[np.argsort(-self._often[repeated], kind="stable")]
        place[repeated], room = self._spread(repeated, room, random)
        rest = order[place[order] < 0]
        place[rest] = np.repeat(np.arange(len(room)), room)[: len(rest)]
        sizes = np.bincount(place, minlength=len(room))
        steps = np.split(order[np.argsort(place[order], kind="stable")], np.cumsum(sizes)[:-1])
        steps = [step for step in steps if len(step)]
        return steps[:-1] if self.drop_last and len(steps[-1]) < len(steps[0]) else steps

    def _room(self) -> Integers:
        """How many rows each step takes."""
        if not self.rows:
            return np.zeros(0, np.int64)
        steps = -(-self.rows // self.rows_per_step)
        most = int(self._often.max())
        if most > steps:
            logger.warning(
                "a text stands in %d of %d rows, so batches hold %d rows at most instead of %d: leave out its copies, "
                "or train with a loss that takes no other rows for negatives",
                most, self.rows, -(-self.rows // most), self.rows_per_step,
            )  # fmt: skip
            return np.diff(np.arange(most + 1) * self.rows // most)[::-1].copy()
        room = np.full(steps, self.rows_per_step)
        room[-1] = self.rows - self.rows_per_step * (steps - 1)
        return room

    def _spread(self, rows: Integers, room: Integers, random: np.random.Generator) -> tuple[list[int], Integers]:
        """A step for each row with repeated texts: the first after its text's last that has room and not the text."""
        steps = _Steps(room.tolist(), self.rows_per_step)
        turns = random.integers(max(len(room), 1), size=int(self._texts.max(initial=-1)) + 1).tolist()
        texts, ends = self._texts.tolist(), self._ends.tolist()
        places: list[int] = []
        for row in rows.tolist():
            own = texts[ends[row - 1] if row else 0 : ends[row]]
            place = steps.take(own, turns[own[0]])
            places.append(place)
            for text in own:
                turns[text] = place + 1
        return places, np.array(steps.left, np.int64)


class _Steps:
    """What room steps have left, and which texts they hold."""

    def __init__(self, left: list[int], size: int) -> None:
        self.left, self.size = left, size
        self._taken: set[tuple[int, int]] = set()
        self._next = list(range(len(left)))  # the step itself, or one after it before which none has room

    def take(self, texts: Sequence[int], start: int) -> int:
        """The first step from `start` on, round and round, that takes a row of these texts; else a new one."""
        place = self._with_room(self._after(start - 1))
        for _ in self.left:
            if self.left[place] and not any((text, place) in self._taken for text in texts):
                break
            place = self._with_room(self._after(place))
        else:
            place = len(self.left)
            self.left.append(self.size)
            self._next.append(place)
        self.left[place] -= 1
        if not self.left[place]:
            self._next[place] = self._after(place)
        self._taken.update((text, place) for text in texts)
        return place

    def _after(self, place: int) -> int:
        return (place + 1) % max(len(self.left), 1)

    def _with_room(self, place: int) -> int:
        """Skip full steps, and shorten the way for the next time; all full ends where it began."""
        way: list[int] = []
        while self._next[place] != place and len(way) <= len(self.left):
            way.append(place)
            place = self._next[place]
        for each in way:
            self._next[each] = place
        return place


def _columns(dataset: Any, names: Sequence[str] | None) -> list[pa.Array]:
    """The columns of texts as arrow arrays."""
    table = _table(dataset)
    if names is None:
        names = [name for name in table.column_names if name not in LABEL_COLUMNS and _holds_texts(table[name].type)]
    for name in names:
        if name not in table.column_names or not _holds_texts(table[name].type):
            found = ", ".join(table.column_names)
            raise DataError(f"column {name!r} of the training data", expected="texts", got=f"columns {found}")
    if not names and len(table):
        raise DataError("the training data", expected="a column of texts", got=", ".join(table.column_names) or "none")
    return [table[name].combine_chunks() for name in names]


def _table(dataset: Any) -> pa.Table:
    if isinstance(dataset, Sequence):
        return pa.Table.from_pylist([dict(row) for row in dataset])
    return dataset.with_format("arrow")[:]


def _holds_texts(type_: pa.DataType) -> bool:
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _repeated_texts(columns: Sequence[pa.Array], rows: int) -> tuple[Integers, Integers]:
    """Numbers of the texts that stand in several rows, row after row, and where each row's end."""
    owners, texts = [np.zeros(0, np.int64)], [pa.array([], pa.large_string())]
    for column in columns:
        lists = not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type))
        owner = column.value_lengths().fill_null(0).to_numpy() if lists else np.ones(rows, np.int64)
        owners.append(np.repeat(np.arange(rows), owner))
        texts.append((column.flatten() if lists else column).cast(pa.large_string()))
    owner = np.concatenate(owners)
    number = pa.concat_arrays(texts).dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    size = int(number.max(initial=0)) + 1
    owner, number = np.divmod(np.unique(owner * size + number), size)  # a text counts once per row
    often = np.bincount(number, minlength=size)[number] > 1
    _, compact = np.unique(number[often], return_inverse=True)
    return compact.astype(np.int64), np.cumsum(np.bincount(owner[often], minlength=rows))


def _highest(texts: Integers, ends: Integers) -> Integers:
    """Per row, how many rows its most frequent text is in; 0 where none is repeated."""
    counts = np.bincount(texts)[texts]
    owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    highest = np.zeros(len(ends), np.int64)
    np.maximum.at(highest, owners, counts)
    return highest
