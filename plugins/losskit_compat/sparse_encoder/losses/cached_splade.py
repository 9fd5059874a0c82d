"""SPLADE with gradient caching."""

from __future__ import annotations

from typing import Any

from torch import nn

from losskit import GradCache

from ...base import Cached
from .splade import SpladeLoss

__all__ = ["CachedSpladeLoss"]


class CachedSpladeLoss(Cached, SpladeLoss):
    """SpladeLoss with gradient caching, which rules the loss inside too."""

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
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            loss,
            document_regularizer_weight,
            query_regularizer_weight,
            document_regularizer,
            query_regularizer,
            document_regularizer_threshold,
            query_regularizer_threshold,
            use_document_regularizer_only,
        )
        self.execution = GradCache(gather=self.execution.gather)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as model cards print them."""
        sizes = {"mini_batch_size": self.mini_batch_size, "mini_batch_num_tokens": self.mini_batch_num_tokens}
        return super().get_config_dict() | sizes
