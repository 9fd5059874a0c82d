"""Reads classes without importing them: finds a module's file, parses it, and follows imports and bases.

A parsed module is a plain record that JSON can hold, so that `cache` can keep it:

    {"module", "imports": {local name: dotted name}, "literals": {name: choices},
     "classes": {name: {"line", "summary", "bases": [dotted name], "card", "options"}},
     "others": {name: (what it is, line)}}

`card` is None, `{"line", "call", "fields"}` or `{"line", "error"}`; `options` is None where the class
has no `__init__` of its own, else a list of rows `{"name", "type", "default", "required", "choices"}`.
Of a module that cannot be read the record is `{"module", "error": [reason, file, line, hint]}`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import decode_source, spec_from_file_location
from pathlib import Path
from typing import Any

from . import HOMES
from .cache import Cache
from .card import Card, Format
from .errors import brief

__all__ = ["BASES", "Allowed", "Ancestor", "ClassSource", "Sources", "UnreadableError"]

Record = dict[str, Any]


def _row(name: str, type_: str, default: object = None, choices: Sequence[object] = ()) -> Record:
    return {"name": name, "type": type_, "default": default, "required": False, "choices": list(choices)}


_MODEL, _EXECUTION = _row("model", "Any"), _row("execution", "Execution | None")

# The options of the bases that anyone may build on; None: no `__init__` of its own. A test compares with the classes.
BASES: dict[str, list[Record] | None] = {
    "losskit.Loss": [_MODEL, _EXECUTION],
    "losskit.ScoreLoss": [
        _MODEL,
        _row("activation", "Activation", "identity", ("identity", "sigmoid", "tanh", "relu")),
        _row("similarity", "str | Similarity | None"),
        _row("scale", "float", 1.0),
        _EXECUTION,
    ],
    "losskit.Wrapper": [{**_MODEL, "required": True}, {**_row("loss", "Loss"), "required": True}, _EXECUTION],
    **dict.fromkeys(
        f"losskit.{name}" for name in ("LossProtocol", "Encoder", "Regularizer", "Similarity", "Weighting")
    ),
    "torch.nn.Module": [],
    **dict.fromkeys(("object", "abc.ABC", "typing.Generic", "typing.Protocol")),
}
_ALIASES = {"torch.nn.modules.module.Module": "torch.nn.Module"}


class UnreadableError(Exception):
    """Why something cannot be read from source, and where.

    Args:
        reason: in words.
        file: where.
        line: where in it.
        status: of the component.
        fix: what to do about it.
        hint: how to mend the source, where there is no other fix.
        absent: it is not where it is said to be.
    """

    def __init__(
        self,
        reason: str,
        file: str = "",
        line: int | None = None,
        *,
        status: str = "broken",
        fix: str = "",
        hint: str = "",
        absent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason, self.file, self.line, self.status, self.fix = reason, file, line, status, fix
        self.hint, self.absent = hint, absent


@dataclass(frozen=True, slots=True)
class ClassSource:
    """A class as its source states it."""

    module: str
    name: str
    file: str
    line: int
    summary: str
    bases: tuple[str, ...]
    card: Record | None
    options: list[Record] | None


SOURCELESS = "move what is registered into a module with source"
"""How to mend what is compiled, or installed without its source."""

Ancestor = ClassSource | str | UnreadableError
Allowed = Callable[[ClassSource], bool]


class Sources:
    """Modules read from source, each once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._specs: dict[str, ModuleSpec] = {}
        self._records: dict[str, Record] = {}

    def locate(self, module: str) -> ModuleSpec:
        """Find a module through the import finders, importing no package on the way."""
        key = _key(module)
        if key not in self._specs:
            if module.endswith(".py"):
                return self._specs.setdefault(key, _file(module))
            parent = module.rpartition(".")[0]
            path = _search_path(self.locate(parent)) if parent else sys.path
            self._specs[key] = _find(module, path, top=not parent)
        return self._specs[key]

    def record(self, module: str) -> Record:
        """What a module's source says."""
        key = _key(module)
        if key not in self._records:
            spec = self.locate(module)
            if spec.loader is None or not spec.origin:
                raise UnreadableError(f"module {module} has no source", hint=SOURCELESS)
            self._records[key] = self._read(module, spec)
        return self._records[key]

    def text(self, module: str) -> str:
        """The source of a module."""
        source = _source(module, self.locate(module))
        if source is None:
            raise UnreadableError(f"module {module} has no source")
        return source

    def class_at(self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()) -> ClassSource:
        """The class that a module defines, or imports from another, under this name."""
        record, file = self.record(module), str(self.locate(module).origin)
        if name in record["classes"]:
            found = record["classes"][name]
            for row in found["options"] or ():
                row["choices"] = row["choices"] or self._choices(module, row["type"])
            return ClassSource(module, name, file, **{**found, "bases": tuple(found["bases"])})
        if name in record["others"]:
            what, line = record["others"][name]
            hint = "let the entry point name a class"
            raise UnreadableError(f"{module} defines no class {name}, but {what} of that name", file, line, hint=hint)
        origin, _, original = record["imports"].get(name, "").rpartition(".")
        if not origin or (module, name) in seen:
            raise UnreadableError(f"{module} defines no class {name}", file, absent=True)
        return self.class_at(origin, original, seen | {(module, name)})

    def lineage(self, found: ClassSource, allowed: Allowed, below: tuple[ClassSource, ...] = ()) -> list[Ancestor]:
        """A class and its bases in the order of inheritance.

        Names stand for keys of `BASES`, `UnreadableError` for bases that cannot be read or that `allowed` refuses.
        """
        order: list[Ancestor] = [found]
        for base in found.bases:
            try:
                order.extend(self._ancestors(base, found, allowed, (*below, found)))
            except UnreadableError as problem:
                reason = f"base {base} cannot be read: {problem.reason}"
                order.append(UnreadableError(reason, found.file, found.line, fix=problem.fix, hint=problem.hint))
        # The last of several occurrences counts, as in Python's own order of a diamond.
        return [item for index, item in enumerate(order) if item not in order[index + 1 :]]

    def _ancestors(
        self, base: str, child: ClassSource, allowed: Allowed, below: tuple[ClassSource, ...]
    ) -> list[Ancestor]:
        if _canonical(base) in BASES:
            return [_canonical(base)]
        module, _, name = base.rpartition(".")
        if not module:
            raise UnreadableError("it is no name that can be followed")
        parent = self.class_at(module, name)
        if parent in below:
            raise UnreadableError("it inherits from itself")
        if parent.module != child.module and not allowed(parent):
            raise UnreadableError("it lies neither in the same distribution nor in one that this requires")
        return self.lineage(parent, allowed, below)

    def is_losskit(self, dotted: str, name: str) -> bool:
        """Whether a dotted name means what losskit exports under `name`, directly or through other modules."""
        seen: set[str] = set()
        while _canonical(dotted) != f"losskit.{name}":
            module, _, local = dotted.rpartition(".")
            if not module or dotted in seen:
                return False
            seen.add(dotted)
            try:
                dotted = self.record(module)["imports"].get(local, "")
            except UnreadableError:
                return False
        return True

    def _choices(self, module: str, annotation: str) -> list[Any]:
        """What a name in an annotation allows that stands for `Literal[...]`, here or in a related module."""
        record = self.record(module)
        for word in re.findall(r"\w+", annotation):
            if word in record["literals"]:
                return list(record["literals"][word])
            origin, _, name = record["imports"].get(word, "").rpartition(".")
            related = origin.partition(".")[0] in (module.partition(".")[0], "losskit")
            if origin and related and name not in HOMES and origin not in ("losskit", module):
                # What cannot be read here only shows in no list of choices.
                with contextlib.suppress(UnreadableError):
                    return list(self.record(origin)["literals"].get(name, []))
        return []

    def _read(self, module: str, spec: ModuleSpec) -> Record:
        file = str(spec.origin)
        stamp = _stamp(file)
        record = self._cache.get(file, stamp)
        if record is None or record["module"] != module:
            try:
                record = self._parsed(module, spec)
            except UnreadableError as error:
                record = {"module": module, "error": [error.reason, error.file, error.line, error.hint]}
            self._cache.put(file, stamp, record)
        if "error" in record:
            reason, file, line, hint = record["error"]
            raise UnreadableError(reason, file, line, hint=hint)
        return record

    def _parsed(self, module: str, spec: ModuleSpec) -> Record:
        file = str(spec.origin)
        try:
            large = Path(file).is_file() and Path(file).stat().st_size > LARGEST
            source = "" if large else _source(module, spec)
        except Exception as error:
            raise UnreadableError(f"source cannot be read: {brief(error)}", file) from error
        if source is None:
            raise UnreadableError(f"module {module} has no source", file, hint=SOURCELESS)
        if large or len(source) > LARGEST:
            reason = f"source is not read, as it has more than {LARGEST >> 20} MB"
            raise UnreadableError(reason, file, hint="move what is registered into a module without such data")
        return parse(source, module, file, is_package=spec.submodule_search_locations is not None)


