"""Runs levels of a validation in processes of their own: `python -m losskit.validation`.

Reads pickled jobs from stdin, one after the other, and writes lines of JSON to what stdout was at the start:

    {"pid": 123}        the process that a job runs in
    {"kind": "loss", "plain": false}
    {"start": "meta"}   a check begins
    {"check": {...}}    what came of it
    {"end": 0, "tail": ""}     how the process ended, and what it wrote last

Where the system can, a process that has imported torch once forks one for each job; elsewhere jobs run in this one.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

from .report import Check
from .target import Job

TAIL = 2_000
"""How much of what a job wrote is told."""


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
            import losskit.testing.examine  # noqa: F401 - so that each process need not import torch again
        with tempfile.TemporaryFile() as said:
            _serve(job, results, said)


def _serve(job: Job, results: IO[str], said: IO[bytes]) -> None:
    """Run one job, and say how it ended."""

    def tell(**line: Any) -> None:
        results.write(json.dumps(line) + "\n")
        results.flush()

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
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            tell(pid=os.getpid())
            _run(job, tell)
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
    tell(end=os.waitstatus_to_exitcode(status), tail=said.read().decode(errors="replace"))


def _run(job: Job, tell: Any) -> None:
    from .. import registry

    registry.refresh(job.policy)
    for found in _checks(job):
        if isinstance(found, Check):
            tell(check=asdict(found))
        else:
            tell(start=found)
    if job.level == "interface":
        from ..testing.examine import nature

        kind, plain = nature(job.target)
        tell(kind=kind, plain=plain)


def _checks(job: Job) -> Iterator[str | Check]:
    if job.level == "static":
        from .static import static_checks

        return iter(static_checks(job.target))
    from ..testing.examine import law_checks

    return law_checks(job.target, job.level, job.seed, done=job.done)


if __name__ == "__main__":
    main()
