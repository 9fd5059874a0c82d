"""The examples of the README and of the documentation run, and give what they show."""

from __future__ import annotations

import doctest
import os
import pty
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from packages import show_test_run

from .pages import ROOT, Block, agrees, blocks, commands, pages

TIME_LIMIT = 300
"""Seconds for one command."""

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# They train as the README does, which runs always.
SLOW = {"docs/quickstart.md", "docs/tutorial.md", "docs/howto/encoder.md", "docs/reference/hooks.md"}
QUICK = {"docs/quickstart.md", "docs/tutorial.md"}
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
"""Lets pip install what is there already, or lies in a folder; so it says that it isolates no build."""


def _page(path: Path) -> object:
    name = path.relative_to(ROOT).as_posix()
    marks = [pytest.mark.slow] * (name in SLOW) + [pytest.mark.quick] * (name in QUICK)
    return pytest.param(path, id=name, marks=marks)


@pytest.mark.parametrize("page", [_page(path) for path in pages()])
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    left_out: Counter[str] = Counter()
    for block in blocks(page):
        needed = block.note.removeprefix("needs ") if block.note.startswith("needs ") else ""
        if needed and find_spec(needed) is None:
            left_out[needed] += 1
        elif not block.note.startswith("not run"):
            _run(block, namespace, f"{page.relative_to(ROOT)}:{block.line}")
    if left_out:
        pytest.skip(", ".join(f"{count} examples need {module}" for module, count in left_out.items()))


def _run(block: Block, namespace: dict[str, object], where: str) -> None:
    if block.file:
        Path(block.file).parent.mkdir(parents=True, exist_ok=True)
        Path(block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "console":
        for command, shown in commands(block):
            _run_command(command, shown, where, numbers_vary=block.note == "numbers vary")
    elif block.language == "python":
        exec(compile(block.text, where, "exec"), namespace)
    elif block.language == "pycon":
        test = doctest.DocTestParser().get_doctest(block.text, namespace, where, where, 0)
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        failures = runner.run(test, out=report.append, clear_globs=False).failed
        assert not failures, "".join(report)
        namespace.update(test.globs)


def _run_command(command: str, shown: str, where: str, *, numbers_vary: bool) -> None:
    """Run a command in the page's folder, and in its virtual environment `.venv` once it has made one."""
    if command.startswith("cd "):
        os.chdir(command.removeprefix("cd "))
        return
    scripts = [Path(sys.executable).parent]
    if own := next(
        (folder / ".venv" for folder in (Path.cwd(), Path.cwd().parent) if (folder / ".venv").exists()), None
    ):
        _furnish(own, scripts[0])
        scripts.insert(0, own / "bin")
    environment = {
        **os.environ,
        **OFFLINE,
        "PATH": os.pathsep.join([*map(str, scripts), os.environ["PATH"]]),
        "XDG_CONFIG_HOME": str(Path.cwd() / ".config"),
        "XDG_CACHE_HOME": str(Path.cwd() / ".cache"),
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
    }
    code, got = _on_terminal(["bash", "-c", command], environment)
    # A command that is shown to fail shows what it says.
    assert code == 0 or shown.strip(), f"{where}: {command!r} exits with {code}:\n{got}"
    if shown.strip():
        assert agrees(shown, got, numbers_vary=numbers_vary), f"{where}: {command!r} gives\n{got}\nnot\n{shown}"


def _furnish(environment: Path, scripts: Path) -> None:
    """Let a new virtual environment have what the test run has, and the commands of it run in the new one."""
    for site in environment.glob("lib/*/site-packages"):
        show_test_run(site)
    for name in ("losskit", "pytest", "mypy"):
        _, _, program = (scripts / name).read_text(encoding="utf-8").partition("\n")
        script = environment / "bin" / name
        script.write_text(f"#!{environment / 'bin' / 'python'}\n{program}", encoding="utf-8")
        script.chmod(0o755)


def _on_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and output of a command that writes to a terminal."""
    reading, terminal = pty.openpty()
    running = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
    os.close(terminal)
    limit = threading.Timer(TIME_LIMIT, running.kill)
    limit.start()
    got = b"".join(_chunks(reading))
    limit.cancel()
    os.close(reading)
    return running.wait(), _STYLE.sub("", got.decode()).replace("\r", "")


def _chunks(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # so Linux reads the end of a terminal
            return
        if not chunk:
            return
        yield chunk
