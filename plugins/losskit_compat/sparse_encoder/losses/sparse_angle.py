"""AnglE."""

from __future__ import annotations

from ...sentence_transformer.losses import AnglELoss
from ..base import SparseLoss

__all__ = ["SparseAnglELoss"]


class SparseAnglELoss(SparseLoss, AnglELoss):
    """AnglELoss of sparse embeddings."""
