"""Imports every component in processes of their own: what crashes, exits or hangs is a finding."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from losskit.discover import Entry
from losskit.registry import Problem, Spec, current
from losskit.validation.process import Process, ending

from .importer import usable

__all__ = ["import_all"]


def import_all(time_limit: float) -> list[Problem]:
    """Import all components, hooks and commands that may be used; what is wrong with them.

    Args:
        time_limit: seconds for each of them.
    """
    items = usable()
    importer = _Importer(time_limit)
    try:
        found = []
        # What losskit brings is imported together, and anything else as if it were alone.
        for _, group in groupby(range(len(items)), key=lambda place: items[place].builtin or place):
            rest = list(group)
            while rest:
                # What ends a process is held against the component it was at; another goes on behind that one.
                outcomes = list(importer.outcomes(items, rest))
                found += [_problem(items[at], bad) for at, bad in zip(rest, outcomes, strict=False) if bad]
                rest = rest[len(outcomes) :]
        return found
    finally:
        importer.close()


class _Importer:
    """A process that imports, and another when that one has ended."""

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._process: Process | None = None

    def outcomes(self, items: Sequence[Spec | Entry], places: Sequence[int]) -> Iterator[dict[str, str] | None]:
        """What came of importing each of a group, up to one that ended the process."""
        if self._process is None:
            self._process = Process("losskit_cli.importer")
            self._send(current().policy)
        self._send(places)
        begun = self._told(None)
        if "pid" not in begun:
            yield _crash(items[places[0]], begun["end"])
            return
        left = list(places)
        try:
            while left:
                told = self._told(self._time_limit)
                if "failure" not in told:
                    yield _crash(items[left[0]], told["end"])
                    return
                left.pop(0)
                yield told["failure"]
        except TimeoutError:
            reason = f"importing it did not end within {self._time_limit:g} seconds"
            yield _failure(reason, f"raise --time-limit if it only needs longer, else block {items[left[0]].provider}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(begun["pid"], signal.SIGKILL) if os.name == "posix" else self.close()
        while "end" not in self._told(None):
            pass

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _send(self, value: Any) -> None:
        assert self._process is not None
        with contextlib.suppress(BrokenPipeError):  # that it has ended is seen as its answer is missing
            pickle.dump(value, self._process.stdin)
            self._process.stdin.flush()

    def _told(self, time_limit: float | None) -> dict[str, Any]:
        """What it tells next, or how it ended, which is then the last."""
        if self._process is None:
            return {"end": 1}
        line = self._process.line(float("inf") if time_limit is None else time_limit)
        if line:
            told: dict[str, Any] = json.loads(line)
            return told
        code = self._process.wait()
        self.close()
        return {"end": code}


def _failure(reason: str, fix: str) -> dict[str, str]:
    return {"status": "broken", "reason": reason, "fix": fix}


def _crash(item: Spec | Entry, code: int) -> dict[str, str]:
    fix = f"block {item.provider}, and report it to its authors"
    return _failure(f"importing it ended Python {ending(code)}", fix)


def _problem(item: Spec | Entry, failure: dict[str, str]) -> Problem:
    file, line = (item.file, item.line) if isinstance(item, Spec) else (None, None)
    return Problem(item.provider, item.version, item.target, **failure, file=file, line=line)
