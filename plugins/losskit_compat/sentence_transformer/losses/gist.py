"""GISTEmbed, and its cached form."""

from __future__ import annotations

from typing import Any, Literal

from losskit import GradCache
from losskit_plugins.losses import gist as native

from ...base import Cached, Incumbent, direct

__all__ = ["CachedGISTEmbedLoss", "GISTEmbedLoss"]

Strategy = Literal["absolute", "relative"]


class _Guided(Incumbent, native.GISTEmbedLoss):
    @property
    def guide(self) -> Any:
        """The frozen encoder that says which candidates are no negatives."""
        return self.frozen["guide"]

    @guide.setter
    def guide(self, guide: Any) -> None:
        self.frozen = {**self.frozen, "guide": guide}

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as model cards print them, the guide as it is."""
        return {"guide": self.guide, **super().get_config_dict()}


class GISTEmbedLoss(_Guided):
    """`losskit.losses.GISTEmbedLoss` under the incumbent's constructor."""

    configuration = (
        "temperature",
        "margin_strategy",
        "margin",
        "contrast_anchors",
        "contrast_positives",
        "gather_across_devices",
    )

    def __init__(
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        margin_strategy: Strategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        options = (temperature, margin_strategy, margin, contrast_anchors, contrast_positives)
        super().__init__(model, guide, *options, execution=direct(gather_across_devices))


class CachedGISTEmbedLoss(Cached, _Guided):
    """`losskit.losses.GISTEmbedLoss` with gradient caching."""

    configuration = (
        "temperature",
        "mini_batch_size",
        "mini_batch_num_tokens",
        "margin_strategy",
        "margin",
        "contrast_anchors",
        "contrast_positives",
        "gather_across_devices",
    )

    def __init__(
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        margin_strategy: Strategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        options = (temperature, margin_strategy, margin, contrast_anchors, contrast_positives)
        super().__init__(model, guide, *options, execution=GradCache(gather=gather_across_devices))
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar
