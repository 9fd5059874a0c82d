"""A Python process that runs what may crash, hang or exit, and that answers in lines."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

__all__ = ["Process", "ending"]


class Process:
    """A process of the module `module`, in a session of its own, on this process's `sys.path`.

    Args:
        module: what `python -m` runs.
        arguments: of it.
    """

    def __init__(self, module: str, arguments: Sequence[str] = ()) -> None:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()

    @property
    def stdin(self) -> IO[bytes]:
        """Where it reads."""
        assert self._process.stdin is not None
        return self._process.stdin

    def line(self, timeout: float) -> bytes:
        """The next line, empty once it has ended.

        Raises:
            TimeoutError: none came in time.
        """
        try:
            return self._lines.get(timeout=min(max(timeout, 0), threading.TIMEOUT_MAX))
        except queue.Empty:
            raise TimeoutError from None

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()

    def kill(self, grace: float = 0.0) -> None:
        """End it and what it started, after so many seconds in which it may tidy up, as nothing more comes."""
        with contextlib.suppress(OSError):
            self.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL) if os.name == "posix" else self._process.kill()
        self._process.wait()


def _read(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Hand lines on, at last an empty one."""
    with stream:
        for line in iter(stream.readline, b""):
            lines.put(line)
    lines.put(b"")


def ending(code: int) -> str:
    """How a process ended, in words.

    >>> ending(-6), ending(3)
    ('by SIGABRT', 'with exit code 3')
    """
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
