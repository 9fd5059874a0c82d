"""NDCG-Loss2: what a pair's gains and its distance in rank can cost."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from losskit import Card

__all__ = ["NDCGLoss2", "gain_differences", "steps_between"]


def gain_differences(gain: Float[Tensor, "b n"]) -> Float[Tensor, "b n n"]:
    """|G_i - G_j| of all pairs.

    >>> gain_differences(torch.tensor([[3.0, 1.0]]))
    tensor([[[0., 2.],
             [2., 0.]]])
    """
    return (gain[:, :, None] - gain[:, None, :]).abs_()


def steps_between(discount: Float[Tensor, "1 n"]) -> Float[Tensor, "n n"]:
    """|1/D_d - 1/D_{d+1}| at distance d = |i - j| in rank; 0 where i = j.

    >>> steps_between(torch.tensor([[1.0, 2.0, 4.0]]))
    tensor([[0.0000, 0.5000, 0.2500],
            [0.5000, 0.0000, 0.5000],
            [0.2500, 0.5000, 0.0000]])
    """
    inverse = discount[0].reciprocal()
    steps = (inverse[:-1] - inverse[1:]).abs()
    # Row i of the matrix is a window of the steps, mirrored around 0, that begins i places before the middle.
    mirrored = torch.cat([steps.flip(0), steps.new_zeros(1), steps])
    return mirrored.unfold(0, discount.shape[1], 1).flip(0)


class NDCGLoss2:
    """Weighs a pair by its gains and the step of the discount at its distance in rank, a tight bound of nDCG."""

    card = Card(
        memory="n^2",
        formula="w_ij = |1/D_d - 1/D_{d+1}| |G_i - G_j|, d = |i - j|",
        citation="""@inproceedings{wang2018lambdaloss,
  title = {The {LambdaLoss} Framework for Ranking Metric Optimization},
  author = {Wang, Xuanhui and Li, Cheng and Golbandi, Nadav and Bendersky, Michael and Najork, Marc},
  booktitle = {Proceedings of the 27th ACM International Conference on Information and Knowledge Management},
  year = {2018}
}""",
    )

    def __call__(
        self, gain: Float[Tensor, "b n"], discount: Float[Tensor, "1 n"], true_sorted: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n n"]:
        """The weight of each pair."""
        return gain_differences(gain).mul_(steps_between(discount))
