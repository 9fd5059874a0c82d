"""Means of named values between two logs."""

from __future__ import annotations

from collections.abc import Mapping

from accelerate.utils import gather_object
from torch import Tensor

__all__ = ["Averages"]


class Averages:
    """Means of named scalars, each over the steps in which it appeared since the last `pop`.

    >>> import torch
    >>> averages = Averages()
    >>> averages.add({"base_loss": torch.tensor(1.0)})
    >>> averages.add({"base_loss": torch.tensor(2.0), "now_and_then": torch.tensor(5.0)})
    >>> averages.pop()
    {'base_loss': 1.5, 'now_and_then': 5.0}
    >>> averages.pop()
    {}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count one step; nothing is read from the device."""
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def pop(self) -> dict[str, float]:
        """The means over all processes, and a fresh start; every process calls it."""
        mine = [{name: (float(total), self._counts[name]) for name, total in self._sums.items()}]
        self._sums, self._counts = {}, {}
        ranks = gather_object(mine)
        names = dict.fromkeys(name for rank in ranks for name in rank)
        return {
            name: sum(rank[name][0] for rank in ranks if name in rank)
            / sum(rank[name][1] for rank in ranks if name in rank)
            for name in names
        }
