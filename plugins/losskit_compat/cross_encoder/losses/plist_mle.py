"""Position-aware ListMLE, and the weights of its ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from losskit.errors import LossError
from losskit.score_loss import check_constant
from losskit_plugins.losses import p_list_mle as native

from ..base import IDENTITY, Activation, Listwise

__all__ = ["PListMLELambdaWeight", "PListMLELoss"]

logger = logging.getLogger("losskit")

LARGEST = 127
"""Weights of longer lists are scaled down, so that they stay finite in float32."""


class PListMLELambdaWeight(nn.Module):
    """The weight of each rank.

    Args:
        rank_discount_fn: from where there are documents, [q, n], to weights of that shape; None: 2^(n - i) - 1 for
            rank i among n documents.
    """

    def __init__(self, rank_discount_fn: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.rank_discount_fn = rank_discount_fn

    def forward(self, mask: Tensor) -> Tensor:
        """The weights, [q, n]; 0 where there is no document.

        Args:
            mask: True where there is one, [q, n], the highest rank first.
        """
        if self.rank_discount_fn is not None:
            return self.rank_discount_fn(mask)
        counts = mask.sum(1, keepdim=True)
        ranks = torch.arange(1.0, mask.shape[1] + 1, device=mask.device)[None]
        weights = native.DISCOUNTS["exponential"](ranks, counts.to(ranks.dtype))
        return torch.ldexp(weights, counts.clamp(max=LARGEST)) * mask


class OfMask(nn.Module):
    """A discount of ranks, by what gives weights to a mask."""

    def __init__(self, weight: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, ranks: Tensor, counts: Tensor) -> Tensor:
        """The weights of ranks [1, n] in lists of so many documents, [q, 1] or [1, 1]."""
        return self.weight(ranks <= counts).to(ranks.dtype)


DEFAULT_WEIGHT = PListMLELambdaWeight()


class PListMLELoss(Listwise, native.PListMLELoss):
    """`losskit.losses.PListMLELoss` under the incumbent's constructor; labels that rise are named, and taken."""

    configuration = ("lambda_weight", "activation_fn", "mini_batch_size", "respect_input_order")
    _looked = False

    def __init__(
        self,
        model: Any,
        lambda_weight: PListMLELambdaWeight | None = DEFAULT_WEIGHT,
        activation_fn: Activation = IDENTITY,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, None, respect_input_order)
        self.lambda_weight = lambda_weight
        self.activation_fn = activation_fn
        self.mini_batch_size = mini_batch_size

    @property
    def lambda_weight(self) -> PListMLELambdaWeight | None:
        """What ranks are weighed by; None: all alike."""
        return None if self.rank_discount is None else self.rank_discount.weight

    @lambda_weight.setter
    def lambda_weight(self, weight: PListMLELambdaWeight | None) -> None:
        check_constant(f"{type(self).__name__}.lambda_weight", weight)
        self.exchange("rank_discount", None if weight is None else OfMask(weight))

    def check_idle(self, rows: int, columns: int, labels: Tensor | None, lists: Sequence[int] | None = None) -> None:
        """As for every loss; the order of labels on a device is looked at in the first batch, for that waits for it."""
        super().check_idle(rows, columns, labels, lists)
        if labels is not None and labels.device.type not in ("cpu", "meta") and not self._looked:
            self._looked = True
            self.check_lists(columns, labels.cpu(), lists)

    def check_lists(self, columns: int, labels: Tensor, lists: Sequence[int] | None) -> None:
        """Name labels that rise along a list whose order is to be respected, once."""
        if "order" not in self._warned:
            try:
                super().check_lists(columns, labels, lists)
            except LossError as error:
                self._warned.add("order")
                logger.warning("%s", error)
