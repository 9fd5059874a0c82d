"""FLOPS: how many multiplications an inverted index needs for two random texts."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losskit import Card, Output
from losskit.errors import check_number

from ._sparse import Scalar, Terms, column_means, of_each

__all__ = ["FlopsRegularizer", "flops"]


def flops(
    embeddings: Float[Tensor, "n terms"], *, threshold: float | None = None, weights: Terms | None = None
) -> Scalar:
    """sum over terms j of (w_j mean_i e_ij)^2.

    Args:
        embeddings: of n texts; e_ij is not negative.
        threshold: texts with at most so many active terms count as 0 in the mean, and get no gradient.
        weights: w_j; None: 1.

    >>> flops(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor(5.)
    >>> flops(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), threshold=1)
    tensor(1.2500)
    """
    means = column_means(embeddings, threshold)
    if weights is not None:
        means = means * weights
    return torch.dot(means, means)


class FlopsRegularizer(nn.Module):
    """Asks that terms be rare, of queries and documents: a term that all texts use costs most.

    Args:
        threshold: texts with at most so many active terms are left as they are.

    Raises:
        LossError: a threshold below 0.
    """

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        memory="V",
        formula="sum_j (mean_i e_ij)^2",
        citation="""@misc{paria2020minimizing,
  title = {Minimizing {FLOPs} to Learn Efficient Sparse Representations},
  author = {Paria, Biswajit and Yeh, Chih-Kuan and Yen, Ian E. H. and Xu, Ning and Ravikumar, Pradeep and
    P{\\'o}czos, Barnab{\\'a}s},
  year = {2020},
  eprint = {2004.05665},
  archivePrefix = {arXiv}
}""",
        relations=["df-flops and idf-flops weigh terms by how common they are; l0-masked has a threshold."],
    )

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        if threshold is not None:
            check_number(f"{type(self).__name__}.threshold", threshold, "0 or more")
        self.threshold = threshold

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """FLOPS of the documents, and of queries if there are any."""
        return of_each(lambda embeddings: flops(embeddings, threshold=self.threshold), queries, documents)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"threshold": self.threshold}
