"""What the registry knows of a component, and how it is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from zipimport import zipimporter

from .card import Card
from .errors import PluginError, brief, is_interrupt

__all__ = ["STATUSES", "Option", "Problem", "Spec"]

_ENCODER_GIVEN = frozenset({"execution", "tokenizer", "trust_remote_code"})
_LOSS_GIVEN = frozenset({"model", "execution"})


def given_in_code(kind: str) -> frozenset[str]:
    """Constructor parameters that are no options: objects, and whether foreign code may run, which no recipe says."""
    return _ENCODER_GIVEN if kind == "encoder" else _LOSS_GIVEN


STATUSES = ("ok", "missing-dependency", "incompatible", "blocked", "ambiguous", "broken")


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter of a component's constructor.

    Args:
        name: its name.
        type: the annotation's source; empty without one.
        default: the literal, or its source where it is none; None also where there is no default.
        required: it has no default.
        choices: what `Literal[...]` allows.
    """

    name: str
    type: str = ""
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a component or a distribution, and what to do about it."""

    distribution: str
    version: str
    target: str
    status: str
    reason: str
    fix: str
    file: str | None = None
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line})" if self.file and self.line else f" ({self.file})" if self.file else ""
        fix = f". Fix: {self.fix}" if self.fix else ""
        distribution = "==".join(filter(None, (self.distribution, self.version)))
        whose = " ".join(filter(None, (distribution, self.target)))
        return f"{whose}: {self.status}: {self.reason}{where}{fix}"


@dataclass(frozen=True, slots=True)
class Spec:
    """A component as it is known without importing it.

    Args:
        kind: "loss", "wrapper", "regularizer", "weighting", "similarity" or "encoder".
        name: the entry point's name.
        target: "module:Class", or "path/file.py:Class".
        provider: the distribution's name; empty for what no distribution registers.
        version: the distribution's version.
        status: one of `STATUSES`; `problem` says why it is not "ok".
        card: None where it cannot be read, or where a class given by its target has none.
        file: where the class is defined, at `line`.
    """

    kind: str
    name: str
    target: str
    provider: str = ""
    version: str = ""
    builtin: bool = False
    status: str = "ok"
    card: Card | None = None
    options: tuple[Option, ...] = ()
    summary: str = ""
    problem: Problem | None = None
    file: str | None = None
    line: int | None = None

    @property
    def class_name(self) -> str:
        """The class's own name."""
        return self.target.rpartition(":")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and those that it had before."""
        return self.name, *(self.card.aliases if self.card is not None else ())

    @property
    def qualified(self) -> str:
        """The name that no other distribution can have: `distribution/name`."""
        return f"{self.provider}/{self.name}" if self.provider else self.target

    def load(self) -> type:
        """Import the class.

        Raises:
            PluginError: it is not usable, importing it raises or exits, or what it gives is no class with a card.
        """
        if self.problem is not None and self.status != "ambiguous":
            raise self._error(f"{self.status}: {self.problem.reason}", self.problem.fix)
        try:
            value = load_target(self.target)
            card = getattr(value, "card", None)
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise self._error(f"{brief(error)} at import", self._repair(error)) from error
        if not isinstance(value, type):
            raise self._error(f"{type(value).__name__} {value!r:.60}", "let the entry point name a class")
        if self.card is not None and not isinstance(card, Card):
            raise self._error(f"the card {card!r:.60}", "leave the card as its source states it")
        return value

    def provenance(self) -> dict[str, str]:
        """Where it comes from: distribution, version, file and the SHA-256 of that file."""
        from hashlib import sha256

        content = _content(Path(self.file)) if self.file else b""
        return {
            "distribution": self.provider,
            "version": self.version,
            "file": self.file or "",
            "sha256": sha256(content).hexdigest() if content else "",
        }

    def _error(self, got: str, fix: str) -> PluginError:
        provider = f" of {self.provider} {self.version} ({self.target})" if self.provider else ""
        return PluginError(f"{self.kind} {self.name!r}{provider}", expected="a class with a card", got=got, fix=fix)

    def _repair(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError) and error.name and error.name != self.target.partition(":")[0]:
            return f"pip install the distribution that provides {error.name!r}"
        return f"report it to the authors of {self.provider}, or block it" if self.provider else f"mend {self.file}"


def _content(file: Path) -> bytes:
    if file.is_file():
        return file.read_bytes()
    archive = next((parent for parent in file.parents if parent.is_file()), None)
    return zipimporter(str(archive)).get_data(str(file)) if archive else b""


_FILE_MODULE = "_losskit_file:"
_ENCODED = {"%": "%25", ".": "%2E"}
"""In names of modules, where a dot would stand for a package: pickle would look for that."""
_file_imports = threading.RLock()


def load_target(target: str) -> Any:
    """Import "module", "module:attribute" or "path/file.py:attribute"."""
    module, _, attributes = target.rpartition(":") if ":" in target else (target, "", "")
    value: Any = _import_file(Path(module).resolve()) if module.endswith(".py") else importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        value = getattr(value, attribute)
    return value


def _import_file(file: Path) -> ModuleType:
    name = _FILE_MODULE + "".join(_ENCODED.get(letter, letter) for letter in str(file))
    with _file_imports:
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is no Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def file_of(module: str) -> str | None:
    """The file that a module of this name was loaded from by `load_target`; None for any other.

    >>> file_of("_losskit_file:/home/me/my%2Eloss%2Epy"), file_of("losskit.loss")
    ('/home/me/my.loss.py', None)
    """
    if not module.startswith(_FILE_MODULE):
        return None
    name = module.removeprefix(_FILE_MODULE)
    for letter in reversed(_ENCODED):
        name = name.replace(_ENCODED[letter], letter)
    return name


def target_of(cls: type) -> str:
    """The target that loads a class: "module:Class", or "path/file.py:Class" for one loaded from a file."""
    return f"{file_of(cls.__module__) or cls.__module__}:{cls.__qualname__}"
