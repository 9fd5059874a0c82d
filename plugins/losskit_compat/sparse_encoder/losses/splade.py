"""SPLADE: a loss with penalties that keep queries and documents sparse."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from losskit import Output, Regularizer
from losskit_plugins.wrappers import splade as native

from ...foreign import ForeignLoss
from ..base import SparseLoss, inner_loss
from .flops import FlopsLoss

__all__ = ["SpladeLoss"]

logger = logging.getLogger("losskit")


class SpladeLoss(SparseLoss, native.SpladeLoss):
    """`losskit.losses.SpladeLoss` under the incumbent's constructor: regularizers are called with one tensor."""

    def __init__(
        self,
        model: Any,
        loss: nn.Module,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: nn.Module | None = None,
        query_regularizer: nn.Module | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
    ) -> None:
        if use_document_regularizer_only and query_regularizer_weight is not None:
            logger.warning("SpladeLoss: query_regularizer_weight is unread with use_document_regularizer_only")
            query_regularizer_weight = None
        super().__init__(
            model,
            inner_loss(model, loss),
            document_regularizer_weight,
            query_regularizer_weight,
            use_document_regularizer_only=use_document_regularizer_only,
        )
        self.document_regularizer = _penalty(model, "document", document_regularizer, document_regularizer_threshold)
        if query_regularizer is not None or not use_document_regularizer_only:
            self.query_regularizer = _penalty(model, "query", query_regularizer, query_regularizer_threshold)

    def regularizer(self, role: str) -> Regularizer:
        """The penalty, called with records."""
        chosen = super().regularizer(role)
        of_embeddings = getattr(chosen, "compute_loss_from_embeddings", None)
        if of_embeddings is None:
            return chosen

        def penalty(queries: Output | None, documents: Output) -> Any:
            return of_embeddings(documents.embedding)

        return penalty

    def weight(self, role: str) -> Any:
        """The weight of a penalty; 0 keeps its component."""
        return super().weight(role) or 0.0

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as model cards print them."""
        config: dict[str, Any] = {"loss": self.loss.module if isinstance(self.loss, ForeignLoss) else self.loss}
        config["document_regularizer_weight"] = self.document_regularizer_weight
        if self.query_regularizer_weight is not None:
            config["query_regularizer_weight"] = self.query_regularizer_weight
        for role in native.CONTROLLED:
            regularizer = getattr(self, f"{role}_regularizer")
            if regularizer is not None and not isinstance(regularizer, FlopsLoss):
                config[f"{role}_regularizer"] = type(regularizer).__name__
            threshold = getattr(regularizer, "threshold", None)
            if threshold is not None:
                config[f"{role}_regularizer_threshold"] = threshold
        return config

    def _uses(self, role: str) -> bool:
        return getattr(self, f"{role}_regularizer_weight") is not None


def _penalty(model: Any, role: str, regularizer: nn.Module | None, threshold: float | None) -> nn.Module:
    if regularizer is None:
        return FlopsLoss(model, threshold)
    if threshold is not None:
        logger.warning("SpladeLoss: %s_regularizer_threshold is unread beside a regularizer", role)
    return regularizer
