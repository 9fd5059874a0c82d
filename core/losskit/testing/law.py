"""A law as a value, and what came of checking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .compare import Violation
from .subject import Subject

__all__ = ["Check", "Law", "NotApplicable", "law"]

Status = Literal["passed", "failed", "skipped", "deviating", "not_applicable"]


class NotApplicable(Exception):  # noqa: N818 - no error
    """The law says nothing about this subject; the message says why."""


@dataclass(frozen=True)
class Check:
    """What came of one law.

    Args:
        id: of the law; a card's `deviations` name it.
        law: its number in the contracts.
        status: "deviating" is a failure that the card declares.
        message: why, unless it passed.
        expected: what the law asks for.
        got: what came.
    """

    id: str
    law: int
    status: Status
    message: str = ""
    expected: str = ""
    got: str = ""

    @property
    def fine(self) -> bool:
        """Whether it is no finding."""
        return self.status != "failed"


@dataclass(frozen=True)
class Law:
    """One law, called on a subject.

    Args:
        id: its name.
        number: in the contracts.
        kinds: of components that it holds for.
        verify: raises `Violation` or `NotApplicable`.
    """

    id: str
    number: int
    kinds: tuple[str, ...]
    verify: Callable[[Subject], None]

    def __str__(self) -> str:
        return self.id

    def __call__(self, subject: Subject) -> Check:
        """Verify it; whatever a component raises is a failure, and no error of this call."""
        try:
            self.verify(subject)
        except NotApplicable as reason:
            return Check(self.id, self.number, "not_applicable", str(reason))
        except Violation as found:
            return self._failed(subject, str(found), found.expected, found.got)
        except Exception as error:  # noqa: BLE001 - a stranger's component may raise anything
            return self._failed(subject, f"{type(error).__name__}: {error}", "no error", type(error).__name__)
        if self.id in _deviations(subject):
            return Check(self.id, self.number, "failed", "declared as a deviation, but it holds", "a failure", "none")
        return Check(self.id, self.number, "passed")

    def _failed(self, subject: Subject, message: str, expected: str, got: str) -> Check:
        reason = _deviations(subject).get(self.id)
        if reason is not None:
            return Check(self.id, self.number, "deviating", reason, expected, got)
        return Check(self.id, self.number, "failed", message, expected, got)


def _deviations(subject: Subject) -> dict[str, str]:
    try:
        card = subject.card
    except Exception:  # noqa: BLE001 - what cannot be built declares nothing; the law says why it fails
        return {}
    return {} if card is None else dict(card.deviations)


def law(number: int, *kinds: str) -> Callable[[Callable[[Subject], None]], Law]:
    """Make a function a law of some kinds of components; its name is the law's id."""

    def made(verify: Callable[[Subject], None]) -> Law:
        return Law(verify.__name__.replace("_", "-"), number, kinds, verify)

    return made
