"""FLOPS that spares rare terms: what counts is a term's weight before its inverse document frequency."""

from __future__ import annotations

from typing import Any

from torch import nn

from losskit import Card, Output
from losskit.errors import check_number

from ._sparse import Scalar, Shares, Terms, of_each
from .flops import flops

__all__ = ["IDFFlopsRegularizer", "inverse_frequencies"]


def inverse_frequencies(shares: Terms, documents: float = 1000.0) -> Terms:
    """1 + ln((1 + N) / (1 + N x)): 1 for a term that all documents use, 1 + ln(1 + N) for one that none does.

    Args:
        shares: x, in which share of documents each term is, in [0, 1].
        documents: N; the more, the rarer may a rare term be.

    >>> import torch
    >>> inverse_frequencies(torch.tensor([0.0, 1.0]), documents=99.0)
    tensor([5.6052, 1.0000])
    """
    return 1 + ((1 + documents) / (1 + documents * shares)).log()


class IDFFlopsRegularizer(nn.Module):
    """FLOPS of embeddings divided by the inverse document frequencies of their terms, so that rare terms stay.

    Frequencies are estimated from the batches of the training; before the first, from the documents at hand. Where
    queries carry the frequencies, as those of `inference-free-splade` do, `flops` of documents is IDF-aware as it is;
    for given frequencies there is the function `flops` with `weights`.

    Args:
        documents: how many documents smooth the frequencies of terms that were never seen.
        batches: how many batches the estimate goes back.

    Raises:
        LossError: an option that is not positive.
    """

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        fixed_dimension=True,
        memory="V",
        formula="sum_j (mean_i e_ij / idf_j)^2",
        citation="""@misc{geng2024competitive,
  title = {Towards Competitive Search Relevance For Inference-Free Learned Sparse Retrievers},
  author = {Geng, Zhichao and Wang, Yiwen and Ru, Dongyu and Yang, Yang},
  year = {2024},
  eprint = {2411.04403},
  archivePrefix = {arXiv}
}""",
        relations=["df-flops: leaves terms that few documents use quite alone."],
    )

    def __init__(self, documents: float = 1000.0, batches: int = 100) -> None:
        super().__init__()
        name = type(self).__name__
        check_number(f"{name}.documents", documents, "a positive number")
        self.documents = documents
        self.batches = batches
        self.shares = Shares(name, batches)

    def observe(self, queries: Output | None, documents: Output) -> None:
        """See the documents of a batch, once in each training forward."""
        self.shares.update(documents.embedding)

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The penalty on the documents, and on queries if there are any."""
        weights = 1 / inverse_frequencies(self.shares(documents.embedding), self.documents)
        return of_each(lambda embeddings: flops(embeddings, weights=weights), queries, documents)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"documents": self.documents, "batches": self.batches}
