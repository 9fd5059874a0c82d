"""Two processes in which a loss runs as in distributed training, asked from this one."""

from __future__ import annotations

import atexit
import contextlib
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import LosskitError, brief
from ..execution import Execution
from ..validation.findings import Skipped, Violation
from ..validation.process import Process, ending
from .compare import Result
from .forward_laws import forward
from .subject import Subject

__all__ = ["LIMIT", "WAIT", "WORLD", "Collectives", "Found", "Task", "answers"]

PROCESS = "losskit.testing.rank_process"
WORLD = 2
FORWARDS = 2
"""Of each task, so that what a loss remembers is compared too."""
WAIT = 15.0
"""Seconds that a process waits for the other in a collective call, which toys make within milliseconds."""
LIMIT = 120.0
"""Seconds for a list of tasks, of which most are the import of torch."""
COLLECTIVES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")


@dataclass(frozen=True)
class Found:
    """What came of a task in one process.

    Args:
        results: of its forwards.
        owned: buffers and parameters of the loss afterwards.
        collectives: how many collective calls were made.
        refused: the loss's reason not to run, or nothing.
    """

    results: Sequence[Result] = ()
    owned: dict[str, Tensor] = field(default_factory=dict)
    collectives: int = 0
    refused: str = ""


@dataclass(frozen=True)
class Task:
    """A batch cut in two, one part for each process.

    Args:
        subject: the loss and the whole batch.
        first: how many rows the first process has.
        execution: of the loss.
    """

    subject: Subject
    first: int
    execution: Execution

    def __str__(self) -> str:
        batch, execution = self.subject.batch, self.execution
        rows = f"{self.first} and {batch.rows - self.first} rows of {', '.join(batch.inputs)}"
        return f"{type(execution).__name__}(gather={execution.gather}) on {rows}"

    def run(self, rank: int | None = None) -> Found:
        """The forwards of one process on its rows; of none on all rows."""
        return self.counted(rank, Collectives())

    def counted(self, rank: int | None, calls: Collectives) -> Found:
        """The same, `calls` counting even where it raises."""
        loss, batch = self.subject.build(), self.subject.batch
        loss.execution = self.execution
        if rank is not None:
            batch = batch.take(range(batch.rows)[: self.first] if rank == 0 else range(batch.rows)[self.first :])
        try:
            with calls:
                results = [forward(self.subject, loss, batch) for _ in range(FORWARDS)]
        except LosskitError as error:
            if self.execution.gather:
                raise
            return Found(collectives=calls.count, refused=brief(error))
        return Found(results, {key: value.clone() for key, value in loss.owned_state().items()}, calls.count)


class Collectives(TorchDispatchMode):
    """Counts the collective calls that begin."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.namespace in COLLECTIVES
        return func(*args, **(kwargs or {}))


# Where the processes are asked


class _Ranks:
    """The processes, started once and asked as long as both answer."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="losskit-ranks-", ignore_cleanup_errors=True)
        self._processes = [Process(PROCESS, [self._folder.name, str(rank)]) for rank in range(WORLD)]

    def ask(self, job: bytes) -> list[dict[str, Any]]:
        """The answers of all processes to a pickled list of tasks.

        Raises:
            Violation: a process ends, or none answers in time.
        """
        deadline = time.monotonic() + LIMIT
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError):  # of one that has ended, which shows below
                process.stdin.write(job)
                process.stdin.flush()
        found = []
        for rank, process in enumerate(self._processes):
            try:
                line = process.line(deadline - time.monotonic())
            except TimeoutError:
                raise Violation(
                    f"process {rank} gives no answer within {LIMIT:g} seconds", "an answer", "none"
                ) from None
            if not line:
                raise Violation(f"process {rank} ends {ending(process.wait())}", "an answer", "none")
            found.append(json.loads(line))
        return found

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
        self._folder.cleanup()


_standing: list[_Ranks] = []
"""The processes that wait for the next tasks, if any do: to start them takes seconds."""


def answers(tasks: Sequence[Task]) -> list[list[Found]]:
    """For each task what came of it in each process; up to one with unequal numbers of collective calls.

    Raises:
        Violation: one of them fails, or they wait for each other.
        Skipped: there is no gloo, or the tasks cannot be sent to a process.
    """
    if not (dist.is_available() and dist.is_gloo_available()):
        raise Skipped("this torch is built without gloo")
    job = _sent(tasks)
    if not _standing:
        _standing.append(_Ranks())
    try:
        told = _standing[0].ask(job)
        _require_answers(told, tasks)
    except Exception:
        close()
        raise
    found = [pickle.loads(Path(each["file"]).read_bytes()) for each in told]
    if told[0]["done"] < len(tasks):
        close()
    return [list(each) for each in zip(*found, strict=True)]


@atexit.register
def close() -> None:
    """End the processes that wait for tasks."""
    while _standing:
        _standing.pop().close()


def _sent(tasks: Sequence[Task]) -> bytes:
    try:
        return pickle.dumps(list(tasks))
    except Exception as error:  # noqa: BLE001 - what pickle raises has no common type
        raise Skipped(f"it cannot be sent to other processes: {brief(error)}") from None


def _require_answers(told: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> None:
    """Raise what went wrong in one process, or between them."""
    unread = [each["unread"] for each in told if "unread" in each]
    if unread:
        raise Skipped(f"it cannot be read in other processes: {unread[0]}")
    bad = [(rank, each) for rank, each in enumerate(told) if "file" not in each]
    for rank, each in bad:
        if not each["waits"]:
            raise Violation(f"{tasks[each['task']]}: process {rank}: {each['error']}", "no error", each["error"])
    if bad:
        calls = " and ".join(str(each["collectives"]) for each in told if "file" not in each)
        got = f"{calls} calls begun" if len(bad) == len(told) else bad[0][1]["error"]
        message = f"no answer within {WAIT:g} seconds: the processes wait for each other"
        raise Violation(f"{tasks[bad[0][1]['task']]}: {message}", "as many collective calls in each process", got)
