"""The source of a component, as the static checks read it."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from ..cache import Cache
from ..errors import brief
from ..source import Ancestor, ClassSource, Sources, UnreadableError
from ..spec import Spec
from .findings import NotApplicable

__all__ = ["Source", "lineage", "located", "read"]


@dataclass(frozen=True)
class Source:
    """A parsed module with the class in it.

    Args:
        stated: the class as the registry reads it.
        module: the syntax tree of its module.
        node: the class in that tree.
    """

    stated: ClassSource
    module: ast.Module
    node: ast.ClassDef


def located(spec: Spec, sources: Sources | None = None) -> ClassSource:
    """Where the class of a component is defined.

    Raises:
        UnreadableError: nowhere that can be read.
    """
    module, _, name = spec.target.rpartition(":")
    if not module or not name:
        raise UnreadableError(f"the target {spec.target!r} is not module:Class")
    return (sources or Sources(Cache())).class_at(module, name)


def lineage(spec: Spec) -> list[Ancestor]:
    """The class of a component and its bases in the order of inheritance.

    Raises:
        NotApplicable: the class cannot be read; the entry point is to blame.
    """
    sources = Sources(Cache())
    try:
        return sources.lineage(located(spec, sources), lambda parent: True)
    except UnreadableError as problem:
        raise NotApplicable(f"its source cannot be read: {problem.reason}") from None


def read(stated: ClassSource) -> Source:
    """The syntax tree of a class.

    Raises:
        NotApplicable: there is no text of it.
    """
    sources = Sources(Cache())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(sources.text(stated.module))
    except (UnreadableError, SyntaxError, OSError) as problem:
        raise NotApplicable(f"its source cannot be read: {brief(problem)}") from None
    node = next(each for each in _classes(module) if each.name == stated.name and each.lineno == stated.line)
    return Source(stated, module, node)


def _classes(module: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.ClassDef))
