"""Claims of cards beside what components do, in both directions."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
