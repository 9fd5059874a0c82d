"""Runs levels of a validation in processes of their own: `python -m losskit.validation`.

Reads pickled jobs from stdin, one after the other, and writes lines of JSON to what stdout was at the start:

    {"ready": true}     a job begins
    {"pid": 123}        the process that it runs in
    {"kind": "loss", "plain": false}
    {"start": "meta"}   a check begins
    {"check": {...}}    what came of it
    {"refused": [...]}  what is wrong with what was asked for: culprit, expected, got and fix
    {"problem": {...}}  of a plugin that brings further checks
    {"whole": true}     all checks were made
    {"end": 0, "tail": ""}     how the process ended, and what it wrote last

Where the system can, a process that has imported torch once forks one for each job; elsewhere jobs run in this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

from ..errors import LosskitError
from ..spec import Problem
from .report import Check
from .target import Job

TAIL = 2_000
"""How much of what a job wrote is told."""
LARGEST_FILE = 1 << 30
"""Bytes that a job may write into one file, such as what it prints."""
POLL_MS = 10
"""How often it is looked whether a job has ended."""
THREADS = 1
"""Of torch: toys are too small for more, which would wait for each other, and add up in another order elsewhere."""


def main() -> None:
    """Serve until stdin ends."""
    results = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    jobs = os.fdopen(os.dup(0), "rb")
    os.dup2(quiet, 0)
    while True:
        try:
            job: Job = pickle.load(jobs)
        except EOFError:
            return
        if job.level != "static":
            # What checks import, some of it only at the first operation on the meta device, is imported once for all.
            import torch
            import torch._dynamo

            import losskit.testing.examine  # noqa: F401

            torch.set_num_threads(THREADS)
        with tempfile.TemporaryFile() as said:
            _serve(job, results, said)


def _serve(job: Job, results: IO[str], said: IO[bytes]) -> None:
    """Run one job, and say how it ended."""

    def tell(**line: Any) -> None:
        results.write(json.dumps(line) + "\n")
        results.flush()

    tell(ready=True)
    if not hasattr(os, "fork"):
        tell(pid=os.getpid())
        _run(job, tell)
        tell(end=0, tail="")
        return
    folder = tempfile.mkdtemp(prefix="losskit-")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            os.environ["TMPDIR"] = tempfile.tempdir = folder
            _limit_files()
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            tell(pid=os.getpid())
            _run(job, tell)
            code = 0
        except LosskitError as error:
            tell(refused=[error.culprit, error.expected, error.got, error.fix])
            code = 0
        except BaseException:  # noqa: BLE001 - whatever ends it is told with what it wrote last
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = _ended(pid, results)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it started and left behind
    shutil.rmtree(folder, ignore_errors=True)
    said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
    tell(end=os.waitstatus_to_exitcode(status), tail=said.read().decode(errors="replace"))


def _limit_files() -> None:
    import resource  # which not every system has

    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))


def _ended(pid: int, results: IO[str]) -> int:
    """How a job ended, which it is made to once nobody reads what comes of it; what it left running ends too."""
    reader = select.poll()
    reader.register(results, 0)  # that it has gone is told in any case
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended or reader.poll(POLL_MS):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if ended:
            return status


def _run(job: Job, tell: Any) -> None:
    from .. import registry

    registry.refresh(job.policy)
    for found in _checks(job):
        if isinstance(found, Check):
            tell(check=asdict(found))
        elif isinstance(found, Problem):
            tell(problem=found.to_dict())
        else:
            tell(start=found)
    if job.level == "interface":
        from ..testing.examine import nature

        kind, plain = nature(job.target)
        tell(kind=kind, plain=plain)
    tell(whole=True)


def _checks(job: Job) -> Iterator[str | Check | Problem]:
    if job.level == "static":
        from .static import static_checks

        return (each for each in static_checks(job.target) if not job.only or each.id in job.only)
    from ..testing.examine import law_checks

    return law_checks(job.target, job.level, job.seed, only=job.only, done=job.done)


if __name__ == "__main__":
    main()
