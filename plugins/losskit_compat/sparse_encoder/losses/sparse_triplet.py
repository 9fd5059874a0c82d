"""Triplets."""

from __future__ import annotations

from ...sentence_transformer.losses import TripletLoss
from ..base import SparseLoss

__all__ = ["SparseTripletLoss"]


class SparseTripletLoss(SparseLoss, TripletLoss):
    """TripletLoss of sparse embeddings."""
