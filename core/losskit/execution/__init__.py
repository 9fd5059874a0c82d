"""Execution: how the records of a batch come about, as a value handed to any loss."""

from .gather import gather, world_size
from .run import encode, inner_module, uncompiled
from .values import Direct, Execution, GradCache, from_config, to_config

__all__ = [
    "Direct",
    "Execution",
    "GradCache",
    "encode",
    "from_config",
    "gather",
    "inner_module",
    "to_config",
    "uncompiled",
    "world_size",
]
