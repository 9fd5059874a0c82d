"""YAML 1.2 over pyyaml, which reads 1.1: `2e-5` is a number, `no` and `on` are strings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from .errors import RecipeError

__all__ = ["dump_yaml", "parse_yaml"]


def parse_yaml(text: str, name: str = "YAML") -> Any:
    """A YAML 1.2 document: `2e-5` is a number, `no` and `on` are strings.

    Args:
        text: the document.
        name: what error messages call it.

    Raises:
        RecipeError: it is malformed, or has a key twice; with the line.

    >>> parse_yaml("{rate: 2e-5, answer: no, zip: 007, mask: 0o17}")
    {'rate': 2e-05, 'answer': 'no', 'zip': 7, 'mask': 15}
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{name}{place}: no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: no YAML: {' '.join(str(error).split())}") from None


def dump_yaml(value: Mapping[str, Any]) -> str:
    """Plain maps, lists, strings and numbers as YAML that YAML 1.1 and 1.2 read alike.

    >>> print(dump_yaml({"rate": 2e-5, "answer": "no", "text": "2e-5"}), end="")
    rate: 2.0e-05
    answer: 'no'
    text: '2e-5'
    """
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


_DEEPEST = 64
_MOST = 1_000_000
"""Values that a document may stand for: aliases of aliases grow without end."""


class _Loader(yaml.SafeLoader):
    """Plain scalars resolved as YAML 1.2's core schema does; a key given twice is refused."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  pyyaml's own convention
    _depth = 0

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[Any, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node and all in it, as deep and as large as anything here is read without running out of memory."""
        if self._depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} levels", mark)
        self._depth += 1
        try:
            node: Any = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        inside = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        self._sizes[node] = 1 + sum(self._sizes.get(each, 1) for each in inside)
        if self._sizes[node] > _MOST:
            raise yaml.composer.ComposerError(None, None, f"more than {_MOST} values", node.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes every string that YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # pyyaml takes these for printable and writes them plain, which reads back as a space or not at all.
    style = '"' if set(text) & set("\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)

_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    with _refusing("no whole number, or one that is too long", node):  # Python reads some thousands of digits at most
        return int(text, base)


def _floating(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    with _refusing("no number", node):
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    with _refusing("neither true nor false", node):
        return {"true": True, "false": False}[loader.construct_scalar(node).lower()]


@contextmanager
def _refusing(problem: str, node: yaml.Node) -> Iterator[None]:
    """What a tag says that the text is not."""
    try:
        yield
    except (ValueError, KeyError):
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
        key = loader.construct_object(key_node)
        if key in pairs:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
        pairs[key] = loader.construct_object(value_node, deep=True)
    return pairs


# Of the types of YAML 1.1 no more than these: sets, pairs, bytes and times are nothing that a recipe holds.
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (None, *(f"tag:yaml.org,2002:{name}" for name in ("null", "str", "seq")))
}
_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _floating)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
