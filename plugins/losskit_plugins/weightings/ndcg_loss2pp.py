"""NDCG-Loss2++: NDCG-Loss2 and LambdaRank together."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from losskit import Card
from losskit.errors import check_number

from .lambda_rank import discount_differences
from .ndcg_loss2 import gain_differences, steps_between

__all__ = ["NDCGLoss2PP"]


class NDCGLoss2PP:
    """Adds `mu` times the weights of `ndcg-loss2` to those of `lambda-rank`.

    Args:
        mu: how much the former count.

    Raises:
        LossError: a negative `mu`.
    """

    card = Card(
        memory="n^2",
        formula="w_ij = (mu |1/D_d - 1/D_{d+1}| + |1/D_i - 1/D_j|) |G_i - G_j|, d = |i - j|",
        citation="""@inproceedings{wang2018lambdaloss,
  title = {The {LambdaLoss} Framework for Ranking Metric Optimization},
  author = {Wang, Xuanhui and Li, Cheng and Golbandi, Nadav and Bendersky, Michael and Najork, Marc},
  booktitle = {Proceedings of the 27th ACM International Conference on Information and Knowledge Management},
  year = {2018}
}""",
    )

    def __init__(self, mu: float = 10.0) -> None:
        check_number(f"{type(self).__name__}.mu", mu, "0 or more")
        self.mu = mu

    def __call__(
        self, gain: Float[Tensor, "b n"], discount: Float[Tensor, "1 n"], true_sorted: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n n"]:
        """The weight of each pair."""
        of_ranks = discount_differences(discount).add_(steps_between(discount), alpha=self.mu)
        return gain_differences(gain).mul_(of_ranks)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"mu": self.mu}
