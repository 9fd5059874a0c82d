"""The length of embeddings in the L1 norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losskit import Card, Output
from losskit.math import promoted

from ._sparse import Scalar, of_each

__all__ = ["L1Regularizer", "l1"]


def l1(embeddings: Float[Tensor, "n terms"]) -> Scalar:
    """mean over texts i of sum_j |e_ij|; 0, connected, of no texts.

    >>> l1(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    tensor(3.)
    """
    lengths = torch.linalg.vector_norm(promoted(embeddings), 1, dim=1)
    return lengths.sum() / max(1, lengths.shape[0])


class L1Regularizer(nn.Module):
    """Asks for small weights of all terms alike, which is what makes queries short."""

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        memory="B V",
        formula="mean_i sum_j |e_ij|",
        citation="""@inproceedings{lassance2022efficiency,
  title = {An Efficiency Study for {SPLADE} Models},
  author = {Lassance, Carlos and Clinchant, St{\\'e}phane},
  booktitle = {Proceedings of the 45th International ACM SIGIR Conference on Research and Development in Information
    Retrieval},
  year = {2022}
}""",
        relations=["flops: costs a term the more, the more texts use it."],
    )

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The mean length of the documents, and that of queries if there are any."""
        return of_each(l1, queries, documents)
