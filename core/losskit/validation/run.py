"""Validates components level by level, in processes that they may crash."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Self

from ..errors import RecipeError
from ..registry import current
from ..spec import Problem
from .ids import HOOKS
from .process import Process, ending
from .report import LEVELS, Check, Level, Report
from .target import Job, Target, resolve

__all__ = ["TIME_LIMIT", "validate", "validate_all"]

TIME_LIMIT = 60.0
"""Seconds that one check may take."""
START = 600.0
"""Seconds that a worker may take to import torch."""
PATIENCE = {"full": 5, "gpu": 5}
"""How many such limits a check of a level may take that starts processes and trainers."""
PER_LEVEL = 10
"""How many such limits a level may take in all."""
RESTARTS = 3
"""How often a level goes on behind a check that ended its process."""
FIRST = ("import", "constructor")
"""The checks that all others wait for."""
AN_END = "an end"
GRACE = 2.0
"""Seconds in which a worker may tidy up what a job left that was ended."""


def validate(
    target: str | Target,
    *,
    level: Level = "numeric",
    only: Collection[str] = (),
    seed: int = 0,
    time_limit: float = TIME_LIMIT,
    on_check: Callable[[str], None] = lambda check: None,
    **given: Any,
) -> Report:
    """Check a component level by level, each in a process of its own: a crash or a hang is a finding.

    Args:
        target: a name, `kind:name`, `distribution/name`, class name, `module:Class`, `path/file.py:Class`, or what
            `resolve` made of one.
        level: "static" (nothing is imported), "interface", "numeric" (gradients, laws, robustness, precision, cost),
            "full" (compilation, two processes, trainers) or "gpu"; includes those before it.
        only: ids of checks; none: all.
        seed: of encoders and data.
        time_limit: seconds that one check may take, five times as long above the level "numeric"; a level ten times
            that.
        on_check: called with the id of each check that begins.
        given: further arguments of `resolve`: kind, options, inputs, labels, encoder.

    Raises:
        LosskitError: the reference, or what is given beside it, is wrong.
    """
    target = target if isinstance(target, Target) else resolve(target, **given)
    with _Server() as server:
        return _validated(server, target, level, only, seed, time_limit, on_check)


def validate_all(
    targets: Sequence[Target],
    *,
    level: Level = "numeric",
    only: Collection[str] = (),
    seed: int = 0,
    time_limit: float = TIME_LIMIT,
    jobs: int | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
) -> list[Report]:
    """Check several components, some at a time.

    Args:
        targets: what is checked; the reports are in their order.
        level: as in `validate`.
        only: as in `validate`.
        seed: as in `validate`.
        time_limit: as in `validate`.
        jobs: how many at a time; None: one per core.
        on_report: called with each report when it is there, from any thread.
    """
    count = max(1, min(jobs or os.cpu_count() or 1, len(targets)))
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(_Server()) for _ in range(count)]
        idle: SimpleQueue[_Server] = SimpleQueue()
        for server in servers:
            idle.put(server)

        def run(target: Target) -> Report:
            server = idle.get()
            try:
                report = _validated(server, target, level, only, seed, time_limit)
            finally:
                idle.put(server)
            on_report(report)
            return report

        pool = stack.enter_context(ThreadPoolExecutor(count))
        try:
            return list(pool.map(run, targets))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for server in servers:  # else the pool would wait for what they run
                server.close()
            raise


class _Server:
    """A worker that is started when it is needed, and again once it has ended; any thread may close it."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._job = 0
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and the job that it runs; no other may start."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        with self._lock:
            if self._process is not None:
                _end(self._job)
                self._process.kill(GRACE if self._job else 0.0)
            self._process, self._job = None, 0

    def _started(self) -> Process:
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._process is None:
                self._process = Process("losskit.validation")
            return self._process

    def run(self, job: Job, time_limit: float) -> Iterator[dict[str, Any]]:
        """The lines that a job gives; at last `{"end": why it did not come to its own end, "tail": ...}`."""
        process = self._started()
        pickle.dump(job, process.stdin)
        process.stdin.flush()
        end = math.inf
        limit = START
        whole = False
        while True:
            try:
                line = process.line(min(limit, end - time.monotonic()))
            except TimeoutError:
                self._stop()
                reason = f"it did not end within {limit:g} seconds"
                if time.monotonic() >= end:
                    reason = f"the level did not end within {time_limit * PER_LEVEL:g} seconds"
                yield {"end": reason, "tail": ""}
                return
            if self._closed:
                raise CancelledError
            if not line:
                code = process.wait()
                self._stop()
                yield {"end": f"it ended Python {ending(code)}", "tail": ""}
                return
            told = _told(line)
            if not told:
                self._stop()
                yield {"end": "it wrote to the pipe that carries the results", "tail": ""}
                return
            if "end" in told:
                self._job = 0
                fine = whole and told["end"] == 0  # else it may have left in the midst of a check
                yield {**told, "end": "" if fine else f"it ended Python {ending(told['end'])}"}
                return
            whole = whole or "whole" in told
            if "ready" in told:
                limit, end = time_limit, time.monotonic() + time_limit * PER_LEVEL
            self._job = told.get("pid", self._job)
            yield told


