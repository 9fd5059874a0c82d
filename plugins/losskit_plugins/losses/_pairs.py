"""What losses on pairs of a list share: their options, and when there are no pairs."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from losskit.errors import LossError, check_number
from losskit.score_loss import single_documents

__all__ = ["Average", "Logarithm", "check_pair_options", "unordered"]

Average = Literal["pairs", "queries"]
Logarithm = Literal["binary", "natural"]


def check_pair_options(name: str, k: int | None, sigma: float, eps: float, reduction_log: str) -> None:
    """Refuse options of `name` that `lambda_loss` cannot serve.

    Raises:
        LossError: names the option.
    """
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise LossError(f"{name}.k", expected="a whole number from 1, or None", got=repr(k))
    check_number(f"{name}.sigma", sigma, "a positive number")
    check_number(f"{name}.eps", eps, "a positive number")
    if reduction_log not in ("binary", "natural"):
        raise LossError(f"{name}.reduction_log", expected="binary or natural", got=repr(reduction_log))


def unordered(rows: int, labels: Tensor | None) -> str:
    """Why so many lists with these labels, flattened, have no pairs to put in order, or nothing."""
    if labels is None or labels.numel() <= rows:
        return single_documents(rows, labels)
    equal = bool((labels == labels.flatten()[0]).all())
    return "all labels are equal, and equal labels are not put in order" if equal else ""
