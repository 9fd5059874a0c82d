"""The check `import`: loading a component's module leaves the process, its files and the network alone."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType, TracebackType
from typing import Any

from ..cache import Cache
from ..card import Card
from ..errors import brief, is_interrupt
from ..source import Sources, UnreadableError
from ..spec import Spec, load_target
from .acts import watching
from .findings import Violation, concluded
from .process_state import difference, process_state
from .report import Check

__all__ = ["import_check"]

CAUSE = "work at import that belongs into a constructor or a function"
TOLD = 80
"""How many characters of what was written are told."""


def import_check(spec: Spec) -> Check:
    """Importing it writes nothing and leaves the process, its files, connections and children as they are.

    To be called in a process of its own. What other packages do while they are imported is not held against the
    component: what its modules import from them is imported before, and only acts of the component's own code count.
    """
    check = Check("import", None, "passed", cause=CAUSE, level="interface")
    own = _Own(spec)
    if own.imported:
        reason = "it was imported in this process before"
        return Check("import", None, "skipped", reason, level="interface")
    own.preload()
    return concluded(check, list(_observed(spec, own)))


def _observed(spec: Spec, own: _Own) -> Iterator[Violation]:
    before = process_state()
    with _written() as written, watching(own.place) as acts:
        value: Any = None
        error: BaseException | None = None
        try:
            value = load_target(spec.target)
        except BaseException as raised:
            if is_interrupt(raised):
                raise
            error = raised
    if error is not None:
        line = own.line(error.__traceback__)
        yield Violation(brief(error), "an import", type(error).__name__, file=own.file, line=line)
    for what, file, line in dict.fromkeys(acts):
        yield Violation(f"importing it {what}", "no such thing at import", what, file=file, line=line)
    if written:
        text = " ".join(written[0].split())
        shown = repr(text if len(text) <= TOLD else f"{text[: TOLD - 3]}...")
        yield Violation("importing it writes to stdout or stderr", "nothing", shown, file=own.file, line=spec.line)
    after = process_state()
    for name, old in before.items():
        if after[name] != old:
            got = difference(old, after[name])
            yield Violation(f"importing it changes {name}", "as before", got, file=own.file, line=spec.line)
    if error is None:
        yield from _unlike(spec, value, own)


def _unlike(spec: Spec, value: Any, own: _Own) -> Iterator[Violation]:
    """What the module gives differs from what its source states."""
    if not isinstance(value, type):
        yield Violation("the target is no class", "a class", type(value).__name__, file=own.file, line=spec.line)
    found = getattr(value, "card", None)
    if spec.card is not None and found != spec.card:
        got = "another card" if isinstance(found, Card) else type(found).__name__
        message = "the card is not what its source states"
        yield Violation(message, "the card that is read without importing", got, file=own.file, line=spec.line)


class _Own:
    """The code that belongs to a component: its package, or its file."""

    def __init__(self, spec: Spec) -> None:
        self.file = spec.file
        self.module = spec.target.rpartition(":")[0]
        self._top = self.module.partition(".")[0]
        self._sources = Sources(Cache())
        self._roots = self._folders()

    def _folders(self) -> tuple[str, ...]:
        if self.module.endswith(".py"):
            return (os.path.realpath(self.module),)
        try:
            spec = self._sources.locate(self._top)
        except UnreadableError:
            return ()
        folders = spec.submodule_search_locations
        return tuple(f"{each}{os.sep}" for each in folders) if folders else (str(spec.origin),)

    @property
    def imported(self) -> bool:
        """Whether it was imported before, so that there is nothing to observe."""
        try:
            file = self._sources.locate(self.module).origin
        except UnreadableError:
            return False
        return any(getattr(each, "__file__", None) == file for each in list(sys.modules.values()))

    def has(self, code: CodeType) -> bool:
        """Whether some code belongs to it."""
        return bool(self._roots) and code.co_filename.startswith(self._roots)

    def place(self, frame: FrameType | None) -> tuple[str, int] | None:
        """The line of its code that brings about what happens in a frame, unless another import comes between."""
        while frame is not None:
            code = frame.f_code
            if self.has(code):
                return code.co_filename, frame.f_lineno
            if code.co_filename.startswith("<frozen importlib"):
                return None
            frame = frame.f_back
        return None

    def line(self, trace: TracebackType | None) -> int | None:
        """The innermost line of the component's file that an error came through."""
        found = None
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.file:
                found = trace.tb_lineno
            trace = trace.tb_next
        return found

    def preload(self) -> None:
        """Import what the kit needs, and what the component's modules import from elsewhere."""
        for name in ("losskit.testing", *self._foreign()):
            _import_quietly(name)

    def _foreign(self) -> list[str]:
        """The dotted names that the modules of the component import from other packages."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        queue = [self.module]
        while queue:
            module = queue.pop()
            if module in seen:
                continue
            seen.add(module)
            try:
                names = list(self._sources.record(module)["imports"].values())
            except UnreadableError:
                continue
            for name in names:
                if name.partition(".")[0] == self._top:
                    queue += [name, name.rpartition(".")[0]]
                else:
                    found[name] = None
            queue += [module.rpartition(".")[0]] if "." in module and not module.endswith(".py") else []
        return sorted(found)


def _import_quietly(name: str) -> None:
    """Import a module, or one that has such a name in it; the component's own import says what is wrong with it."""
    parent, _, attribute = name.rpartition(".")
    with suppress(Exception, SystemExit):
        try:
            importlib.import_module(name)
        except ImportError:
            getattr(importlib.import_module(parent), attribute)  # some packages import what is asked for


@contextmanager
def _written() -> Iterator[list[str]]:
    """What is written to stdout and stderr meanwhile, by whatever means; warnings are none of it."""
    found: list[str] = []
    show = warnings.showwarning
    with tempfile.TemporaryFile() as file:
        _flush()
        before = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in before:
            os.dup2(file.fileno(), number)
        warnings.showwarning = lambda *_, **__: None
        try:
            yield found
        finally:
            warnings.showwarning = show
            _flush()
            for number, kept in before:
                os.dup2(kept, number)
                os.close(kept)
            file.seek(0)
            text = file.read().decode(errors="replace")
            found += [text] if text.strip() else []


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # there may be none, or a closed one
            stream.flush()
