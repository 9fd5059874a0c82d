"""A penalty on embeddings in which nothing is left."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from losskit import Card, Output
from losskit.errors import check_number

from ._sparse import Scalar, column_means, of_each

__all__ = ["AntiZeroRegularizer", "anti_zero"]


def anti_zero(embeddings: Float[Tensor, "n terms"], *, smallest: float = 1e-3) -> Scalar:
    """1 / (s + smallest)^2, where s is the mean over texts of the sum of their terms, which are not negative.

    >>> import torch
    >>> anti_zero(torch.tensor([[1.0, 2.0], [1.0, 0.0]]), smallest=0.5)
    tensor(0.1600)
    """
    return (column_means(embeddings).sum() + smallest).pow(-2)


class AntiZeroRegularizer(nn.Module):
    """Keeps embeddings from losing all their terms, as strong regularization makes them.

    The means of n texts take the place of sums over the batch, so that its size does not matter.

    Args:
        smallest: is added to the mean sum, so that all zeros cost a number.

    Raises:
        LossError: a `smallest` that is not positive.
    """

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        memory="V",
        formula="1 / (mean_i sum_j q_ij)^2 + 1 / (mean_i sum_j d_ij)^2",
        requirements=[
            "Another penalty beside it, for alone it makes texts longer: give it as the joint one of splade."
        ],
    )

    def __init__(self, smallest: float = 1e-3) -> None:
        super().__init__()
        check_number(f"{type(self).__name__}.smallest", smallest, "a positive number")
        self.smallest = smallest

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The penalty on the documents, and on queries if there are any."""
        return of_each(lambda embeddings: anti_zero(embeddings, smallest=self.smallest), queries, documents)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"smallest": self.smallest}
