"""A law as a value, and what came of checking it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ..errors import brief
from ..validation.findings import NotApplicable, Skipped, Violation
from ..validation.report import Check, Level
from .subject import Subject

__all__ = ["IN_LOSSES", "LOSSES", "Check", "Law", "NotApplicable", "Skipped", "deviations", "law"]


ELSEWHERE = 1_000_003
"""From the seed of a subject to that of a law: else what is made anew by chance would look as if it had been kept."""
LOSSES = ("loss", "wrapper")
IN_LOSSES = (*LOSSES, "similarity", "regularizer", "weighting")
"""The kinds that are losses, or do their work inside of one."""


@dataclass(frozen=True)
class Law:
    """One law, called on a subject.

    Args:
        id: its name.
        number: in the contracts, if it is one of the laws there.
        kinds: of components that it holds for.
        verify: raises `Violation`, `NotApplicable` or `Skipped`.
        level: of a validation that checks it.
        cause: what usually causes a failure.
        plain: why it cannot apply to a plain module; empty where it can.
    """

    id: str
    number: int | None
    kinds: tuple[str, ...]
    verify: Callable[[Subject], None]
    level: Level = "numeric"
    cause: str = ""
    plain: str = ""

    def __str__(self) -> str:
        return self.id

    def __call__(self, subject: Subject) -> Check:
        """Verify it; a failure that the card declares, or that of a loss inside, is deviating."""
        found = self.outcome(subject)
        reason = _inherited(subject).get(self.id) if found.status == "failed" else None
        return found if reason is None else replace(found, status="deviating", message=reason)

    def outcome(self, subject: Subject) -> Check:
        """Verify it, whatever the card declares; what a component raises is a failure, and no error of this call."""
        check = Check(self.id, self.number, "passed", level=self.level, cause=self.cause)
        if self.plain and subject.plain:
            return replace(check, status="not_applicable", message=self.plain)
        try:
            with _set_back(subject.seed):
                self.verify(subject)
        except NotApplicable as reason:
            return replace(check, status="not_applicable", message=str(reason))
        except Skipped as reason:
            return replace(check, status="skipped", message=str(reason))
        except Violation as found:
            return self._failed(check, subject, found, str(found), found.expected, found.got)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's component may raise anything
            return self._failed(check, subject, error, brief(error), "no error", type(error).__name__)
        return check

    def _failed(
        self, check: Check, subject: Subject, error: BaseException, message: str, expected: str, got: str
    ) -> Check:
        file, line = subject.place
        if isinstance(error, Violation) and error.file is not None:
            file, line = error.file, error.line
        else:
            line = _line_in(file, error.__traceback__) or line
        return replace(
            check,
            status="failed",
            message=message,
            expected=expected,
            got=got,
            file=file,
            line=line,
            subject=str(subject),
        )


@contextmanager
def _set_back(seed: int) -> Iterator[None]:
    """Random numbers begin anew, and not as those that made the subject.

    What a component does to generators and the default dtype ends with the law.
    """
    before = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=[]):
            seed = (seed + ELSEWHERE) % 2**32
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_default_dtype(before[2])


def _line_in(file: str | None, trace: TracebackType | None) -> int | None:
    """The line of a file at which an error was raised or passed through, the innermost one."""
    found = None
    while file and trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == Path(file):
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def deviations(subject: Subject) -> dict[str, str]:
    """What the card of a subject's component declares."""
    try:
        card = subject.card
    except Exception:  # noqa: BLE001 - what cannot be built declares nothing; the law says why it fails
        return {}
    return {} if card is None else dict(card.deviations)


def _inherited(subject: Subject) -> dict[str, str]:
    """What the cards of a subject's component and of the losses inside declare."""
    try:
        inside = [part.card.deviations for _, part in subject.build().tree() if part._has_card]
    except Exception:  # noqa: BLE001 - what cannot be built declares nothing; the law says why it fails
        inside = []
    return {check: reason for each in (*inside, deviations(subject)) for check, reason in each.items()}


def law(
    number: int | None, *kinds: str, level: Level = "numeric", cause: str = "", plain: str = ""
) -> Callable[[Callable[[Subject], None]], Law]:
    """Make a function a law of some kinds of components; its name is the law's id, its arguments are as in `Law`."""

    def made(verify: Callable[[Subject], None]) -> Law:
        return Law(verify.__name__.replace("_", "-"), number, kinds, verify, level, cause, plain)

    return made
