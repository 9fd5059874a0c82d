"""Batches of P classes with K samples each, for losses that compare the texts of a batch by their classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from losskit.errors import DataError

__all__ = ["ClassBatchSampler"]

Integers = NDArray[np.int64]


class ClassBatchSampler(Sampler[list[int]]):
    """Batches of row numbers with `samples_per_class` rows of each of their classes.

    Every row occurs once per epoch. The rows of a class are dealt out at random in groups of K, or of K - 1 where K
    does not divide their number; a class with fewer rows is one group. A batch takes as many groups as fit, of
    different classes. A class that holds more than its share of all rows stands in a batch with several groups, so that
    batches keep their size; a batch holds one class alone only where the groups of the others do not go round.

    Several processes build the same batches from the same seed and epoch, as many for each: accelerate hands batch i
    to process i % processes. `batch_size` is None as seen from there, which says that batches may differ in size.

    Args:
        classes: of each row.
        batch_size: rows per batch at most.
        samples_per_class: K, 2 or more; P is as many times K as fit into a batch.
        shards: processes that take a batch each per step.
        seed: of the order.

    Raises:
        DataError: data of one class, fewer than 2 samples per class, or a batch without room for two classes.

    >>> batches = list(ClassBatchSampler(["a", "b", "a", "b", "c", "c"], 4, 2))
    >>> sorted(map(len, batches)), sorted(row for batch in batches for row in batch)
    ([2, 4], [0, 1, 2, 3, 4, 5])
    """

    batch_size = None

    def __init__(
        self,
        classes: Sequence[Hashable],
        batch_size: int,
        samples_per_class: int = 4,
        *,
        shards: int = 1,
        seed: int = 0,
    ) -> None:
        _check(batch_size, samples_per_class)
        self._rows = _rows_by_class(classes)
        self._counts = np.array([-(-len(rows) // samples_per_class) for rows in self._rows])
        steps = -(-int(self._counts.sum()) // (batch_size // samples_per_class * shards))
        self.batches = min(steps * shards, int(self._counts.sum()))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches; the same in every epoch."""
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self._rows)).tolist()
        # The largest class first: so the others lie together, and do not all come into the same batches.
        order.sort(key=lambda place: -int(self._counts[place] == self._counts.max()))
        groups = [
            group
            for place in order
            for group in np.array_split(random.permutation(self._rows[place]), self._counts[place])
        ]
        # Dealt out like cards: the groups of a class lie together, and so come into different batches.
        for place in random.permutation(self.batches):
            yield np.concatenate(groups[place :: self.batches]).tolist()


def _rows_by_class(classes: Sequence[Hashable]) -> list[Integers]:
    """The row numbers of each class."""
    numbers: dict[Hashable, int] = {}
    place = np.array([numbers.setdefault(each, len(numbers)) for each in classes], np.int64)
    if len(numbers) < 2:
        got = f"{next(iter(numbers))!r} in all {len(place)} rows" if numbers else "no rows"
        raise DataError("the classes of the training data", expected="two or more", got=got)
    return np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place))[:-1])


def _check(batch_size: int, samples_per_class: int) -> None:
    if samples_per_class < 2:
        got = str(samples_per_class)
        raise DataError("samples_per_class", expected="2 or more, so that samples have positives", got=got)
    if batch_size < 2 * samples_per_class:
        raise DataError(
            "batch_size",
            expected=f"{2 * samples_per_class} or more on each device, for two classes of {samples_per_class} samples",
            got=str(batch_size),
            fix="raise batch_size, or lower samples_per_class",
        )
