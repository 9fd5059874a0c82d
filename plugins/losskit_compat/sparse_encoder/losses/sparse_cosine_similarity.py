"""Cosine similarity."""

from __future__ import annotations

from ...sentence_transformer.losses import CosineSimilarityLoss
from ..base import SparseLoss

__all__ = ["SparseCosineSimilarityLoss"]


class SparseCosineSimilarityLoss(SparseLoss, CosineSimilarityLoss):
    """CosineSimilarityLoss of sparse embeddings, which leaves the model's own similarity as it is."""
