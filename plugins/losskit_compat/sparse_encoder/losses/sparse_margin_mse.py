"""Margins of a teacher."""

from __future__ import annotations

from ...sentence_transformer.losses import MarginMSELoss
from ..base import SparseLoss

__all__ = ["SparseMarginMSELoss"]


class SparseMarginMSELoss(SparseLoss, MarginMSELoss):
    """MarginMSELoss of sparse embeddings."""
