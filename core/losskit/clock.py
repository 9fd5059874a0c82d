"""The clock of a training: where randomness and schedules come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Clock", "Moment"]


@dataclass(frozen=True)
class Clock:
    """Where a training stands; equal on all devices.

    Args:
        seed: of the run.
        step: optimizer steps done.
        progress: `step` over all steps, in [0, 1]; None where nobody says.
    """

    seed: int = 0
    step: int = 0
    progress: float | None = None

    def generator(self, micro_batch: int | None, path: str) -> torch.Generator:
        """A generator on the CPU for the component at `path`; `micro_batch` None gives evaluation's fixed one.

        >>> a, b = Clock(step=3).generator(0, "loss"), Clock(step=3).generator(0, "loss")
        >>> torch.rand(1, generator=a) == torch.rand(1, generator=b)
        tensor([True])
        """
        moment = (self.seed, "evaluation") if micro_batch is None else (self.seed, self.step, micro_batch)
        return _seeded(*moment, path)

    def generator_for(self, columns: Sequence[Any], path: str) -> torch.Generator:
        """A generator on the CPU for the component at `path` that forms pairs of columns of texts, at any step.

        >>> a, b = (Clock(step=step).generator_for([["a text"], ["another"]], "") for step in (0, 3))
        >>> torch.rand(1, generator=a) == torch.rand(1, generator=b)
        tensor([True])
        """
        return _seeded(self.seed, [list(column) for column in columns], path)


def _seeded(*what: Any) -> torch.Generator:
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass
class Moment:
    """Where a loss stands: the clock it was set to, and what its last forward was told.

    Args:
        clock: of the training.
        micro_batch: forwards since the step began.
        progress: what the last forward goes by; None before the first, and where nobody says.
    """

    clock: Clock = Clock()
    micro_batch: int = 0
    progress: float | None = None
