"""CoSENT."""

from __future__ import annotations

from ...sentence_transformer.losses import CoSENTLoss
from ..base import SparseLoss

__all__ = ["SparseCoSENTLoss"]


class SparseCoSENTLoss(SparseLoss, CoSENTLoss):
    """CoSENTLoss of sparse embeddings, which leaves the model's own similarity as it is."""
