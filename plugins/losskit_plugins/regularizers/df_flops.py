"""FLOPS for short posting lists: terms that many documents use cost most."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from losskit import Card, Output
from losskit.errors import LossError, check_number

from ._sparse import Scalar, Shares, Terms, of_each
from .flops import flops

__all__ = ["DFFlopsRegularizer", "df_weights"]


def df_weights(shares: Terms, *, alpha: float = 0.1, beta: float = 10.0) -> Terms:
    """1 / (1 + (x^(log_alpha 2) - 1)^beta): 0 for a term that nobody uses, 1/2 at alpha, 1 for one that all use.

    Args:
        shares: x, in which share of documents each term is, in [0, 1].
        alpha: the share at which a term counts half, in (0, 1).
        beta: how steep the weight rises there.

    >>> import torch
    >>> df_weights(torch.tensor([0.0, 0.1, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    # A share of 1 may come out a little above it.
    return 1 / (1 + (shares.clamp(max=1.0) ** math.log(2, alpha) - 1) ** beta)


class DFFlopsRegularizer(nn.Module):
    """FLOPS whose terms are weighed by how many documents use them, for short posting lists.

    That is estimated from the batches of the training; before the first, from the documents at hand.

    Args:
        alpha: the share of documents at which a term counts half, in (0, 1).
        beta: how steep its weight rises there.
        batches: how many batches the estimate goes back.

    Raises:
        LossError: an option outside its range.
    """

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        fixed_dimension=True,
        memory="V",
        formula="sum_j (w_j mean_i e_ij)^2 with w_j = 1 / (1 + (DF_j^(log_alpha 2) - 1)^beta)",
        citation="""@misc{porco2025alternative,
  title = {An Alternative to {FLOPS} Regularization to Effectively Productionize {SPLADE}-Doc},
  author = {Porco, Aldo and Mehra, Dhruv and Malioutov, Igor and others},
  year = {2025},
  eprint = {2505.15070},
  archivePrefix = {arXiv}
}""",
        requirements=["Batches that are a fair sample of the documents, or many of them in `batches`."],
    )

    def __init__(self, alpha: float = 0.1, beta: float = 10.0, batches: int = 100) -> None:
        super().__init__()
        name = type(self).__name__
        check_number(f"{name}.alpha", alpha, "a positive number")
        if alpha >= 1:
            raise LossError(f"{name}.alpha", expected="a share below 1", got=repr(alpha))
        check_number(f"{name}.beta", beta, "a positive number")
        self.alpha = alpha
        self.beta = beta
        self.batches = batches
        self.shares = Shares(name, batches)

    def observe(self, queries: Output | None, documents: Output) -> None:
        """See the documents of a batch, once in each training forward."""
        self.shares.update(documents.embedding)

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The penalty on the documents, and on queries if there are any."""
        weights = df_weights(self.shares(documents.embedding), alpha=self.alpha, beta=self.beta)
        return of_each(lambda embeddings: flops(embeddings, weights=weights), queries, documents)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"alpha": self.alpha, "beta": self.beta, "batches": self.batches}
