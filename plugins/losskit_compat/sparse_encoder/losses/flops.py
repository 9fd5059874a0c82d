"""FLOPS, the regularizer of SpladeLoss."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from losskit_plugins.regularizers.flops import FlopsRegularizer, flops

__all__ = ["FlopsLoss"]


class FlopsLoss(FlopsRegularizer):
    """`FlopsRegularizer` under the incumbent's constructor, and called with the embeddings of one side."""

    def __init__(self, model: Any, threshold: float | None = None) -> None:
        super().__init__(threshold)
        # Not as a child: what the loss around it owns does not include the model.
        self.__dict__["model"] = model

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """FLOPS of embeddings [n, terms]."""
        return flops(embeddings.to_dense(), threshold=self.threshold)

    @property
    def citation(self) -> str:
        """BibTeX."""
        return self.card.citation
