"""Acts that Python announces to audit hooks, and whose they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Acts", "watching"]

Acts = list[tuple[str, str, int]]
"""What was done, in which file, and at which line."""
Place = Callable[[FrameType | None], tuple[str, int] | None]

_watches: list[tuple[Place, Acts]] = []
"""Those in progress: a hook cannot be taken away again."""
_hooked: list[bool] = []


@contextmanager
def watching(place: Place) -> Iterator[Acts]:
    """What is done meanwhile that importing should not do.

    Args:
        place: from the frame of an act the file and line to blame, or nothing.
    """
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    acts: Acts = []
    _watches.append((place, acts))
    try:
        yield acts
    finally:
        _watches.pop()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches or event not in _ACTS or (event == "open" and not _writes(*arguments)):
        return
    place, acts = _watches[-1]
    found = place(sys._getframe(1))
    if found is not None:
        acts.append((_ACTS[event], *found))


def _writes(path: object, mode: str | None, flags: int) -> bool:
    """Whether a file is opened for writing; a number is a file that is open."""
    if isinstance(path, int) or path == os.devnull:
        return False
    if mode is None:
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return bool(set(mode) & set("wax+"))


_ACTS = {
    **dict.fromkeys(
        ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"), "reaches for the network"
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec"), "starts a process"
    ),
    **dict.fromkeys(
        ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate"),
        "writes files",
    ),
}
"""What is held against a component, by the events of Python's audit."""
