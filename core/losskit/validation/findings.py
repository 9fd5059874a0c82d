"""How a check says what it found: by raising one of these."""

from __future__ import annotations

__all__ = ["NotApplicable", "Skipped", "Violation"]


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
