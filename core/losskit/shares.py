"""Denominators: what parts of a batch, and ranks, contribute to the mean over the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import LossError

__all__ = ["Value", "share", "weighted_mean"]

Value = Tensor | dict[str, Tensor]
"""A scalar, or scalars by name whose sum is the objective."""


def share(value: Tensor, mine: Any, parts: Sequence[Any], key: str | None) -> Tensor:
    """W d_r / sum(d) times a rank's value, so that the mean over W ranks is the joint value.

    Args:
        value: of this rank.
        mine: this rank's denominator d_r, a number or a dict by component.
        parts: those of all ranks.
        key: of the component; None where there is one number.
    """
    own, all_of_them = _of(mine, key), [_of(part, key) for part in parts]
    # In this order, for a quotient of integer tensors would be rounded to float32.
    scaled: Tensor = value * (len(parts) * own) / _safe(sum(all_of_them))
    return scaled


def weighted_mean(values: Sequence[Value], weights: Sequence[Any]) -> Value:
    """The mean of the values of slices, each by its denominator, component by component."""
    first = values[0]
    if not isinstance(first, dict):
        return _mean_of(values, weights)
    return {
        key: _mean_of([value[key] for value in values], [_of(weight, key) for weight in weights])  # type: ignore[index]
        for key in first
    }


def _mean_of(values: Sequence[Any], weights: Sequence[Any]) -> Tensor:
    total = _safe(sum(weights))
    terms: list[Tensor] = [value * weight / total for value, weight in zip(values, weights, strict=True)]
    return torch.stack(terms).sum()


def _of(weight: Any, key: str | None) -> Any:
    """The weight of a component: its own, that of the component it is part of, or that of the rest, named "".

    Raises:
        LossError: denominators by names of which none is the component's.
    """
    if not isinstance(weight, dict):
        return weight
    name = key
    while name and name not in weight:
        name = name.rpartition("/")[0]
    if name not in weight:
        wanted = "one number, for compute gives one" if key is None else f"the key {key!r}, as compute gives it"
        raise LossError("denominator of a loss", expected=wanted, got=f"keys {sorted(weight)}")
    return weight[name]


def _safe(total: Any) -> Any:
    """A total to divide by: 1 where it is 0, for then every term is."""
    return total + (total == 0)
