"""Train and evaluation modes of a module's parts, set for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import nn

__all__ = ["in_evaluation", "in_modes", "modes_of"]


def modes_of(module: nn.Module | None) -> dict[nn.Module, bool]:
    """Which parts of a module are in train mode."""
    return {} if module is None else {part: part.training for part in module.modules()}


@contextlib.contextmanager
def in_modes(modes: Mapping[nn.Module, bool]) -> Iterator[None]:
    """Every part in the mode given; afterwards in the one it was in."""
    before = {part: part.training for part in modes}
    _set(modes)
    try:
        yield
    finally:
        _set(before)


def in_evaluation(module: nn.Module | None) -> contextlib.AbstractContextManager[None]:
    """Every part in evaluation mode; afterwards in the one it was in."""
    return in_modes(dict.fromkeys(modes_of(module), False))


def _set(modes: Mapping[nn.Module, bool]) -> None:
    for part, training in modes.items():
        part.training = training
