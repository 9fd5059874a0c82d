"""No weighting: every pair counts as much."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from losskit import Card

__all__ = ["NoWeighting"]


class NoWeighting:
    """Weighs all pairs alike: the lambda loss is then RankNet's."""

    card = Card(
        memory="1",
        formula="w_ij = 1",
        citation="""@inproceedings{burges2005learning,
  title = {Learning to Rank using Gradient Descent},
  author = {Burges, Chris and Shaked, Tal and Renshaw, Erin and Lazier, Ari and Deeds, Matt and
            Hamilton, Nicole and Hullender, Greg},
  booktitle = {Proceedings of the 22nd International Conference on Machine Learning},
  year = {2005}
}""",
    )

    def __call__(
        self, gain: Float[Tensor, "b n"], discount: Float[Tensor, "1 n"], true_sorted: Float[Tensor, "b n"]
    ) -> Float[Tensor, ""]:
        """One weight for all pairs."""
        return gain.new_ones(())
