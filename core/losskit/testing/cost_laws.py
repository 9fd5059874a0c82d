"""Laws of cost: how memory and work grow, and what is read on the host."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
