"""Full precision: float32 at least, with autocast off."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

__all__ = ["full_precision", "promoted"]

_AS_IT_IS = contextlib.nullcontext()


def promoted(tensor: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is.

    >>> promoted(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def full_precision(tensor: Tensor | None) -> AbstractContextManager[object]:
    """A context without autocast on the device of a tensor."""
    kind = "meta" if tensor is None else tensor.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return _AS_IT_IS
    return torch.autocast(kind, enabled=False)
