"""Laws of state: what one call leaves behind for the next."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
