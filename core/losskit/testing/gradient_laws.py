"""Laws of gradients and of what flows: the derivative of the value, and that all that is declared is used."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
