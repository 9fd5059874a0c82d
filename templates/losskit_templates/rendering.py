"""Templates to text.

Their marks are those of ERB, for `{{` is taken by workflows, `[[` by tables and nested lists: `<%= name %>`,
`<% if condition %>`, `<%# comment %>`. A name that a template misspells is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from .answers import Answers

__all__ = ["package", "single_file"]

SUFFIX = ".tmpl"
DOT = "dot-"
"""Stands for the dot of hidden files, which tools would heed where the templates lie."""


def package(answers: Answers) -> dict[str, str]:
    """The files of a distribution, by path."""
    context = answers.context()
    kind, shape = answers.kind, answers.shape.name
    source, tests = f"src/{answers.package}", "tests"
    templates = {path: f"package/{path}" for path in _paths(files(__package__).joinpath("package"))}
    templates |= {
        f"{source}/{answers.module}.py": f"{kind}/{shape}.py",
        f"{source}/reference.py": f"{kind}/{shape}.reference.py",
        f"{tests}/test_{answers.module}.py": f"{kind}/{shape}.test.py",
        "LICENSE": f"licences/{answers.licence}",
    }
    named = {_named(path, answers): template for path, template in templates.items()}
    return {path: _rendered(named[path], context) for path in sorted(named)}


def single_file(answers: Answers) -> dict[str, str]:
    """The component alone, by path."""
    return {f"{answers.module}.py": _rendered(f"{answers.kind}/{answers.shape.name}.py", answers.context())}


def _rendered(template: str, context: dict[str, Any]) -> str:
    text = _text(template)
    # Some files say the same in every package; compiling them would be a part of the command's start.
    return _environment().from_string(text).render(context) if "<%" in text else text


def _named(path: str, answers: Answers) -> str:
    """A template's path as that of the file: hidden, and by the package's name, where it says so."""
    parts = [f".{part.removeprefix(DOT)}" if part.startswith(DOT) else part for part in path.split("/")]
    return "/".join(answers.package if part == "PACKAGE" else part for part in parts)


def _paths(folder: Traversable, before: str = "") -> Iterator[str]:
    """The paths of all templates below a folder, without their suffix."""
    for item in folder.iterdir():
        if item.is_dir():
            yield from _paths(item, f"{before}{item.name}/")
        elif item.name.endswith(SUFFIX):
            yield before + item.name.removesuffix(SUFFIX)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text),
        undefined=StrictUndefined,
        variable_start_string="<%=",
        variable_end_string="%>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<%#",
        comment_end_string="%>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"json": _json, "docstring": _docstring}
    return environment


def _text(template: str) -> str:
    return files(__package__).joinpath(f"{template}{SUFFIX}").read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """A value as JSON, TOML, YAML and Python write it: a string, a number, a list of such.

    >>> print(_json('say "ah"'), _json(("dense", "sparse")))
    "say \\"ah\\"" ["dense", "sparse"]
    """
    return json.dumps(value, ensure_ascii=False)


def _docstring(text: str) -> str:
    """Text that ends no docstring.

    >>> print(_docstring('a \\\\ and a "quote"'))
    a \\\\ and a 'quote'
    """
    return text.replace("\\", "\\\\").replace('"', "'")
