"""Fixtures for all tests: a folder of fake distributions that reach losskit as installed ones do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from losskit import registry

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else every worker starts a thread per core


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the checks beyond the contracts' laws to the slow tests where a component's own tests run all laws.

    `tests/validation` tries each of them, and `test_builtins` holds every component to all.
    """
    for item in items:
        law = item.callspec.params.get("law") if hasattr(item, "callspec") else None
        if getattr(law, "number", 0) is None:
            item.add_marker(pytest.mark.slow)


LOSS = """
from losskit import Card, Format

class {name}:
    \"\"\"{summary}\"\"\"

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"])

    def __init__(self, model=None, scale: float = 20.0, *, execution=None):
        self.model, self.scale = model, scale
"""


class Site:
    """A folder of distributions: metadata and modules, without any installer.

    Every module notes in `imported` that it was imported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        distribution: str,
        version: str = "1.0",
        *,
        points: Mapping[str, Mapping[str, str]] | None = None,
        modules: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
        record: bool = True,
    ) -> Path:
        """Write a distribution; the folder of its metadata."""
        folder = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {item}" for item in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        sections = [
            f"[losskit.{group}]\n" + "".join(f"{name} = {target}\n" for name, target in names.items())
            for group, names in (points or {}).items()
        ]
        (folder / "entry_points.txt").write_text("\n".join(sections))
        for name, source in (modules or {}).items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            marker = f"with open({str(self.path / 'imported')!r}, 'a') as f: f.write(__name__ + ' ')\n"
            file.write_text(marker + dedent(source))
        if record:
            names = [*(modules or {}), f"{folder.name}/METADATA"]
            (folder / "RECORD").write_text("".join(f"{name},,\n" for name in names))
        return folder

    def add_loss(self, distribution: str, name: str = "toy", *, class_name: str = "ToyLoss", **options: object) -> Path:
        """A distribution with one sound loss."""
        module = distribution.replace("-", "_")
        return self.add(
            distribution,
            points={"losses": {name: f"{module}:{class_name}"}},
            modules={f"{module}.py": LOSS.format(name=class_name, summary=f"A loss of {distribution}.")},
            **options,  # type: ignore[arg-type]
        )

    @property
    def imported(self) -> set[str]:
        """The modules of this folder that were imported, in whatever process."""
        file = self.path / "imported"
        return set(file.read_text().split()) if file.exists() else set()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder without configuration or cache, which is the working folder too."""
    for variable in ("LOSSKIT_PLUGINS_ALLOW", "LOSSKIT_PLUGINS_BLOCK"):
        monkeypatch.delenv(variable, raising=False)
    for variable, name in (("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / name))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Fake distributions for this process; call `registry.refresh()` after adding some."""
    before = set(sys.modules)
    folder = Site(home / "site")
    monkeypatch.syspath_prepend(str(folder.path))
    registry.refresh()
    yield folder
    for name in set(sys.modules) - before:
        if str(folder.path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    monkeypatch.undo()
    registry.refresh()


@pytest.fixture
def in_process(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the command in this process: its exit code, stdout and stderr."""
    from losskit_cli.app import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["losskit", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()  # type: ignore[return-value]

    return run


Losskit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def losskit(site: Site) -> Losskit:
    """Run the command in a process of its own that sees the fake distributions."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "losskit_cli", *arguments],
            env={**os.environ, "PYTHONPATH": str(site.path), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def warn_always() -> Iterator[None]:
    """Torch warns each time, and not only the first time in a process."""
    import torch

    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)