def _key(module: str) -> str:
    """What a module is remembered by: a file by its whole path, for the working folder may change."""
    return str(Path(module).absolute()) if module.endswith(".py") else module


def _source(module: str, spec: ModuleSpec) -> str | None:
    """The text of a module; some import hooks know no more than its file."""
    read = getattr(spec.loader, "get_source", None)
    text: str | None = decode_source(Path(str(spec.origin)).read_bytes()) if read is None else read(module)
    return text


def _file(path: str) -> ModuleSpec:
    spec = spec_from_file_location(path, Path(path).resolve()) if Path(path).is_file() else None
    if spec is None:
        raise UnreadableError(f"there is no file {path}")
    return spec


def _find(module: str, path: Iterable[str], *, top: bool) -> ModuleSpec:
    reasons = []
    path = list(path)
    for finder in list(sys.meta_path):
        try:
            # PathFinder asks sys.modules for the parent of a namespace package, which is not imported here.
            spec = _on_path(module, path) if finder is PathFinder else finder.find_spec(module, None if top else path)
        except Exception as error:  # noqa: BLE001 - a foreign finder may raise anything
            reasons.append(f"; {finder!r} raised {brief(error)}")
            continue
        if spec is not None:
            return spec
    raise UnreadableError(f"module {module} is not found" + "".join(reasons), absent=True)


