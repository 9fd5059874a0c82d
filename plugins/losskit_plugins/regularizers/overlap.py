"""How many multiplications an inverted index needs for a query and a document: FLOPS of both jointly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losskit import Card, Output
from losskit.errors import LossError

from ._sparse import Scalar, column_means

__all__ = ["OverlapRegularizer", "overlap"]


def overlap(queries: Float[Tensor, "n terms"], documents: Float[Tensor, "m terms"]) -> Scalar:
    """sum over terms j of mean_i q_ij times mean_i d_ij: the mean inner product of a query and any document.

    >>> overlap(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.5, 4.0]]))
    tensor(5.)
    """
    return torch.dot(column_means(queries), column_means(documents))


class OverlapRegularizer(nn.Module):
    """Asks that few terms be in both queries and documents at random, which is what a search costs."""

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        memory="V",
        formula="sum_j mean_i q_ij mean_i d_ij",
        citation="""@misc{paria2020minimizing,
  title = {Minimizing {FLOPs} to Learn Efficient Sparse Representations},
  author = {Paria, Biswajit and Yeh, Chih-Kuan and Yen, Ian E. H. and Xu, Ning and Ravikumar, Pradeep and
    P{\\'o}czos, Barnab{\\'a}s},
  year = {2020},
  eprint = {2004.05665},
  archivePrefix = {arXiv}
}""",
        relations=["splade: takes it as joint_regularizer; with the same texts as queries and documents it is flops."],
    )

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The overlap of queries with documents.

        Raises:
            LossError: there are no queries.
        """
        if queries is None:
            raise LossError(
                "OverlapRegularizer", expected="queries beside documents", got="documents alone",
                fix="give it to splade as joint_regularizer",
            )  # fmt: skip
        assert queries.embedding is not None
        assert documents.embedding is not None
        return overlap(queries.embedding, documents.embedding)
