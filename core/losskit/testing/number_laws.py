"""Laws of numbers: precision, layouts, dtypes, extreme options, and NaN that must not vanish."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
