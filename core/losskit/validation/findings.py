"""How a check says what it found: by raising one of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .report import Check

__all__ = ["NotApplicable", "Skipped", "Violation", "concluded"]

TOLD = 4
"""How many findings of one check are told; the others are counted."""


class Violation(Exception):  # noqa: N818 - a finding
    """A check fails: a law does not hold.

    Args:
        message: what was compared.
        expected: what is asked for.
        got: what came.
        file: where to look, at `line`, if that is known better than by where this was raised.
    """

    def __init__(
        self,
        message: str,
        expected: object = "",
        got: object = "",
        *,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.expected, self.got = str(expected), str(got)
        self.file, self.line = file, line


class NotApplicable(Exception):  # noqa: N818 - no error
    """The check says nothing about this component; the message says why."""


class Skipped(Exception):  # noqa: N818 - no error
    """The check cannot be made on this machine; the message says why."""


def concluded(check: Check, found: Sequence[Violation]) -> Check:
    """A check that passed, or that failed because of all that was found; it points to the first."""
    if not found:
        return replace(check, status="passed")
    messages = [str(each) for each in found[:TOLD]]
    if len(found) > TOLD:
        messages.append(f"and {len(found) - TOLD} more")
    first = found[0]
    return replace(
        check,
        status="failed",
        message="; ".join(messages),
        expected=first.expected,
        got=first.got,
        file=first.file,
        line=first.line,
    )
