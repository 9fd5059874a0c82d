"""CSR: a loss on sparse codes, and what keeps the dense embedding in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit_plugins.losses import csr_reconstruction
from losskit_plugins.wrappers import csr

from ..base import PARTS, SparseLoss, inner_loss
from .sparse_multiple_negatives_ranking import SparseMultipleNegativesRankingLoss

__all__ = ["CSRLoss", "CSRReconstructionLoss"]


class CSRReconstructionLoss(SparseLoss, csr_reconstruction.CSRReconstructionLoss):
    """`losskit.losses.CSRReconstructionLoss` under the incumbent's constructor."""

    configuration = ("beta",)

    def __init__(self, model: Any, beta: float = 1.0) -> None:
        super().__init__(model, beta)

    def compute_loss_from_embeddings(self, outputs: Sequence[Mapping[str, Tensor | None]]) -> dict[str, Tensor]:
        """The terms of what a sparse auto-encoder put out, one dict per column."""
        columns = [_record(made) for made in outputs]
        return self.compute(columns, None, slice(0, columns[0].items))


class CSRLoss(SparseLoss, csr.CSRLoss):
    """`losskit.losses.CSRLoss` under the incumbent's constructor: without a loss it ranks against the batch."""

    configuration = ("beta", "gamma", "loss")

    def __init__(self, model: Any, loss: nn.Module | None = None, beta: float = 0.1, gamma: float = 1.0) -> None:
        # Not as a child: its model is the one of this loss.
        self.__dict__["reconstruction_loss"] = CSRReconstructionLoss(model, beta)
        inner = SparseMultipleNegativesRankingLoss(model) if loss is None else inner_loss(model, loss)
        super().__init__(model, inner, beta, gamma)

    @property
    def beta(self) -> float:
        """Weight of the auxiliary term: that of `reconstruction_loss`."""
        return self.reconstruction_loss.beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self.reconstruction_loss.beta = beta


def _record(made: Mapping[str, Tensor | None]) -> Output:
    parts = {part: made[name] for part, name in PARTS.items() if made[name] is not None}
    return Output(parts["backbone"], parts=parts)
