"""What all metrics are made from: scores of pairs, and of everything against everything in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from losskit import Encoder, Similarity, get
from losskit.errors import DataError, ModelError
from losskit_plugins.encoders.inference import check_texts

from .activity import Activity
from .embedded import Embedded, Floats, SparseVectors, TokenVectors, Vectors, all_scores, pair_scores

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """An encoder's scores: the similarity of its embeddings, or what a cross-encoder gives a pair.

    Args:
        encoder: of any family.
        batch_size: texts or pairs per forward.
        progress: show bars.
        activity: of the texts that a sparse encoder has embedded for it, by role, each text of a role once.
    """

    encoder: Encoder
    batch_size: int = 32
    progress: bool = False
    activity: dict[str, Activity] = field(default_factory=dict)
    _counted: set[tuple[str, str]] = field(default_factory=set)

    @property
    def embeds(self) -> bool:
        """Whether texts have embeddings of their own."""
        return self.encoder.family != "cross-encoder"

    def embed(self, texts: Sequence[str], role: str) -> Embedded:
        """Each text encoded; `role` is "text", "query" or "document"."""
        values = self.encoder.encode(list(texts), role=role, batch_size=self.batch_size, progress=self.progress)
        if self.encoder.family == "multi-vector":
            return TokenVectors([np.ascontiguousarray(each, np.float32) for each in values])
        if self.encoder.family == "sparse":
            vectors = csr_array(values, dtype=np.float32)
            self._count(texts, role, vectors)
            return SparseVectors(vectors)
        return Vectors(np.ascontiguousarray(values, np.float32))

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
        return _finite(pair_scores(self._similarity, left, right, (place_a, place_b)))

    def against(self, queries: Embedded, documents: Embedded) -> Iterator[tuple[slice, Floats]]:
        """Scores of queries with all documents: which queries, and their [n, documents], a chunk at a time.

        Raises:
            ModelError: a score that is not finite.
        """
        for rows, scores in all_scores(self._similarity, queries, documents):
            yield rows, _finite(scores)

    @cached_property
    def _similarity(self) -> Similarity:
        spec = get("similarity", self.encoder.similarity)
        assert spec.card is not None
        if self.encoder.family not in spec.card.encoders:
            raise ModelError(
                f"similarity {spec.name!r} of the evaluated encoder",
                expected=f"one for encoders of the family {self.encoder.family}",
                got=f"one for {', '.join(spec.card.encoders)}",
            )
        similarity: Similarity = spec.load()()
        if getattr(similarity, "pooled", False):
            raise ModelError(
                f"similarity {spec.name!r} of the evaluated encoder",
                expected="one that compares a query with a document alone, whatever the other documents",
                fix="evaluate with maxsim, or another for token vectors",
            )
        return similarity

    def _count(self, texts: Sequence[str], role: str, vectors: csr_array) -> None:
        places = {text: place for place, text in enumerate(texts)}
        new = [place for text, place in places.items() if (role, text) not in self._counted]
        self._counted.update((role, texts[place]) for place in new)
        activity = Activity.of(vectors[new])
        self.activity[role] = self.activity[role] + activity if role in self.activity else activity


def _finite(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        raise ModelError("scores of the evaluated encoder", expected="finite numbers", got="NaN or infinity")
    return scores


def _unique(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Each text once, and where in there each of them is."""
    places: dict[str, int] = {}
    for text in texts:
        places.setdefault(text, len(places))
    return list(places), np.array([places[text] for text in texts], np.int64)
