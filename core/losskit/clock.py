"""The clock of a training: where randomness and schedules come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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
        digest = hashlib.blake2b(repr((*moment, path)).encode(), digest_size=8).digest()
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
