"""Late interaction as functions of tensors: what `similarity_fct` takes.

The names are those of the incumbent's; each calls the registered similarity. `chunk_elements` is taken and unused: no
scores of all pairs of tokens are held.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from losskit import Output, Similarity
from losskit_plugins.similarities.maxsim import MaxSimSimilarity
from losskit_plugins.similarities.mean_maxsim import MeanMaxSimSimilarity
from losskit_plugins.similarities.xtr import XTRSimilarity

__all__ = [
    "XTRKDScores",
    "XTRScores",
    "colbert_kd_scores",
    "colbert_scores",
    "colbert_scores_pairwise",
    "mean_colbert_kd_scores",
    "mean_colbert_scores",
    "mean_colbert_scores_pairwise",
    "xtr_kd_scores",
    "xtr_scores",
    "xtr_scores_pairwise",
]

Mask = Tensor | None


def colbert_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """MaxSim of queries [q, t, d] with all documents [b, n, t, d]: [q, b n], the n of a row beside each other.

    Args:
        queries_embeddings: one vector per token.
        documents_embeddings: as well.
        queries_mask: which tokens count; None: those that are not zero.
        documents_mask: as well.
        chunk_elements: unused.
        length_normalize: divide by the number of tokens of the query.

    >>> queries = torch.eye(2)[None]
    >>> colbert_scores(queries, torch.tensor([[[[1.0, 0.0], [0.0, 3.0]], [[2.0, 2.0], [0.0, 0.0]]]]))
    tensor([[4., 4.]])
    """
    queries = _record(queries_embeddings, queries_mask)
    return _maxsim(length_normalize)(queries, _flat(documents_embeddings, documents_mask))


def colbert_scores_pairwise(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """MaxSim of query i [q, t, d] with document i [q, t, d]: [q]."""
    queries, documents = _record(queries_embeddings, queries_mask), _record(documents_embeddings, documents_mask)
    return _maxsim(length_normalize).pairwise(queries, documents)


def colbert_kd_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """MaxSim of query i [q, t, d] with its own documents [q, n, t, d]: [q, n]."""
    queries, similarity = _record(queries_embeddings, queries_mask), _maxsim(length_normalize)
    documents = _columns(documents_embeddings, documents_mask)
    return torch.stack([similarity.pairwise(queries, each) for each in documents], 1)


def mean_colbert_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_scores` over the number of tokens of the query."""
    records = queries_embeddings, documents_embeddings, queries_mask, documents_mask
    return colbert_scores(*records, length_normalize=length_normalize)


def mean_colbert_scores_pairwise(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_scores_pairwise` over the number of tokens of the query."""
    records = queries_embeddings, documents_embeddings, queries_mask, documents_mask
    return colbert_scores_pairwise(*records, length_normalize=length_normalize)


def mean_colbert_kd_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_kd_scores` over the number of tokens of the query."""
    records = queries_embeddings, documents_embeddings, queries_mask, documents_mask
    return colbert_kd_scores(*records, length_normalize=length_normalize)


def xtr_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    top_k: int = 256,
    chunk_elements: int | None = None,
) -> Tensor:
    """XTR of queries [q, t, d] with all documents [b, n, t, d]: [q, b n], tokens retrieved among all of them."""
    queries = _record(queries_embeddings, queries_mask)
    return XTRSimilarity(top_k)(queries, _flat(documents_embeddings, documents_mask))


def xtr_kd_scores(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    top_k: int = 256,
    chunk_elements: int | None = None,
) -> Tensor:
    """XTR of query i [q, t, d] with its own documents [q, n, t, d]: [q, n], tokens retrieved among all of them."""
    queries = _record(queries_embeddings, queries_mask)
    return XTRSimilarity(top_k).pairwise_each(queries, _columns(documents_embeddings, documents_mask))


def xtr_scores_pairwise(
    queries_embeddings: Tensor,
    documents_embeddings: Tensor,
    queries_mask: Mask = None,
    documents_mask: Mask = None,
    top_k: int = 256,
    chunk_elements: int | None = None,
) -> Tensor:
    """XTR of query i [q, t, d] with document i [q, t, d]: [q], tokens retrieved among all documents."""
    queries, documents = _record(queries_embeddings, queries_mask), _record(documents_embeddings, documents_mask)
    return XTRSimilarity(top_k).pairwise(queries, documents)


class XTRScores:
    """`xtr_scores` with options."""

    scores: Any = staticmethod(xtr_scores)

    def __init__(self, top_k: int = 256, *, chunk_elements: int | None = None) -> None:
        self.top_k = top_k
        self.chunk_elements = chunk_elements

    def get_config_dict(self) -> dict[str, int | None]:
        """The options."""
        return {"top_k": self.top_k, "chunk_elements": self.chunk_elements}

    def __call__(
        self,
        queries_embeddings: Tensor,
        documents_embeddings: Tensor,
        queries_mask: Mask = None,
        documents_mask: Mask = None,
    ) -> Tensor:
        """The scores."""
        records = queries_embeddings, documents_embeddings, queries_mask, documents_mask
        made: Tensor = self.scores(*records, top_k=self.top_k)
        return made


class XTRKDScores(XTRScores):
    """`xtr_kd_scores` with options."""

    scores = staticmethod(xtr_kd_scores)


def _maxsim(length_normalize: bool) -> Similarity:
    return MeanMaxSimSimilarity() if length_normalize else MaxSimSimilarity()


def _record(embeddings: Tensor, mask: Mask) -> Output:
    return Output(embeddings, mask=embeddings.ne(0).any(-1) if mask is None else mask.bool())


def _flat(embeddings: Tensor, mask: Mask) -> Output:
    """Documents [b, n, t, d] as b n of them."""
    return _record(embeddings.flatten(0, 1), None if mask is None else mask.flatten(0, 1))


def _columns(embeddings: Tensor, mask: Mask) -> list[Output]:
    """Documents [q, n, t, d] as n times q of them."""
    masks = [None] * embeddings.shape[1] if mask is None else mask.unbind(1)
    return [_record(each, mine) for each, mine in zip(embeddings.unbind(1), masks, strict=True)]
