"""`losskit validate`: whether a component keeps the laws, in processes that it may crash."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from losskit.card import FAMILIES, KINDS, LABELS
from losskit.errors import RecipeError, brief, check_choice, did_you_mean
from losskit.validation import LEVELS, Report, Target, all_targets, resolve, validate_all
from losskit.validation import validate as validate_one
from losskit.validation.ids import CHECKS
from losskit.validation.run import TIME_LIMIT

from .list import among
from .output import say, write_json, write_row, write_table
from .reports import COLUMNS, junit_of, record_all, row, too_few, write_all, write_report
from .show import complete_component

if TYPE_CHECKING:
    from .progress import CheckBar

__all__ = ["validate"]

OPTION = re.compile(r"[A-Za-z_][\w.]*=")


def validate(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET | KEY=VALUE",
            help="A name, kind:name, distribution/name, class name, module:Class or path/file.py[:Class], and options "
            "of its constructor",
            show_default=False,
            autocompletion=complete_component,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every installed component")] = False,
    kind: Annotated[str | None, typer.Option(help="One of: " + ", ".join(KINDS), autocompletion=among(KINDS))] = None,
    level: Annotated[
        str,
        typer.Option(
            help="One of: " + ", ".join(LEVELS) + "; each includes those before it", autocompletion=among(LEVELS)
        ),
    ] = "numeric",
    select: Annotated[str, typer.Option(metavar="IDS", help="Only these checks (a,b)")] = "",
    inputs: Annotated[
        str, typer.Option(metavar="NAMES", help="Columns of the data, such as 'anchor,positive,negative*'")
    ] = "",
    labels: Annotated[str, typer.Option(help="Labels of the data", autocompletion=among(LABELS))] = "",
    encoder: Annotated[str, typer.Option(help="One of: " + ", ".join(FAMILIES), autocompletion=among(FAMILIES))] = "",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of encoders and data")] = 0,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that one check may take")] = TIME_LIMIT,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="With --all: how many at a time; one per core without it")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JUnit's XML")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Findings and counts only, and no bar")] = False,
) -> None:
    """Check a component, or all of them; exit with 1 on findings, with 4 if too few checks ran."""
    check_choice("--level", level, LEVELS)
    settings: dict[str, Any] = {"level": level, "only": _ids(select), "seed": seed, "time_limit": time_limit}
    described: dict[str, Any] = {"inputs": inputs.replace(",", " ").split(), "labels": labels, "encoder": encoder}
    targets = _targets(arguments or [], everything, kind, described)
    from .progress import CheckBar

    with _replacing(junit) as publish:
        with CheckBar(quiet, len(targets) if everything else None) as bar:
            if everything:
                reports = _run_all(targets, settings, jobs, bar, rows=not (as_json or quiet))
            else:
                reports = [validate_one(targets[0], on_check=bar.begin, **settings)]
        publish(reports)
    if as_json:
        write_json(record_all(reports, level, seed) if everything else reports[0].to_dict())
    elif everything:
        write_all(reports, quiet)
    else:
        write_report(reports[0], quiet)
    _leave(reports)


def _targets(
    arguments: Sequence[str], everything: bool, kind: str | None, described: Mapping[str, Any]
) -> list[Target]:
    """What is validated."""
    options = [each for each in arguments if OPTION.match(each)]
    references = [each for each in arguments if not OPTION.match(each)]
    if everything:
        beside = [*arguments, *(f"--{name}" for name, value in described.items() if value)]
        if beside:
            raise RecipeError("--all", expected="no target beside it, nor what describes one", got=beside[0])
        found = all_targets(kind)
        if not found:
            say("nothing matched")
            raise typer.Exit(4)
        return found
    if len(references) != 1:
        got = ", ".join(references) or "none"
        fix = "" if references else "losskit list shows what there is"
        raise RecipeError("TARGET", expected="one component, or --all", got=got, fix=fix)
    return [resolve(references[0], kind=kind, options=_options(options), **described)]


def _options(given: Sequence[str]) -> dict[str, Any]:
    """Options of the constructor; values are YAML."""
    if not given:
        return {}
    from losskit.recipe import read_options

    return read_options(given)


def _ids(select: str) -> list[str]:
    """Ids of checks; those of other packages, `distribution/check`, are known only once these are loaded."""
    ids = select.replace(",", " ").split()
    for each in ids:
        if each not in CHECKS and "/" not in each:
            raise RecipeError("--select", expected="ids of checks", got=repr(each), fix=did_you_mean(each, CHECKS))
    return ids


def _run_all(
    targets: Sequence[Target], settings: Mapping[str, Any], jobs: int | None, bar: CheckBar, rows: bool
) -> list[Report]:
    """The reports of several targets; a pipe gets the row of each as soon as it is there, a terminal all at the end."""
    streamed = rows and not sys.stdout.isatty()
    lock = threading.Lock()

    def done(report: Report) -> None:
        with lock:
            bar.end(report.target)
            if streamed:
                write_row(row(report))

    if streamed:
        write_row([name.upper() for name in COLUMNS])
    reports = validate_all(targets, jobs=jobs, on_report=done, **settings)
    if rows and not streamed:
        write_table(COLUMNS, map(row, reports), sections=True)
    return reports


@contextlib.contextmanager
def _replacing(path: Path | None) -> Iterator[Callable[[Sequence[Report]], None]]:
    """What writes JUnit's XML as a whole; a place that cannot be written is refused before anything is checked."""
    if path is None:
        yield lambda reports: None
        return
    with _told(path):
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        draft = path.with_name(f".{path.name}-{os.getpid()}")
        draft.touch()

    def publish(reports: Sequence[Report]) -> None:
        with _told(path):
            draft.write_bytes(junit_of(reports))
            draft.replace(path)

    try:
        yield publish
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        expected = "a file in a folder that can be written"
        raise RecipeError(f"--junit {path}", expected=expected, got=brief(error)) from None


def _leave(reports: Sequence[Report]) -> None:
    """Say what stands in no report, and exit as they ask."""
    for problem in dict.fromkeys(problem for report in reports for problem in report.problems):
        say(problem)
    lacking = too_few(reports)
    for reason in lacking:
        say(f"too few checks ran: {reason}")
    if any(report.findings for report in reports):
        raise typer.Exit(1)
    if lacking:
        raise typer.Exit(4)
