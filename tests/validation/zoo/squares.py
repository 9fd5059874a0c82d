"""A plain module that does nothing when it is imported: tests add what is wrong to its source."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Squares(nn.Module):
    """The mean squared distance of two texts.

    Args:
        model: that embeds.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        """The mean over pairs."""
        if len(sentence_features) != 2:
            raise ValueError(f"expected 2 columns, got {len(sentence_features)}")
        a, b = (self.model(features)["sentence_embedding"] for features in sentence_features)
        if len(a) != len(b):
            raise ValueError("expected columns of equal length")
        wide = torch.promote_types(a.dtype, torch.float32)
        return (a.to(wide) - b.to(wide)).square().mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}
