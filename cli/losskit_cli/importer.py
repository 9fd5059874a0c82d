"""Imports components for `doctor --load`, in processes that they may crash.

Reads a pickled policy and how many are to be imported at a time, by their places in `usable`, from stdin. Writes
lines of JSON to what stdout was at the start:

    {"pid": 123}                         the process that a group of them is imported in
    {"failure": null}                    one was imported
    {"failure": {"status", ...}}         what went wrong with it
    {"end": 0}                           how that process ended

Where the system can, a process that has imported torch once forks one for each group, so that what one of them
does to its process is nobody else's problem. What they print is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from losskit import registry
from losskit.discover import Entry
from losskit.errors import PluginError, brief
from losskit.hooks import Hooks
from losskit.registry import Spec

Tell = Callable[..., None]
ALONE = "alone"
"""The argument that says to import nothing before."""


def usable() -> list[Spec | Entry]:
    """All components, hooks and commands that may be imported, those of a distribution together."""
    current = registry.current()
    found: list[Spec | Entry] = [spec for spec in current.specs if spec.status in ("ok", "ambiguous")]
    behaviour = [*current.entries("hooks"), *current.entries("command")]
    found += [entry for entry in behaviour if current.obstacle(entry) is None]
    return sorted(found, key=lambda item: item.provider)


def main() -> None:
    """Serve until stdin ends."""
    # Torch reads everybody's entry points as it is imported; one that cannot be read is told of by itself.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    if hasattr(os, "fork") and ALONE not in sys.argv:
        try:
            import losskit.loss  # noqa: F401 - and torch with it, once for all
        except BaseException:  # noqa: BLE001 - each that needs it tells so itself, but not from where this has come to
            os.execv(sys.executable, [sys.executable, "-P", "-m", "losskit_cli.importer", ALONE])
    results, jobs = os.dup(1), os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    encode, write = json.dumps, os.write

    def tell(**line: Any) -> None:
        write(results, encode(line).encode() + b"\n")

    registry.refresh(pickle.load(jobs))
    items = usable()
    with contextlib.suppress(EOFError):
        while True:
            _serve([items[place] for place in pickle.load(jobs)], tell)


def _serve(items: Sequence[Spec | Entry], tell: Tell) -> None:
    """Import a group, in a process of its own where there can be one."""
    pid = os.fork() if hasattr(os, "fork") else None
    if pid:
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # what it started and left behind
        tell(end=os.waitstatus_to_exitcode(status))
        return
    leave, code = os._exit, 1
    try:
        if pid == 0:
            os.setsid()
        tell(pid=os.getpid())
        for item in items:
            tell(failure=_failure(item))
        code = 0
    finally:
        if pid == 0:
            leave(code)
    tell(end=0)


def _failure(item: Spec | Entry) -> dict[str, str] | None:
    """What goes wrong as it is imported."""
    try:
        if isinstance(item, Spec):
            item.load()
        elif item.kind == "hooks":
            hooks = Hooks(entries=[item])
            for problem in hooks.problems:
                return {"status": problem.status, "reason": problem.reason, "fix": problem.fix}
        else:
            from .app import command_from

            command_from(item.name, item.load())
    except PluginError as raised:
        return {"status": "broken", "reason": raised.got, "fix": raised.fix}
    except BaseException as raised:  # noqa: BLE001 - nothing that one raises may end the others
        fix = f"report it to the authors of {item.provider}, or block it"
        return {"status": "broken", "reason": f"{brief(raised)} at import", "fix": fix}
    return None


if __name__ == "__main__":
    main()
