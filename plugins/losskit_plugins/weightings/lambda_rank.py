"""LambdaRank: what exchanging the two documents of a pair changes in nDCG."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from losskit import Card

from .ndcg_loss2 import gain_differences

__all__ = ["LambdaRank", "discount_differences"]


def discount_differences(discount: Float[Tensor, "1 n"]) -> Float[Tensor, "n n"]:
    """|1/D_i - 1/D_j| of all pairs of ranks.

    >>> import torch
    >>> discount_differences(torch.tensor([[1.0, 2.0]]))
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]])
    """
    inverse = discount.reciprocal()
    return (inverse.T - inverse).abs_()


class LambdaRank:
    """Weighs a pair by how much nDCG changes when its documents change places: a coarse bound of nDCG."""

    card = Card(
        memory="n^2",
        formula="w_ij = |1/D_i - 1/D_j| |G_i - G_j|",
        citation="""@inproceedings{burges2006learning,
  title = {Learning to Rank with Nonsmooth Cost Functions},
  author = {Burges, Christopher J. C. and Ragno, Robert and Le, Quoc Viet},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2006}
}""",
    )

    def __call__(
        self, gain: Float[Tensor, "b n"], discount: Float[Tensor, "1 n"], true_sorted: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n n"]:
        """The weight of each pair."""
        return gain_differences(gain).mul_(discount_differences(discount))
