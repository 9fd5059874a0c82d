"""NDCG-Loss1: what the first document of a pair adds to nDCG where it stands."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from losskit import Card

__all__ = ["NDCGLoss1"]


class NDCGLoss1:
    """Weighs a pair by the discounted gain of its first document; all pairs count, whatever their labels.

    The loosest of the bounds of nDCG: `ndcg-loss2` and `ndcg-loss2pp` reach higher ones.
    """

    card = Card(
        memory="n",
        formula="w_ij = G_i / D_i, over all pairs (i, j), i = j among them",
        citation="""@inproceedings{wang2018lambdaloss,
  title = {The {LambdaLoss} Framework for Ranking Metric Optimization},
  author = {Wang, Xuanhui and Li, Cheng and Golbandi, Nadav and Bendersky, Michael and Najork, Marc},
  booktitle = {Proceedings of the 27th ACM International Conference on Information and Knowledge Management},
  year = {2018}
}""",
    )
    all_pairs = True

    def __call__(
        self, gain: Float[Tensor, "b n"], discount: Float[Tensor, "1 n"], true_sorted: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b n 1"]:
        """The weight of each first document."""
        return (gain / discount)[:, :, None]
