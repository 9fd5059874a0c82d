"""Encoded texts of each family: cut into records, and compared in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from losskit import Output, Similarity

__all__ = ["Embedded", "Floats", "SparseVectors", "TokenVectors", "Vectors", "all_scores", "pair_scores"]

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

CELLS = 1 << 22
"""Numbers of a record, or scores, held at a time: 16 MB."""


@dataclass(frozen=True)
class Vectors:
    """Dense vectors [n, d]."""

    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sizes(self) -> Places:
        """How many numbers of a record each takes, [n]."""
        return np.full(len(self), self.values.shape[1])

    def record(self, places: Places) -> Output:
        """Some of them."""
        return Output(torch.from_numpy(self.values[places]))

    def matrix(self, similarity: Any) -> Floats:
        """All of them, transformed: what the similarity is the inner product of."""
        made: Floats = similarity.transform(Output(torch.from_numpy(self.values))).numpy()
        return made


@dataclass(frozen=True)
class SparseVectors:
    """Sparse vectors [n, d], of which blocks of rows alone are ever dense."""

    values: csr_array

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def sizes(self) -> Places:
        """How many numbers of a record each takes, [n]."""
        return np.full(len(self), self.values.shape[1])

    def record(self, places: Places) -> Output:
        """Some of them, dense."""
        return Output(torch.from_numpy(self.values[places].toarray()))

    def matrix(self, similarity: Any) -> csr_array:
        """All of them, transformed block by block: what the similarity is the inner product of."""
        made = [_as_sparse(similarity.transform(self.record(places)).numpy()) for places in _blocks(self.sizes)]
        return vstack(made, format="csr") if made else self.values


@dataclass(frozen=True)
class TokenVectors:
    """The vectors of the tokens of each text, n of [tokens, d]."""

    values: Sequence[Floats]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sizes(self) -> Places:
        """How many numbers of a record each takes, [n], if none in it is longer."""
        return np.array([each.size for each in self.values], np.int64)

    def record(self, places: Places) -> Output:
        """Some of them, padded to the longest, with their mask."""
        texts = [torch.from_numpy(self.values[place]) for place in places]
        counts = torch.tensor([len(text) for text in texts])
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        return Output(padded, mask=torch.arange(padded.shape[1]) < counts[:, None])


Embedded = Vectors | SparseVectors | TokenVectors
"""What `encode` gave for n texts."""


def pair_scores(similarity: Similarity, a: Embedded, b: Embedded, places: tuple[Places, Places]) -> Floats:
    """The similarity of text `places[0][i]` of one with text `places[1][i]` of the other, [n]."""
    left, right = places
    found = np.empty(len(left), np.float32)
    for block in _blocks(np.maximum(a.sizes[left], b.sizes[right])):
        found[block] = similarity.pairwise(a.record(left[block]), b.record(right[block])).numpy()
    return found


def all_scores(similarity: Similarity, queries: Embedded, documents: Embedded) -> Iterator[tuple[slice, Floats]]:
    """The similarities of all queries with all documents: which queries, and their [q, documents], a chunk at a time.

    Of a similarity that is an inner product they are a product of matrices, sparse ones included; any other is asked
    for blocks of records.
    """
    if (
        isinstance(queries, TokenVectors)
        or isinstance(documents, TokenVectors)
        or getattr(similarity, "transform", None) is None
    ):
        return _of_records(similarity, queries, documents)
    return _of_products(queries.matrix(similarity), documents.matrix(similarity))


def _of_products(queries: Any, documents: Any) -> Iterator[tuple[slice, Floats]]:
    if isinstance(documents, csr_array):
        index = documents.T.tocsr()  # inverted: the documents of each entry
        for rows in _slices(queries.shape[0], CELLS // max(documents.shape[0], 1)):
            yield rows, (queries[rows] @ index).toarray()
    else:
        for rows in _slices(len(queries), CELLS // max(len(documents), 1)):
            yield rows, (torch.from_numpy(queries[rows]) @ torch.from_numpy(documents).T).numpy()


def _of_records(similarity: Similarity, queries: Embedded, documents: Embedded) -> Iterator[tuple[slice, Floats]]:
    blocks = _blocks(documents.sizes)
    for rows in _slices(len(queries), CELLS // max(len(documents), queries.sizes.max(initial=1))):
        query = queries.record(np.arange(rows.start, rows.stop))
        found = np.empty((rows.stop - rows.start, len(documents)), np.float32)
        for places in blocks:
            found[:, places] = similarity(query, documents.record(places)).numpy()
        yield rows, found


def _as_sparse(values: Floats) -> csr_array:
    # Ten times as fast as csr_array(values), which asks each number for its place.
    places = np.divmod(np.flatnonzero(values != 0), values.shape[1])
    return csr_array((values[places], places), shape=values.shape)


def _blocks(sizes: Places) -> list[Places]:
    """The places of all items, smallest items first, so many together that they fit when padded to the largest."""
    order = np.argsort(sizes, kind="stable")
    starts = [0]
    for place, size in enumerate(sizes[order].tolist()):
        if place > starts[-1] and (place + 1 - starts[-1]) * size > CELLS:
            starts.append(place)
    return [block for block in np.split(order, starts[1:]) if len(block)]


def _slices(size: int, step: int) -> list[slice]:
    """Consecutive items, `step` at a time, at least one."""
    step = max(1, step)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
