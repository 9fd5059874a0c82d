"""One of the processes of `ranks`: `python -m losskit.testing.rank_process FOLDER RANK`.

It reads pickled lists of tasks from stdin and answers each with a line of JSON: the file that holds what it found, or
what went wrong. It ends with its stdin, and after an error.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist

from ..errors import brief
from ..spec import file_of, load_target
from .ranks import LIMIT, WAIT, WORLD, Collectives, Found, Task

__all__: list[str] = []


class _Waits(Exception):  # noqa: N818 - what the processes wait for tells the story
    """The other process does not come."""


class _Unpickler(pickle.Unpickler):
    """Finds classes of files that this process has not loaded yet, too."""

    def find_class(self, module: str, name: str) -> Any:
        file = file_of(module)
        if file is not None:
            return load_target(f"{file}:{name}")
        return super().find_class(module, name)


class _Store:
    """Where the processes meet without collective calls."""

    def __init__(self, folder: str, rank: int) -> None:
        self.store = dist.FileStore(f"{folder}/store", WORLD)  # type: ignore[attr-defined]
        self.rank = rank

    def meet(self, place: str, told: object, seconds: float) -> str:
        """What the other process tells at a place.

        Raises:
            _Waits: it does not come.
        """
        self.store.set(f"{place}/{self.rank}", str(told))
        other = f"{place}/{1 - self.rank}"
        try:
            self.store.wait([other], timedelta(seconds=seconds))
        except RuntimeError:
            raise _Waits("it waits at the end of the task") from None
        return str(self.store.get(other).decode())


def _answer(tasks: Sequence[Task], job: int, store: _Store, file: Path) -> dict[str, Any]:
    found: list[Found] = []
    calls = Collectives()
    try:
        subject = tasks[0].subject
        subject.records(subject.build())  # imports what the first forward would, while the other process waits
        store.meet(f"{job}", "ready", LIMIT)
        for place, task in enumerate(tasks):
            calls = Collectives()
            made = task.counted(store.rank, calls)
            other = store.meet(f"{job}/{place}", calls.count, WAIT)
            found.append(made)
            if other != str(calls.count):
                break  # what is called next would meet what the other process called last
        file.write_bytes(pickle.dumps(found))
    except Exception as error:  # noqa: BLE001 - a stranger's loss may raise anything
        waits = isinstance(error, _Waits) or "gloo" in str(error)
        return {"task": len(found), "error": brief(error), "waits": waits, "collectives": calls.count}
    return {"file": str(file), "done": len(found)}


def main(folder: str, rank: int, jobs: IO[bytes], results: IO[str]) -> None:
    """Serve until `jobs` ends, or an error."""
    torch.set_num_threads(1)
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:  # gloo would look for this machine's name in the network
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    store = _Store(folder, rank)
    store.meet("up", "", LIMIT)
    dist.init_process_group("gloo", store=store.store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=WAIT))
    answer: dict[str, Any]
    for job in range(sys.maxsize):
        try:
            tasks = _Unpickler(jobs).load()
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001 - importing a stranger's module may raise anything
            tasks, answer = (), {"unread": brief(error)}
        else:
            answer = _answer(tasks, job, store, Path(folder) / f"{job}-{rank}")
        results.write(json.dumps(answer) + "\n")
        results.flush()
        if answer.get("done") != len(tasks):
            return


if __name__ == "__main__":
    _results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    main(sys.argv[1], int(sys.argv[2]), sys.stdin.buffer, _results)
