"""What stands in several files of the repository says the same in all of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .pages import ROOT, agrees, blocks, commands

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["test"], *extras["docs"], *extras["sentence-transformers"]]
    return [needed for needed in map(Requirement, lines) if needed.name != "losskit"]


@pytest.mark.parametrize("needed", _requirements(), ids=str)
def test_constraints_pin_a_version_of_every_requirement_in_its_range(needed: Requirement) -> None:
    pin = _pins()[canonicalize_name(needed.name)]
    assert needed.specifier.contains(pin), f"{needed.name}=={pin} is not in {needed.specifier}"


def test_constraints_are_public_versions_sorted_by_name() -> None:
    pins = _pins()
    assert list(pins) == sorted(pins)
    assert not [name for name, pin in pins.items() if "+" in pin]


def test_readme_sets_up_with_the_pins() -> None:
    shown = [
        command for block in blocks(ROOT / "README.md") if "console" in block.language for command, _ in commands(block)
    ]
    set_up = [command for command in shown if "-m venv" in command]
    assert len(set_up) == 2
    assert all("pip install -c constraints.txt" in command for command in set_up)
    assert set_up[0].endswith(".venv/bin/losskit train")
    assert set_up[1].endswith(".venv/bin/python -m pytest")


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert metadata.version("losskit") == PROJECT["version"]


def test_changelog_fragments_are_named_by_issue_and_kind() -> None:
    kinds = "added|changed|deprecated|removed|fixed|security"
    names = [path.name for path in (ROOT / "changelog.d").iterdir() if path.name != ".gitkeep"]
    assert not [name for name in names if not re.fullmatch(rf"(\d+|\+[\w-]+)\.({kinds})(\.\d+)?\.md", name)]


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("shown", "got", "same"),
    [
        ("loss cosent", "loss  cosent\n", True),
        ("loss cosent", "loss cosent more", False),
        ("loss ... end", "loss a\nb end", True),
        ("loss ... end", "loss a\nb", False),
        ("a.b", "axb", False),
    ],
)
def test_outputs_are_compared_but_for_white_space(shown: str, got: str, same: bool) -> None:
    assert agrees(shown, got) is same


def test_an_interpreter_session_that_shows_something_else_fails(tmp_path, monkeypatch) -> None:
    from .pages import Block
    from .test_examples import _run

    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="Expected"):
        _run(Block("pycon", ">>> 1 + 1\n3\n", 1), {}, "here")
    with pytest.raises(AssertionError, match="gives"):
        _run(Block("console", "$ echo one\ntwo\n", 1), {}, "here")
