"""Laws of encoders: texts to features to records, and to folders and back."""

from __future__ import annotations

from .law import Law

__all__ = ["LAWS"]

LAWS: tuple[Law, ...] = ()
