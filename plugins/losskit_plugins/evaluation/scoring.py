"""What all metrics are made from: scores of pairs, and of everything against everything in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from losskit import Encoder, Output, get
from losskit.errors import DataError, ModelError
from losskit_plugins.encoders.inference import check_texts

__all__ = ["Embedded", "Scorer"]

Floats = NDArray[np.float32]

CELLS = 1 << 22
"""Scores held at a time: 16 MB."""


@dataclass(frozen=True)
class Embedded:
    """What `encode` gave for n texts: [n, d], a sparse [n, d], or n arrays of tokens."""

    values: Any

    def __len__(self) -> int:
        return len(self.values) if isinstance(self.values, list) else int(self.values.shape[0])

    def output(self, rows: slice) -> Output:
        """Some of them as a record."""
        part = self.values[rows]
        if isinstance(part, list):
            return _tokens([np.asarray(each) for each in part])
        dense = part if isinstance(part, np.ndarray) else part.toarray()
        return Output(torch.from_numpy(np.ascontiguousarray(dense, np.float32)))


@dataclass(frozen=True)
class Scorer:
    """An encoder's scores: the similarity of its embeddings, or what a cross-encoder gives a pair.

    Args:
        encoder: of any family.
        batch_size: texts or pairs per forward.
        progress: show bars.
    """

    encoder: Encoder
    batch_size: int = 32
    progress: bool = False

    @property
    def embeds(self) -> bool:
        """Whether texts have embeddings of their own."""
        return self.encoder.family != "cross-encoder"

    def embed(self, texts: Sequence[str], role: str) -> Embedded:
        """Each text encoded; `role` is "text", "query" or "document"."""
        return Embedded(self.encoder.encode(list(texts), role=role, batch_size=self.batch_size, progress=self.progress))

    def pairs(self, a: Sequence[str], b: Sequence[str], roles: tuple[str, str]) -> Floats:
        """Scores of text i of `a` with text i of `b`, [n]; each text is encoded once.

        Raises:
            DataError: a cross-encoder that gives several numbers per pair.
            ModelError: a score that is not finite.
        """
        if not self.embeds:
            pairs = list(zip(a, b, strict=True))
            scores = np.asarray(self.encoder.encode(pairs, batch_size=self.batch_size, progress=self.progress))
            if scores.ndim != 1:
                raise DataError(
                    "evaluation", expected="a cross-encoder with one score per pair", got=f"{scores.shape[1]} classes"
                )
            return _finite(scores.astype(np.float32))
        first, place_a = _unique(check_texts(a))
        second, place_b = _unique(check_texts(b))
        left, right = self.embed(first, roles[0]), self.embed(second, roles[1])
        found = [
            self._similarity.pairwise(_taken(left, place_a[rows]), _taken(right, place_b[rows])).numpy()
            for rows in _chunks(len(a), 1024)
        ]
        return _finite(np.concatenate(found))

    def against(self, queries: Embedded, documents: Embedded) -> Iterator[tuple[slice, Floats]]:
        """Scores of queries with all documents: which queries, and their [n, documents], a chunk at a time."""
        for rows in _chunks(len(queries), max(1, CELLS // max(len(documents), 1))):
            query = queries.output(rows)
            columns = _chunks(len(documents), max(1, CELLS // (rows.stop - rows.start)))
            parts = [self._similarity(query, documents.output(each)).numpy() for each in columns]
            yield rows, _finite(np.concatenate(parts, axis=1))

    @property
    def _similarity(self) -> Any:
        return get("similarity", self.encoder.similarity).load()()


def _finite(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        raise ModelError("scores of the evaluated encoder", expected="finite numbers", got="NaN or infinity")
    return scores


def _chunks(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _unique(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Each text once, and where in there each of them is."""
    places: dict[str, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    return list(places), np.array([places[text] for text in texts], np.int64)


def _taken(found: Embedded, places: NDArray[np.int64]) -> Output:
    values = found.values
    picked = [values[place] for place in places] if isinstance(values, list) else values[places]
    return Embedded(picked).output(slice(None))


def _tokens(arrays: Sequence[Floats]) -> Output:
    """Token embeddings padded to the longest, with their mask."""
    longest = max(len(each) for each in arrays)
    padded = torch.zeros(len(arrays), longest, arrays[0].shape[1])
    mask = torch.zeros(len(arrays), longest, dtype=torch.bool)
    for row, each in enumerate(arrays):
        padded[row, : len(each)] = torch.from_numpy(each.astype(np.float32))
        mask[row, : len(each)] = True
    return Output(padded, mask=mask)
