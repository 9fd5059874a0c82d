"""Whether the names of a new component can be used: by Python, by package indexes, and beside what is installed."""

from __future__ import annotations

import keyword
import re
import sys
import unicodedata
from importlib.machinery import PathFinder
from pathlib import Path

import losskit
from losskit.discover import KEBAB
from losskit.errors import RecipeError
from losskit.policy import BUILTIN, normalize
from losskit.registry import Spec, current, space
from losskit_templates import Answers

__all__ = ["check_address", "check_component", "check_distribution", "check_file", "check_text"]

LONGEST = 40
"""Characters of a component's name; class, module and distribution are longer."""
LONGEST_TEXT = 100
"""Characters of a summary or a name, which have to fit into a line of source."""
RESERVED = {
    "reference": "the module of the formula in loops",
    **dict.fromkeys(("installed", "laws"), "the name of tests that every package has"),
    **dict.fromkeys(("false", "null", "true"), "what YAML takes for no name"),
}
"""What names may not be, and what they are already."""
_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def check_text(option: str, text: str) -> str:
    """A text for one line of source: without spaces around it, printable and not too long.

    Raises:
        RecipeError: it is not.
    """
    text = text.strip()
    if not text.isprintable() or not 0 < _width(text) <= LONGEST_TEXT:
        expected = f"one line of 1 to {LONGEST_TEXT} printable characters"
        fix = "wide characters and backslashes count twice" if len(text) < _width(text) else ""
        raise RecipeError(option, expected=expected, got=repr(text[: LONGEST_TEXT + 1]), fix=fix)
    return text


def check_address(text: str) -> str:
    """An address of e-mail as metadata can hold it, or nothing.

    Raises:
        RecipeError: it is neither.
    """
    from email.errors import MessageError
    from email.headerregistry import Address

    try:
        fine = not text or ("@" in text and '"' not in text and Address(addr_spec=text).addr_spec == text)
    except (MessageError, ValueError, IndexError):  # what it raises on an end that it does not expect
        fine = False
    if not fine or len(text) > LONGEST_TEXT or not text.isprintable():
        raise RecipeError("--email", expected="an address such as me@example.org", got=repr(text[: LONGEST_TEXT + 1]))
    return text


def check_component(answers: Answers) -> None:
    """Refuse the name of a component that cannot be used.

    Raises:
        RecipeError: says why.
    """
    _check_form(answers)
    _check_claims(answers)


def check_distribution(answers: Answers, *, ours: bool) -> None:
    """Refuse the name of a distribution that cannot be published or imported.

    Args:
        answers: what is to be written.
        ours: whether a distribution of that name may be installed already, since it is written anew.

    Raises:
        RecipeError: says why.
    """
    _check_project(answers)
    _check_free(answers, ours)


def check_file(answers: Answers) -> None:
    """Refuse a file whose name would hide a module from Python wherever it lies.

    Raises:
        RecipeError: says which.
    """
    module = answers.module
    if module in sys.stdlib_module_names or _is_there(module):
        got = f"the module {module}, which a file of that name would hide"
        raise RecipeError(
            f"name {answers.name!r}", expected="a name for a file", got=got, fix=f"write my-{answers.name}"
        )


def _check_form(answers: Answers) -> None:
    name, module = answers.name, answers.module
    if not KEBAB.fullmatch(name) or not name[0].isalpha():
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
        suggestion = re.sub(r"[^a-z0-9]+", "-", words).strip("-0123456789")
        fix = f"write {suggestion}" if KEBAB.fullmatch(suggestion) else ""
        raise RecipeError(f"name {name!r}", expected="lower-case words and hyphens, such as my-margin", fix=fix)
    if len(name) > LONGEST:
        raise RecipeError("name", expected=f"at most {LONGEST} characters", got=f"{len(name)}")
    if keyword.iskeyword(module) or module in RESERVED:
        word = RESERVED.get(module, "a keyword of Python")
        raise RecipeError(f"name {name!r}", expected="a name for a module", got=word, fix=f"write my-{module}")
    if answers.class_name in losskit.__all__:
        raise RecipeError(f"name {name!r}", expected="a class of its own", got=f"losskit.{answers.class_name}")


def _check_claims(answers: Answers) -> None:
    """Refuse a name that an installed component has; what is blocked claims nothing."""
    for spec in current().specs:
        if spec.status == "blocked" or normalize(spec.provider) == normalize(answers.project):
            continue
        if space(spec.kind) == space(answers.kind) and answers.name in spec.names:
            raise _taken(answers.name, spec, f"name {answers.name!r}")
        if answers.class_name == spec.class_name:
            raise _taken(answers.class_name, spec, f"class {answers.class_name}")


def _taken(name: str, spec: Spec, culprit: str) -> RecipeError:
    got = f"{'an alias of ' if name not in (spec.name, spec.class_name) else ''}the {spec.kind} {spec.name}"
    fix = "choose another name" + ("" if spec.builtin else f", or block {spec.provider}")
    return RecipeError(culprit, expected="a free one", got=f"{got} of {spec.provider}=={spec.version}", fix=fix)


def _check_project(answers: Answers) -> None:
    project, package = answers.project, answers.package
    if not _PROJECT.fullmatch(project) or len(project) > LONGEST + len("losskit-"):
        expected = f"1 to {LONGEST + len('losskit-')} letters, digits, and between them '.', '_' and '-'"
        raise RecipeError(f"distribution {project!r}", expected=expected, fix="write --distribution NAME")
    if not package.isidentifier() or keyword.iskeyword(package) or package in {*sys.stdlib_module_names, "tests"}:
        got = f"the package {package}"
        raise RecipeError(f"distribution {project!r}", expected="a name that Python can import as its own", got=got)
    if normalize(project) == BUILTIN or package.startswith(("losskit_plugins", "losskit_compat", "losskit_cli")):
        raise RecipeError(f"distribution {project!r}", expected="a name of your own", got="losskit's")


def _check_free(answers: Answers, ours: bool) -> None:
    """Refuse the name of a distribution or package that is installed."""
    installed = any(normalize(entry.provider) == normalize(answers.project) for entry in current().scanned[0])
    if (installed and ours) or not (installed or _is_there(answers.package)):
        return
    fix = "write --distribution NAME" + (", or --force to write it anew" if installed else "")
    got = "one that is installed" if installed else f"the package {answers.package}, which is installed"
    raise RecipeError(f"distribution {answers.project!r}", expected="a free name", got=got, fix=fix)


def _is_there(module: str) -> bool:
    """Whether Python finds a module, be it not in the working folder, where anything may lie."""
    here = ("", str(Path.cwd()))
    return PathFinder.find_spec(module, [place for place in sys.path if place not in here]) is not None


def _width(text: str) -> int:
    """Columns of a text in a line of source."""
    return sum(1 + (unicodedata.east_asian_width(each) in "FW" or each == "\\") for each in text)
