"""Functions that form their own gradients, which are constants for a further derivative."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from ..errors import LossError

__all__ = ["differentiable_once"]


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a Function's backward refuse `create_graph=True`, which would leave its terms out in silence."""

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        # Gradients are enabled in a backward only by create_graph; tracing for torch.compile enables them too.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LossError(
                "a second derivative of a loss",
                expected="a backward without create_graph",
                got="create_graph=True",
                fix="compute penalties on gradients with torch operations of your own",
            )
        return backward(ctx, *gradients)

    return checked
