"""Imports every component in processes of their own: what crashes, exits or hangs is a finding."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from losskit.discover import Entry
from losskit.registry import Problem, Spec, current
from losskit.validation.process import Process, ending

__all__ = ["import_all"]


def import_all(time_limit: float) -> list[Problem]:
    """Import all components, hooks and commands that may be used; what is wrong with them.

    Args:
        time_limit: seconds for each of them.
    """
    registry = current()
    usable: list[Spec | Entry] = [spec for spec in registry.specs if spec.status in ("ok", "ambiguous")]
    behaviour = [*registry.entries("hooks"), *registry.entries("command")]
    usable += [entry for entry in behaviour if registry.obstacle(entry) is None]
    usable.sort(key=lambda item: item.provider)
    found = []
    for _, group in groupby(usable, key=lambda item: item.provider):
        rest = list(group)
        while rest:
            # What ends a process is held against the component it was at; another process goes on behind that one.
            outcomes = list(_imported(rest, time_limit))
            found += [_problem(item, failure) for item, failure in zip(rest, outcomes, strict=False) if failure]
            rest = rest[len(outcomes) :]
    return found


class Failure(NamedTuple):
    """Why importing failed, and what may help."""

    reason: str
    fix: str


def _imported(items: Sequence[Spec | Entry], time_limit: float) -> Iterator[Failure | None]:
    """What came of importing each of the items, up to one that ended the process."""
    process = Process("losskit_cli.importer")
    try:
        with process.stdin as pipe:
            pickle.dump([(item if isinstance(item, Spec) else None, item.target) for item in items], pipe)
        for _ in items:
            line = process.line(time_limit)
            if not line:
                yield Failure(f"importing it ended Python {ending(process.wait())}", "report it to its authors")
                return
            error = json.loads(line)
            yield Failure(**error) if error else None
    except TimeoutError:
        yield Failure(f"importing it did not end within {time_limit:g} seconds", "report it, or raise --time-limit")
    finally:
        process.kill()


def _problem(item: Spec | Entry, failure: Failure) -> Problem:
    file, line = (item.file, item.line) if isinstance(item, Spec) else (None, None)
    return Problem(item.provider, item.version, item.target, "broken", failure.reason, failure.fix, file, line)
