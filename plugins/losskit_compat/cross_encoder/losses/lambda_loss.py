"""LambdaLoss, and the weighting schemes of the incumbent."""

from __future__ import annotations

import sys
from typing import Any, Literal

from torch import Tensor, nn

from losskit import Weighting
from losskit.score_loss import check_constant
from losskit_plugins.losses import lambda_loss as native
from losskit_plugins.weightings import lambda_rank, ndcg_loss1, ndcg_loss2, ndcg_loss2pp, no_weighting

from ..base import IDENTITY, Activation, Listwise

__all__ = [
    "BaseWeightingScheme",
    "LambdaLoss",
    "LambdaRankScheme",
    "NDCGLoss1Scheme",
    "NDCGLoss2PPScheme",
    "NDCGLoss2Scheme",
    "NoWeightingScheme",
]

Logarithm = Literal["natural", "binary"]


class BaseWeightingScheme(nn.Module):
    """Base of weightings of pairs: write `forward`."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each pair, broadcastable to [b, n, n].

        Args:
            gain: of each document, in the order of the scores, [b, n].
            discount: of each rank, [1, n].
            true_sorted: the labels in that order, 0 at least, [b, n].
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


class NoWeightingScheme(BaseWeightingScheme):
    """`no-weighting`."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """One weight for all pairs."""
        return no_weighting.NoWeighting()(gain, discount, true_sorted)


class NDCGLoss1Scheme(BaseWeightingScheme):
    """`ndcg-loss1`."""

    all_pairs = ndcg_loss1.NDCGLoss1.all_pairs

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each first document."""
        return ndcg_loss1.NDCGLoss1()(gain, discount, true_sorted)


class NDCGLoss2Scheme(BaseWeightingScheme):
    """`ndcg-loss2`."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each pair."""
        return ndcg_loss2.NDCGLoss2()(gain, discount, true_sorted)


class LambdaRankScheme(BaseWeightingScheme):
    """`lambda-rank`."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each pair."""
        return lambda_rank.LambdaRank()(gain, discount, true_sorted)


class NDCGLoss2PPScheme(BaseWeightingScheme):
    """`ndcg-loss2pp`."""

    def __init__(self, mu: float = 10.0) -> None:
        super().__init__()
        self.mu = mu
        self.ndcg_loss2 = NDCGLoss2Scheme()
        self.lambda_rank = LambdaRankScheme()

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weight of each pair."""
        return ndcg_loss2pp.NDCGLoss2PP(self.mu)(gain, discount, true_sorted)


DEFAULT_SCHEME = NDCGLoss2PPScheme()


class LambdaLoss(Listwise, native.LambdaLoss):
    """`losskit.losses.LambdaLoss` under the incumbent's constructor."""

    configuration = ("weighting_scheme", "k", "sigma", "eps", "reduction_log", "activation_fn", "mini_batch_size")

    def __init__(
        self,
        model: Any,
        weighting_scheme: BaseWeightingScheme | None = DEFAULT_SCHEME,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Logarithm = "binary",
        activation_fn: Activation = IDENTITY,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, NoWeightingScheme(), k, sigma, eps, reduction_log)
        self.weighting_scheme = weighting_scheme
        self.activation_fn = activation_fn
        self.mini_batch_size = mini_batch_size

    @property
    def weighting_scheme(self) -> BaseWeightingScheme:
        """What pairs are weighed by."""
        return self.weighting

    @weighting_scheme.setter
    def weighting_scheme(self, scheme: BaseWeightingScheme | None) -> None:
        check_constant(f"{type(self).__name__}.weighting_scheme", scheme)
        self.exchange("weighting", NoWeightingScheme() if scheme is None else scheme)

    @property
    def scheme(self) -> Weighting:
        """The scheme as a weighting; the incumbent's own NDCGLoss1Scheme counts all pairs as ours does."""
        loaded = sys.modules.get("sentence_transformers.cross_encoder.losses.lambda_loss")
        known: Any = getattr(loaded, "NDCGLoss1Scheme", ())
        return AllPairs(self.weighting) if isinstance(self.weighting, known) else self.weighting


class AllPairs:
    """A weighting by a scheme that counts all pairs, whatever their labels."""

    all_pairs = True

    def __init__(self, scheme: Weighting) -> None:
        self.scheme = scheme

    def __call__(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """The weights of the scheme."""
        return self.scheme(gain, discount, true_sorted)