def _on_path(module: str, path: Sequence[str]) -> ModuleSpec | None:
    portions: list[str] = []
    for entry in path:
        finder = pkgutil.get_importer(entry or str(Path.cwd()))
        spec = None if finder is None else finder.find_spec(module)
        if spec is not None and spec.loader is not None:
            return spec
        portions.extend(spec.submodule_search_locations or () if spec else ())
    if not portions:
        return None
    namespace = ModuleSpec(module, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _search_path(package: ModuleSpec) -> list[str]:
    if package.submodule_search_locations is None:
        raise UnreadableError(f"{package.name} is not a package", str(package.origin or ""))
    return list(package.submodule_search_locations)


def _stamp(file: str) -> tuple[int, int]:
    """Time and size of a file, or of the archive it lies in."""
    with contextlib.suppress(OSError):
        status = os.stat(file)  # noqa: PTH116 - a Path for each of many files takes longer than the rest
        return status.st_mtime_ns, status.st_size
    folder = os.path.dirname(file)  # noqa: PTH120 - as above
    return (0, 0) if folder == file else _stamp(folder)


def _canonical(dotted: str) -> str:
    """Names of losskit's submodules by the name that losskit exports.

    >>> _canonical("losskit.card.Card")
    'losskit.Card'
    """
    module, _, name = dotted.rpartition(".")
    if HOMES.get(name) is not None and module == f"losskit.{HOMES[name]}":
        return f"losskit.{name}"
    return _ALIASES.get(dotted, dotted)


# Parsing

LARGEST = 2 << 20
"""Bytes of source that are read."""
LONGEST = 20_000
"""Characters that a card may spend on one field."""
SUMMARY = 1_000
"""Characters of a summary that are told."""
FORMATS = 100
"""How many formats a card may have."""


def parse(source: str, module: str, file: str, *, is_package: bool = False) -> Record:
    """The record of a module's source."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _parsed(ast.parse(source), module, is_package)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise UnreadableError(f"source does not parse: {brief(error)}", file, line) from error
    except (RecursionError, MemoryError) as error:
        raise UnreadableError(f"source does not parse: it is nested too deeply ({brief(error)})", file) from error


def _parsed(tree: ast.Module, module: str, is_package: bool) -> Record:
    statements = list(_statements(tree.body))
    imports: dict[str, str] = {}
    for node in statements:
        for local, target in _imported(node, module, is_package):
            imports.setdefault(local, target)
    local_classes = {node.name: node for node in statements if isinstance(node, ast.ClassDef)}
    literals = {
        target.id: choices
        for node in statements
        if isinstance(node, ast.Assign) and (choices := _choices(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def resolve(node: ast.expr) -> str:
        """The dotted name that an expression stands for, or its text."""
        text = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
        head, dot, rest = text.partition(".")
        if head in local_classes:
            return f"{module}.{text}"
        return imports.get(head, head) + dot + rest

    classes = {name: _class(node, resolve) for name, node in local_classes.items()}
    others = dict(_others(statements))
    return {"module": module, "imports": imports, "literals": literals, "classes": classes, "others": others}


def _others(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Names of a module that stand for no class, with what they stand for and where."""
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, ("a function", node.lineno)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, ("a value", node.lineno)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, also those under `if`, `try` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            blocks = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            blocks += [handler.body for handler in getattr(node, "handlers", [])]
            for block in blocks:
                yield from _statements(block)


def _imported(node: ast.stmt, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for name in node.names:
            top = name.name.partition(".")[0]
            yield (name.asname, name.name) if name.asname else (top, top)
    elif isinstance(node, ast.ImportFrom):
        parents = module.split(".") if is_package else module.split(".")[:-1]
        anchor = parents[: len(parents) - node.level + 1] if node.level else []
        origin = ".".join([*anchor, *filter(None, [node.module])])
        for name in node.names:
            yield name.asname or name.name, f"{origin}.{name.name}"


def _class(node: ast.ClassDef, resolve: Callable[[ast.expr], str]) -> Record:
    options = None
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            options = _options(statement.args)
    decorators = {resolve(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}
    if options is None and "dataclasses.dataclass" in decorators:
        options = _dataclass_options(node, resolve)
    return {
        "line": node.lineno,
        "summary": (ast.get_docstring(node) or "").partition("\n")[0].strip()[:SUMMARY],
        "bases": [resolve(base) for base in node.bases],
        "card": _card(node, resolve),
        "options": options,
    }


def _options(arguments: ast.arguments) -> list[Record]:
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    missing = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [_option(argument.arg, argument.annotation, default) for argument, default in pairs]


def _dataclass_options(node: ast.ClassDef, resolve: Callable[[ast.expr], str]) -> list[Record]:
    rows = []
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if resolve(field.annotation).rpartition(".")[2] != "ClassVar":
            rows.append(_option(field.target.id, field.annotation, field.value))
    return rows


def _option(name: str, annotation: ast.expr | None, default: ast.expr | None) -> Record:
    annotation = _unquoted(annotation)
    return {
        "name": name,
        "type": "" if annotation is None else ast.unparse(annotation),
        "default": None if default is None else _plain(default),
        "required": default is None,
        "choices": [] if annotation is None else _choices(annotation),
    }


def _unquoted(annotation: ast.expr | None) -> ast.expr | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        with contextlib.suppress(SyntaxError, ValueError):
            return ast.parse(annotation.value, mode="eval").body
    return annotation


def _plain(node: ast.expr) -> Any:
    """A value where it is a literal that JSON can hold, else its source."""
    try:
        return json.loads(json.dumps(ast.literal_eval(node), allow_nan=False))
    except (ValueError, TypeError):
        return ast.unparse(node)


def _choices(annotation: ast.expr) -> list[Any]:
    """What `Literal[...]` allows anywhere in an annotation."""
    choices: list[Any] = []
    for node in ast.walk(annotation):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).rpartition(".")[2] == "Literal":
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            choices.extend(_plain(item) for item in items)
    return choices


class _CardError(Exception):
    """What is wrong with a card, and where."""

    def __init__(self, node: ast.AST, reason: str) -> None:
        self.line = getattr(node, "lineno", None)
        super().__init__(reason)


def _not_literal(node: ast.AST, wanted: str = "a literal") -> _CardError:
    return _CardError(node, f"the card is not literal: {' '.join(ast.unparse(node).split())[:60]!r} is not {wanted}")


def _card(node: ast.ClassDef, resolve: Callable[[ast.expr], str]) -> Record | None:
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == "card" for target in targets):
            continue
        value = getattr(statement, "value", None)
        if value is None:
            continue
        try:
            return {"line": statement.lineno, **_call(value, Card, resolve)}
        except _CardError as problem:
            return {"line": problem.line or statement.lineno, "error": str(problem)}
    return None


def _call(node: ast.expr, cls: type[Card] | type[Format], resolve: Callable[[ast.expr], str]) -> Record:
    """`Card(...)` or `Format(...)` as the name called and its fields."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        raise _not_literal(node, f"{cls.__name__}(...)")
    names = [item.name for item in fields(cls)]
    if len(node.args) > len(names) or any(keyword.arg is None for keyword in node.keywords):
        raise _not_literal(node)
    given = {**dict(zip(names, node.args, strict=False)), **{str(k.arg): k.value for k in node.keywords}}
    values = {}
    for name, value in given.items():
        if cls is Card and name == "formats" and isinstance(value, ast.List | ast.Tuple):
            if len(value.elts) > FORMATS:
                raise _CardError(value, f"{name} has {len(value.elts)} items, more than {FORMATS}")
            values[name] = [_call(item, Format, resolve) for item in value.elts]
        else:
            values[name] = _literal(name, value)
    return {"call": resolve(node.func), "fields": values}


def _literal(name: str, node: ast.expr) -> Any:
    try:
        text = json.dumps(ast.literal_eval(node), allow_nan=False)
    except (ValueError, TypeError) as error:
        raise _not_literal(node) from error
    if len(text) > LONGEST:
        raise _CardError(node, f"{name} has {len(text):,} characters, more than {LONGEST:,}")
    return json.loads(text)
