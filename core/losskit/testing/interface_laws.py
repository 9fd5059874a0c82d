"""Laws of the interface: how a component is built, what it takes, what it refuses and what it returns."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
