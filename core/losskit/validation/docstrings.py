"""The check of docstrings: a summary that lists can show, and a word on every option."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ..source import Ancestor, ClassSource
from ..spec import Spec
from .findings import NotApplicable, Violation
from .reading import lineage, read

__all__ = ["described", "docstring"]

SUMMARY = 120
"""A summary has fewer characters, so that it fits a line of a list or of source."""

_NAMES = r"[*`]*\w+[*`]*(?:\s*,\s*[*`]*\w+[*`]*)*"
_DESCRIBED = re.compile(rf"^\s*(?::param\s+(?:[^:]*\s)?)?({_NAMES})\s*(?:\([^:]*(?::[^:]*)*\))?\s*:", re.MULTILINE)


def docstring(spec: Spec) -> Iterator[Violation]:
    """The class says in one line what it does, and its docstring, or its constructor's, what each option means."""
    if not spec.provider and spec.card is None:
        raise NotApplicable("it is neither registered nor has it a card, so nothing lists it")
    ancestors = lineage(spec)
    classes = [read(each) for each in ancestors if isinstance(each, ClassSource)]
    first = classes[0]
    file, line = first.stated.file, first.stated.line
    text = ast.get_docstring(first.node)
    if not text:
        yield Violation(f"{first.node.name} has no docstring", "a summary line", "none", file=file, line=line)
        return
    yield from _summary(text, file, line)
    told: set[str] = set()
    for each in classes:
        told |= described(ast.get_docstring(each.node) or "") | described(_constructor(each.node))
    for option in () if _takes_those_of_a_base(ancestors) else spec.options:
        if option.name not in told:
            expected = f"a line `{option.name}: ...` under Args"
            yield Violation(f"the option {option.name!r} is described nowhere", expected, "none", file=file, line=line)


def _summary(text: str, file: str, line: int) -> Iterator[Violation]:
    summary = text.partition("\n")[0].strip()
    if not summary.endswith("."):
        yield Violation(
            "the summary does not end with a full stop", "one sentence", repr(summary), file=file, line=line
        )
    if len(summary) >= SUMMARY:
        expected = f"fewer than {SUMMARY} characters"
        yield Violation("the summary is too long", expected, str(len(summary)), file=file, line=line)


def _takes_those_of_a_base(ancestors: list[Ancestor]) -> bool:
    """Whether the constructor is that of a base of losskit, which says itself what its options mean."""
    makers = (each for each in ancestors if isinstance(each, str) or getattr(each, "options", None) is not None)
    return isinstance(next(makers, None), str)


def _constructor(node: ast.ClassDef) -> str:
    """The docstring of a class's own constructor."""
    found = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
    constructor = next(found, None)
    return "" if constructor is None else ast.get_docstring(constructor) or ""


def described(text: str) -> set[str]:
    """The names that a docstring describes, in the style of Google, numpydoc or reStructuredText.

    >>> sorted(described("scale (float): a factor.\\nlow, high: bounds."))
    ['high', 'low', 'scale']
    """
    return {name.strip(" *`") for names in _DESCRIBED.findall(text) for name in names.split(",")}
