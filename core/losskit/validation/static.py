"""The checks of level static: what shows of a component without importing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..spec import Spec
from .declared import card, citation, entry_point
from .distribution import packaging
from .docstrings import docstring
from .findings import NotApplicable, Violation, concluded
from .lint import source
from .report import Check, merged
from .target import Target

__all__ = ["STATIC", "StaticCheck", "static_checks"]


@dataclass(frozen=True)
class StaticCheck:
    """One check of what a component's source and metadata say.

    Args:
        id: its name.
        verify: gives all that it finds, or raises `NotApplicable`.
        cause: what usually causes a failure.
    """

    id: str
    verify: Callable[[Spec], Iterator[Violation]]
    cause: str

    def __str__(self) -> str:
        return self.id

    def outcome(self, spec: Spec) -> Check:
        """What comes of it, whatever the card declares; without a better place it points to the class."""
        check = Check(self.id, None, "passed", cause=self.cause, level="static")
        try:
            found = concluded(check, list(self.verify(spec)))
        except NotApplicable as reason:
            return replace(check, status="not_applicable", message=str(reason))
        return found if found.fine or found.file else replace(found, file=spec.file, line=spec.line)


STATIC = (
    StaticCheck("entry-point", entry_point, "a renamed class or module, or a name that another distribution has too"),
    StaticCheck("card", card, "a card that computes something, or that leaves out what listing and matching read"),
    StaticCheck("docstring", docstring, "options added without a word in the docstring"),
    StaticCheck("citation", citation, "a brace that is never closed, or an entry without a key"),
    StaticCheck("packaging", packaging, "metadata that was never filled in, or a requirement without bounds"),
    StaticCheck("source", source, "code that was written for one machine, or for debugging"),
)


def static_checks(target: Target) -> list[Check]:
    """All of them, on a target, held against what its card declares."""
    return [merged([each.outcome(target.spec)], target.deviations) for each in STATIC]
