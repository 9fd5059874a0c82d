"""Multiple negatives ranking, its cached form, and the two deprecated symmetric ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from losskit import GradCache
from losskit_plugins.losses import multiple_negatives_ranking as native

from ...base import Cached, Scored, direct
from ...util import cos_sim

__all__ = [
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
]

Function = Callable[[Tensor, Tensor], Tensor]
Directions = tuple[Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"], ...]
Partition = Literal["joint", "per_direction"]
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
SYMMETRIC: Directions = ("query_to_doc", "doc_to_query")


class _Ranking(Scored, native.MultipleNegativesRankingLoss):
    @property
    def temperature(self) -> float:
        """The inverse of the scale."""
        return 1.0 / self.scale


class MultipleNegativesRankingLoss(_Ranking):
    """`losskit.losses.MultipleNegativesRankingLoss` under the incumbent's constructor."""

    configuration = (
        "scale",
        "similarity_fct",
        "gather_across_devices",
        "directions",
        "partition_mode",
        "hardness_mode",
        "hardness_strength",
    )

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Function = cos_sim,
        gather_across_devices: bool = False,
        directions: Directions = ("query_to_doc",),
        partition_mode: Partition = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        execution = direct(gather_across_devices)
        options = (directions, partition_mode, hardness_mode, hardness_strength)
        super().__init__(model, scale, None, *options, execution=execution)
        self.similarity_fct = similarity_fct


class CachedMultipleNegativesRankingLoss(Cached, _Ranking):
    """`losskit.losses.MultipleNegativesRankingLoss` with gradient caching."""

    configuration = (
        "scale",
        "similarity_fct",
        "mini_batch_size",
        "mini_batch_num_tokens",
        "gather_across_devices",
        "directions",
        "partition_mode",
        "hardness_mode",
        "hardness_strength",
    )

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Function = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Directions = ("query_to_doc",),
        partition_mode: Partition = "joint",
        show_progress_bar: bool = False,
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        options = (directions, partition_mode, hardness_mode, hardness_strength)
        super().__init__(model, scale, None, *options, execution=GradCache(gather=gather_across_devices))
        self.similarity_fct = similarity_fct
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """Deprecated: MultipleNegativesRankingLoss in both directions."""

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Function = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        _deprecate(self)
        super().__init__(model, scale, similarity_fct, gather_across_devices, SYMMETRIC, "per_direction")


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """Deprecated: CachedMultipleNegativesRankingLoss in both directions."""

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Function = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        _deprecate(self)
        cache = (mini_batch_size, mini_batch_num_tokens, gather_across_devices)
        super().__init__(model, scale, similarity_fct, *cache, SYMMETRIC, "per_direction", show_progress_bar)


def _deprecate(loss: MultipleNegativesRankingLoss | CachedMultipleNegativesRankingLoss) -> None:
    name = type(loss).__name__
    wanted = name.replace("Symmetric", "")
    message = f"{name} is deprecated: write {wanted} with directions={SYMMETRIC!r}, partition_mode='per_direction'"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
