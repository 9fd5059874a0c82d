"""What the compatibility policy lists is what there is."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from scaffolds import EXAMPLES, example

import losskit
import losskit_cli.app
from losskit.discover import GROUPS
from losskit.errors import LosskitError, PluginError
from losskit.spec import STATUSES
from losskit_templates import package

from .pages import ROOT, blocks, pages

DOCS = ROOT / "docs"
POLICY = (DOCS / "concepts" / "compatibility.md").read_text(encoding="utf-8")
FOR_AUTHORS = [DOCS / "reference" / "hooks.md", *(page for page in pages() if page.parent == DOCS / "howto")]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _section(title: str) -> str:
    _, _, section = POLICY.partition(f"\n## {title}\n")
    return section.partition("\n## ")[0]


def _paragraph(start: str) -> str:
    _, _, rest = POLICY.partition(start)
    assert rest, start
    return rest.partition("\n\n")[0]


def _names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _rows(section: str) -> dict[str, str]:
    """The rows of a table below its head, the rest of each by its first cell."""
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| ")]
    return dict(rows[1:])


MODULES = {name: holds for names, holds in _rows(_section("What is public")).items() for name in _names(names)}


def test_the_names_of_losskit_are_those_it_exports() -> None:
    assert _names(MODULES["losskit"]) == sorted(losskit.__all__)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_public_modules_say_what_they_export(name) -> None:
    module = importlib.import_module(name)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []


def test_the_groups_are_those_that_are_read() -> None:
    assert _names(_paragraph("**Entry-point groups.**")) == list(GROUPS)


def test_the_status_words_are_those_there_are() -> None:
    assert tuple(_names(_paragraph("the status words"))[: len(STATUSES)]) == STATUSES


def test_the_exit_codes_are_those_of_the_command() -> None:
    written = (DOCS / "concepts" / "policy.md").read_text(encoding="utf-8").partition("\n## Exit codes\n")[2]
    codes = re.findall(r"^\| (\d+) \|", written, re.MULTILINE)
    assert codes == re.findall(r"(?:^|   )(\d+)(?= [a-z])", losskit_cli.app.__doc__, re.MULTILINE)
    assert {str(LosskitError.exit_code), str(PluginError.exit_code)} <= set(codes)


def test_the_supported_versions_are_those_of_the_project() -> None:
    said = _rows(_section("Supported versions"))
    pythons = [each.rpartition(" ")[2] for each in _PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert said.pop("Python") == ", ".join(pythons)
    assert _PROJECT["requires-python"] == f">={pythons[0]}"
    required = [*_PROJECT["dependencies"], *_PROJECT["optional-dependencies"]["sentence-transformers"]]
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, required)}
    for name, text in said.items():
        lowest, below = re.fullmatch(r"([\d.]+) and later(?:, below ([\d.]+))?(?:;.*)?", text).groups()
        assert bounds[name] == SpecifierSet(f">={lowest}" + (f",<{below}" if below else "")), name


def test_what_a_package_should_require_holds_this_losskit() -> None:
    example = next(each.text for each in blocks(DOCS / "concepts" / "compatibility.md") if each.language == "toml")
    project = tomllib.loads(example)["project"]
    [requirement] = map(Requirement, project["dependencies"])
    assert requirement.specifier.contains(losskit.__version__, prereleases=True)
    assert project["requires-python"] == _PROJECT["requires-python"]


@pytest.mark.parametrize("page", FOR_AUTHORS, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_pages_for_authors_use_public_names_only(page: Path) -> None:
    _check_imports(_code(block.language, block.text) for block in blocks(page) if block.language in ("python", "pycon"))


@pytest.mark.parametrize(("kind", "shape"), EXAMPLES)
def test_what_losskit_new_writes_uses_public_names_only(kind: str, shape: str) -> None:
    _check_imports(text for path, text in package(example(kind, shape)).items() if path.endswith(".py"))


def _check_imports(code: Iterable[str]) -> None:
    taken = {
        (node.module, alias.name)
        for tree in map(ast.parse, code)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and re.match(r"losskit(\.|$)", node.module or "")
        for alias in node.names
    }
    assert taken
    assert {module for module, _ in taken} <= MODULES.keys()
    assert [f"{module}.{name}" for module, name in taken if name not in importlib.import_module(module).__all__] == []


def _code(language: str, text: str) -> str:
    if language == "python":
        return text
    return "\n".join(line[4:] for line in text.splitlines() if line.startswith((">>> ", "... ")))
