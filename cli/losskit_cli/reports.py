"""How reports of validations are written: tables, findings, JSON documents and JUnit's XML."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from losskit.validation import LEVELS, Check, Report

from .output import write, write_entry, write_line, write_table

__all__ = ["COLUMNS", "junit_of", "record_all", "row", "too_few", "write_all", "write_report"]

COLUMNS = ("kind", "target", "passed", "failed", "skipped", "deviating", "not applicable", "result")
"""Of the table of several reports."""
SHOWN = 500
"""Characters of what was compared that are shown."""
STATUSES = ("passed", "not_applicable", "skipped", "deviating", "failed")
"""In the order in which they are shown: what is to be read stands last."""


def write_report(report: Report, quiet: bool) -> None:
    """What a validation found: on a terminal what passed in few lines, elsewhere a line for each check.

    Args:
        report: of one target.
        quiet: findings and counts only.
    """
    if not quiet:
        rows: Sequence[Check] = report.checks
        if sys.stdout.isatty():
            _write_passed(report)
            rows = [each for each in rows if each.status != "passed"]
        if rows:
            rows = sorted(rows, key=lambda each: STATUSES.index(each.status))
            cells = [[each.id, str(each.law or ""), _words(each.status), _why(each)] for each in rows]
            write_table(["check", "law", "status", "why"], cells)
    _write_findings([report])
    _write_counts([report], quiet)


def _write_passed(report: Report) -> None:
    """A paragraph for each level."""
    if not report.counts["passed"]:
        return
    write_line(f"{report.target}, level {report.level}, seed {report.seed}: passed (law)", "bold")
    for level in LEVELS:
        passed = [each for each in report.checks if each.status == "passed" and each.level == level]
        write_entry(level, ", ".join(f"{each.id} ({each.law})" if each.law else each.id for each in passed))
    write()


def row(report: Report) -> list[str]:
    """A line of the table of several reports."""
    result = "failed" if report.findings else "too few" if report.too_few else "passed"
    target = report.target.removeprefix(f"{report.kind}:")
    zero = "" if sys.stdout.isatty() else "0"
    return [report.kind, target, *(str(count or zero) for count in report.counts.values()), result]


def write_all(reports: Sequence[Report], quiet: bool) -> None:
    """What stands below the rows of several reports: what did not run or deviates, findings, counts.

    Args:
        reports: of several targets.
        quiet: findings and counts only.
    """
    noted = [
        [report.target, each.id, _words(each.status), each.message]
        for report in reports
        for each in report.checks
        if each.status in ("skipped", "deviating")
    ]
    if noted and not quiet:
        write()
        write_table(["target", "check", "status", "why"], noted)
    _write_findings(reports)
    _write_counts(reports, quiet, f"{len(reports)} components: ")


def _write_findings(reports: Sequence[Report]) -> None:
    """A block for each finding."""
    for report in reports:
        for each in report.findings:
            write()
            law = f" (law {each.law})" if each.law else ""
            write_line(f"{report.target}: {each.id}{law} failed", "bold red")
            write_entry("found", _cut(each.message))
            write_entry("example", _cut(each.subject))
            write_entry("expected", _cut(each.expected))
            write_entry("got", _cut(each.got))
            write_entry("at", _place(each))
            write_entry("usual cause", each.cause)


def too_few(reports: Sequence[Report]) -> list[str]:
    """Where too few checks ran."""
    if all(report.restricted and not any(each.ran for each in report.checks) for report in reports):
        return ["none of those selected could be made"]
    return [f"{report.target}: {report.too_few}" for report in reports if report.too_few]


def record_all(reports: Sequence[Report], level: str, seed: int) -> dict[str, Any]:
    """Several reports as `losskit validate --all --json` shows them."""
    documents = [report.to_dict() for report in reports]
    return {"level": level, "seed": seed, "counts": _total(reports), "reports": documents}


def junit_of(reports: Sequence[Report]) -> bytes:
    """The reports in JUnit's XML, a suite for each."""
    suites = Xml.Element("testsuites", name="losskit validate")
    suites.extend(report.to_junit() for report in reports)
    for name in ("tests", "failures", "errors", "skipped"):
        suites.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    Xml.indent(suites)
    text: bytes = Xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _total(reports: Sequence[Report]) -> dict[str, int]:
    counts = [report.counts for report in reports]
    return {status: sum(each[status] for each in counts) for status in counts[0]}


def _write_counts(reports: Sequence[Report], quiet: bool, prefix: str = "") -> None:
    """The last line, apart from what stands above it."""
    if not quiet or any(report.findings for report in reports):
        write()
    write_line(prefix + ", ".join(f"{count} {_words(status)}" for status, count in _total(reports).items()))


def _why(check: Check) -> str:
    """The reason of a status; what failed has a block of its own."""
    return (_place(check) or "see below") if check.status == "failed" else check.message


def _cut(text: str) -> str:
    """A text as far as it is shown; all of it is in the JSON document."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _place(check: Check) -> str:
    """File and line, as seen from the working folder."""
    if not check.file:
        return ""
    path, here = Path(os.path.realpath(check.file)), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else Path(check.file)
    return f"{shown}:{check.line}" if check.line else str(shown)


def _words(status: str) -> str:
    return status.replace("_", " ")
