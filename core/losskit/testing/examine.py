"""Runs all checks of a level on a component, in this process."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from ..discover import Entry
from ..errors import brief
from ..hooks import Hooks
from ..loss import Loss
from ..policy import normalize
from ..registry import current
from ..spec import Problem
from ..validation.findings import Violation
from ..validation.ids import HOOKS
from ..validation.importing import import_check
from ..validation.report import LEVELS, Check, Level, Report, merged
from ..validation.static import static_checks
from ..validation.target import Target, resolve
from .cases import UndescribedError, cases, component
from .catalogue import laws
from .law import Law
from .subject import Subject

__all__ = ["examine", "law_checks"]

SMALL = (1, 2, 3)
"""Numbers of rows that a failing example is tried with."""


def examine(
    target: str | Target, *, level: Level = "numeric", only: Collection[str] = (), seed: int = 0, **given: Any
) -> Report:
    """All checks of a component up to a level, in this process, which a bad component may end.

    `losskit.validation.validate` does the same in processes of their own.

    Args:
        target: a reference, or what `resolve` made of one.
        level: "static", "interface", "numeric", "full" or "gpu"; includes those before it.
        only: ids of checks; none: all.
        seed: of encoders and data.
        given: further arguments of `losskit.validation.resolve`.

    Raises:
        LosskitError: the reference or the options are wrong.

    >>> examine("weighting:ndcg-loss1").fine
    True
    """
    target = target if isinstance(target, Target) else resolve(target, **given)
    checks: list[Check] = []
    problems: list[Problem] = []
    for each in LEVELS[: LEVELS.index(level) + 1]:
        found = list(static_checks(target) if each == "static" else law_checks(target, each, seed, only=only))
        problems += [item for item in found if isinstance(item, Problem)]
        checks += [item for item in found if isinstance(item, Check) and (not only or item.id in only)]
    kind, plain = nature(target)
    return Report(target.reference, kind, level, seed, tuple(checks), plain, bool(only), tuple(problems))


def nature(target: Target) -> tuple[str, bool]:
    """The kind of a target that imports, and whether it is a plain module."""
    try:
        cls, kind = component(target)
    except (Exception, SystemExit):  # noqa: BLE001 - a finding of the checks, which say so
        return target.kind or "loss", False
    return kind, kind in ("loss", "wrapper") and not issubclass(cls, Loss)


def law_checks(
    target: Target, level: Level, seed: int, *, only: Collection[str] = (), done: Collection[str] = ()
) -> Iterator[str | Check | Problem]:
    """The checks of a level above "static": the id of each before it is made, and what came of it.

    Problems are those of plugins that bring further checks.

    Args:
        target: what is checked.
        level: whose checks.
        seed: of encoders and data.
        only: ids of checks; none: all.
        done: ids of checks that are left out, since they have been made.
    """
    first = level == "interface"
    if first and "import" not in done and (not only or "import" in only):
        yield "import"
        imported = merged([import_check(target.spec)], target.deviations)
        yield imported
        first = imported.fine  # what does not import is not said twice
    yield "constructor"
    try:
        subjects = cases(target, seed)
    except UndescribedError:
        raise
    except Violation as found:
        yield from [_unbuilt(target, str(found), found.expected, found.got)] if first else []
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's component may raise anything
        yield from [_unbuilt(target, brief(error), "a component", type(error).__name__)] if first else []
        return
    if level in ("full", "gpu"):  # what takes seconds is done once for each family
        subjects = list({each.family: each for each in reversed(subjects)}.values())[::-1]
    kind, deviations = subjects[0].kind, dict(getattr(subjects[0].card, "deviations", {}))
    further: list[Law] = []
    if level == "numeric":
        for provider, entries in groupby(current().entries("hooks"), key=lambda entry: normalize(entry.provider)):
            if f"{provider}/{HOOKS}" not in done:
                yield f"{provider}/{HOOKS}"
                theirs, problems = _hooked(kind, list(entries))
                further += theirs
                yield from problems
    for law in (*laws(kind, level), *further):
        if law.id not in done and (not only or law.id in only):
            yield law.id
            yield merged(list(_outcomes(law, subjects)), deviations)


def _unbuilt(target: Target, message: str, expected: str, got: str) -> Check:
    where = target.spec.file, target.spec.line
    cause = "options that are required and that the kit cannot make up, or a constructor that fails"
    return Check("constructor", None, "failed", message, expected, got, *where, cause=cause, level="interface")


def _outcomes(law: Law, subjects: Sequence[Subject]) -> Iterator[Check]:
    """What comes of a law on each subject, up to the first failure, by its smallest example."""
    for subject in subjects:
        found = law.outcome(subject)
        if found.status == "failed":
            yield _smallest(law, subject, found)
            return
        yield found


def _smallest(law: Law, subject: Subject, found: Check) -> Check:
    """The same failure with as few rows as will do."""
    for rows in SMALL if subject.kind != "encoder" else ():
        smaller = replace(subject, rows=rows)
        again = law.outcome(smaller)
        if again.status == "failed" and _gist(again) == _gist(found):
            return replace(again, subject=f"{smaller}: {_shown(smaller)}")
    return found


def _gist(check: Check) -> str:
    return re.split(r"[\d:\[]", check.message)[0]


def _shown(subject: Subject) -> str:
    """The data of a subject in a few words."""
    batch = subject.batch
    parts = [f"{name} {list(column)}" for name, column in zip(batch.inputs, batch.columns, strict=True)]
    labels = batch.flat_labels
    parts += [] if labels is None else [f"labels {[round(each, 3) for each in labels.flatten().tolist()]}"]
    text = ", ".join(parts)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _hooked(kind: str, entries: Sequence[Entry]) -> tuple[list[Law], list[Problem]]:
    """The checks of this kind that a package brings, and what is wrong with them."""
    hooks = Hooks(entries=entries)
    found, problems = [], []
    for entry, law in hooks.call("losskit_checks"):
        if not isinstance(law, Law):
            reason = f"losskit_checks gives an object of type {type(law).__name__}, no law of losskit.testing"
            problems.append(entry.problem("broken", reason, f"update {entry.provider}, or block it"))
        elif kind in law.kinds:
            found.append(replace(law, id=f"{normalize(entry.provider)}/{law.id}"))
    return found, [*hooks.problems, *problems]
