"""What a validation found: checks, their counts, and the forms in which a report is handed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from xml.etree import ElementTree as Xml

from ..spec import Problem

__all__ = ["LEVELS", "MINIMUM", "Check", "Report", "Status", "merged"]

Level = Literal["static", "interface", "numeric", "full", "gpu"]
Status = Literal["passed", "failed", "skipped", "deviating", "not_applicable"]
LEVELS: tuple[Level, ...] = ("static", "interface", "numeric", "full", "gpu")
"""In their order; each level includes those before it."""
STATUSES: tuple[Status, ...] = ("passed", "failed", "skipped", "deviating", "not_applicable")

MINIMUM: Mapping[str, Mapping[str, int]] = {
    "static": dict.fromkeys(("loss", "wrapper", "regularizer", "weighting", "similarity", "encoder"), 2),
    "interface": {"loss": 6, "wrapper": 6, "regularizer": 4, "weighting": 4, "similarity": 3, "encoder": 3},
    "numeric": {"loss": 21, "wrapper": 21, "regularizer": 17, "weighting": 16, "similarity": 17, "encoder": 7},
}
"""How many checks must have run at a level, by kind, lest a report be green for want of checks."""


@dataclass(frozen=True)
class Check:
    """What came of one check.

    Args:
        id: of the check; a card's `deviations` name it.
        law: its number in the contracts, if it is one of the laws.
        status: "deviating" is a failure that the card declares; "skipped" could not run here.
        message: why, unless it passed.
        expected: what is asked for.
        got: what came.
        file: where to look, at `line`.
        subject: the smallest example that fails.
        cause: what usually causes a failure.
        level: that it belongs to.
    """

    id: str
    law: int | None
    status: Status
    message: str = ""
    expected: str = ""
    got: str = ""
    file: str | None = None
    line: int | None = None
    subject: str = ""
    cause: str = ""
    level: Level = "numeric"

    @property
    def fine(self) -> bool:
        """Whether it is no finding."""
        return self.status != "failed"

    @property
    def ran(self) -> bool:
        """Whether it was executed to an end."""
        return self.status in ("passed", "failed", "deviating")

    def told(self) -> str:
        """The message with the example and the usual cause."""
        example = f" [{self.subject}]" if self.subject else ""
        cause = f" Usual cause: {self.cause}." if self.cause and self.status == "failed" else ""
        return f"{self.message}{example}{'.' if cause else ''}{cause}"

    def to_dict(self) -> dict[str, Any]:
        """As `losskit validate --json` shows it."""
        return {
            "id": self.id,
            "law": self.law,
            "status": self.status,
            "message": self.told(),
            "expected": self.expected,
            "got": self.got,
            "file": self.file,
            "line": self.line,
        }


def merged(outcomes: Sequence[Check], deviations: Mapping[str, str]) -> Check:
    """One check of what came of it on several subjects, held against what the card declares.

    A failure on any subject is a failure. One that the card declares deviates; a declared one that occurs on no
    subject is a finding.

    Args:
        outcomes: of one check, at least one.
        deviations: check id -> why it may fail.
    """
    order: tuple[Status, ...] = ("failed", "passed", "skipped", "not_applicable", "deviating")
    worst = min(outcomes, key=lambda each: order.index(each.status))
    reason = deviations.get(worst.id)
    if reason is None or worst.status in ("skipped", "not_applicable"):
        return worst
    if worst.status == "failed":
        return replace(worst, status="deviating", message=reason)
    strict = "declared as a deviation, but it holds"
    cause = "what was mended, and is still declared"
    return replace(worst, status="failed", message=strict, expected="a failure, as declared", got="none", cause=cause)


@dataclass(frozen=True)
class Report:
    """All checks of one target.

    Args:
        target: as it was named.
        kind: of the component.
        level: the highest that was asked for.
        seed: of encoders and data.
        checks: in the order in which they ran.
        plain: whether the target is a plain module, of which fewer checks are asked.
        restricted: whether only some checks were asked for, of which any number is enough.
        problems: of plugins that bring further checks.
    """

    target: str
    kind: str
    level: Level
    seed: int
    checks: Sequence[Check] = field(default_factory=tuple)
    plain: bool = False
    restricted: bool = False
    problems: Sequence[Problem] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many checks there are of each status."""
        found = Counter(each.status for each in self.checks)
        return {status: found[status] for status in STATUSES}

    @property
    def findings(self) -> list[Check]:
        """The checks that failed."""
        return [each for each in self.checks if not each.fine]

    @property
    def too_few(self) -> str:
        """At which level too few checks ran, or nothing."""
        for level, least in MINIMUM.items() if not self.restricted else ():
            if LEVELS.index(level) > LEVELS.index(self.level):
                break
            wanted = least[self.kind] * 2 // 3 if self.plain else least[self.kind]
            ran = sum(each.ran for each in self.checks if each.level == level)
            if ran < wanted:
                return f"{level}: {ran} of at least {wanted} checks ran"
        return ""

    @property
    def fine(self) -> bool:
        """Whether nothing was found and enough was looked at."""
        return not self.findings and not self.too_few

    @property
    def exit_code(self) -> int:
        """Of the command line: 0 fine, 1 findings, 4 too few checks ran."""
        return 1 if self.findings else 4 if self.too_few else 0

    def to_dict(self) -> dict[str, Any]:
        """As `losskit validate --json` shows it."""
        return {
            "target": self.target,
            "level": self.level,
            "seed": self.seed,
            "counts": self.counts,
            "checks": [each.to_dict() for each in self.checks],
        }

    def to_junit(self) -> Xml.Element:
        """A test suite in JUnit's XML."""
        counts = self.counts
        skipped = counts["skipped"] + counts["not_applicable"] + counts["deviating"]
        suite = Xml.Element(
            "testsuite",
            name=printable(self.target),
            tests=str(len(self.checks) + bool(self.too_few)),
            failures=str(counts["failed"]),
            errors=str(int(bool(self.too_few))),
            skipped=str(skipped),
        )
        for each in self.checks:
            case = Xml.SubElement(suite, "testcase", classname=printable(self.target), name=each.id)
            if each.file:
                case.set("file", printable(each.file))
            if each.line:
                case.set("line", str(each.line))
            if each.status == "failed":
                told = Xml.SubElement(case, "failure", message=printable(each.message))
                told.text = printable(f"{each.told()}\nexpected: {each.expected}\ngot: {each.got}")
            elif each.status != "passed":
                reason = f"{each.status.replace('_', ' ')}: {each.message}"
                Xml.SubElement(case, "skipped", message=printable(reason))
        if self.too_few:
            case = Xml.SubElement(suite, "testcase", classname=printable(self.target), name="enough-checks")
            Xml.SubElement(case, "error", message=self.too_few)
        return suite


def printable(text: str) -> str:
    r"""Text that XML can hold.

    >>> printable("a\x00b")
    'a\\x00b'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