def _told(line: bytes) -> dict[str, Any]:
    """What a worker says; nothing if it does not come from there."""
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _end(pid: int) -> None:
    """End a job's process and what it started."""
    if pid and os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _validated(
    server: _Server,
    target: Target,
    level: Level,
    only: Collection[str],
    seed: int,
    time_limit: float,
    on_check: Callable[[str], None] = lambda check: None,
) -> Report:
    kind, plain = target.kind or "loss", False
    checks: list[Check] = []
    problems: list[Problem] = []
    for each in LEVELS[: LEVELS.index(level) + 1]:
        for told in _level(server, Job(target, each, seed, current().policy, frozenset(only)), time_limit):
            match told:
                case str():
                    on_check(told)
                case Check():
                    checks.append(told)
                case Problem():
                    problems.append(told)
                case _:
                    kind, plain = told
        if any(check.id in FIRST and check.expected == AN_END for check in checks):
            break  # what ends at its import ends at every level
    return Report(target.reference, kind, level, seed, tuple(checks), plain, bool(only), tuple(problems))


def _level(server: _Server, job: Job, time_limit: float) -> Iterator[str | Check | Problem | tuple[str, bool]]:
    """The checks of a level, each after its id; what ends its process is held against the check that was being made."""
    done: set[str] = set()
    for _ in range(RESTARTS + 1):
        now = "import"
        patience = PATIENCE.get(job.level, 1) * time_limit
        for told in server.run(replace(job, done=frozenset(done)), patience):
            if "start" in told:
                now = told["start"]
                yield now
            elif "refused" in told:
                culprit, expected, got, fix = told["refused"]
                raise RecipeError(culprit, expected=expected, got=got, fix=fix)
            elif "problem" in told:
                yield Problem(**told["problem"])
            elif "check" in told:
                check = Check(**told["check"])
                done.add(check.id)
                yield check
            elif "kind" in told:
                yield told["kind"], told["plain"]
            elif told.get("end"):
                yield _ended(job, now, told["end"], told["tail"])
                done.add(now)
            elif "end" in told:
                return
        if now in FIRST:
            return  # the other checks would end in the same way
    yield Check(
        f"{job.level}-level",
        None,
        "failed",
        f"{RESTARTS + 1} of its checks ended their process; the rest was not made",
        "checks that come to an end",
        "none",
        level=job.level,
    )


def _ended(job: Job, check: str, reason: str, tail: str) -> Check:
    spec = job.target.spec
    last = " ".join(tail.split())[-300:]
    said = f"; it last wrote: {last}" if last else ""
    cause = "code that aborts or exits, memory beyond all bounds, or processes and threads that wait for each other"
    where = spec.file, spec.line
    plugin, _, part = check.partition("/")
    if part == HOOKS:  # what another package does is not the component's fault
        where, cause = (None, None), f"the hooks of {plugin}: update it, or block it"
    return Check(check, None, "failed", reason + said, AN_END, "none", *where, cause=cause, level=job.level)
