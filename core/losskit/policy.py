"""Which plugins may be used, decided before anything of theirs is imported.

The same keys stand in `[tool.losskit]` of the nearest pyproject.toml at or above the working folder and at
the top of `losskit.toml` in the user's configuration folder:

    [tool.losskit]
    allow = ["lk-angle"]                 # only these; without the key: all
    block = ["lk-old", "lk-angle/aoe"]   # not these
    plugins = false                      # none at all

    [tool.losskit.pins]                  # who provides a name that several distributions claim
    angle = "lk-angle"
    "loss:triplet" = "lk-triplets"       # for one kind only

`allow` and `block` take distributions and components, `distribution/name`. `LOSSKIT_PLUGINS_ALLOW` and
`LOSSKIT_PLUGINS_BLOCK` hold the same, separated by commas; an empty `LOSSKIT_PLUGINS_ALLOW` allows none.
On the command line these are `--allow`, `--block` and `--no-plugins`.

The command line goes before environment, project and user: the first that has `allow` or `plugins`, or that
pins a name, decides. What any of them blocks is blocked. Nothing here concerns what losskit itself brings,
except pins and `block = ["losskit/name"]`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .errors import RecipeError, brief, did_you_mean

__all__ = ["BUILTIN", "Policy", "normalize"]

BUILTIN = "losskit"
"""The distribution whose components are built in."""


@cache
def normalize(distribution: str) -> str:
    """A distribution's name as indexes compare it.

    >>> normalize("LK_Angle.extra")
    'lk-angle-extra'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()


@dataclass(frozen=True)
class Policy:
    """What is allowed, blocked and pinned, each with the source that says so.

    Args:
        allow: normalised distributions or `distribution/name`; None: all.
        block: entry -> source.
        pins: `name` or `kind:name` -> (normalised distribution, source).
        allowed_by: where `allow` comes from.
    """

    allow: frozenset[str] | None = None
    block: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    allowed_by: str = ""

    @classmethod
    def read(
        cls,
        *,
        allow: Sequence[str] | None = None,
        block: Sequence[str] = (),
        plugins: bool = True,
        folder: Path | None = None,
    ) -> Policy:
        """Join the command line (the arguments) with environment, project and user configuration.

        Args:
            allow: as `--allow`; None: not given.
            block: as `--block`.
            plugins: False is `--no-plugins`: no configuration is read at all.
            folder: where the search for pyproject.toml begins; None: the working folder.

        Raises:
            RecipeError: a configuration that does not parse, or a key or value that cannot be.
        """
        if not plugins:
            return cls(allow=frozenset(), allowed_by="--no-plugins")
        sources = [
            _Source("the command line", allow=allow, block=block),
            _environment(),
            _project(folder or Path.cwd()),
            _user(),
        ]
        deciding = next((source for source in sources if source.allow is not None), None)
        blocked: dict[str, str] = {}
        pins: dict[str, tuple[str, str]] = {}
        for source in sources:
            for entry in source.block:
                blocked.setdefault(_entry(entry), source.name)
            for name, distribution in source.pins.items():
                pins.setdefault(name, (normalize(distribution), source.name))
        if deciding is None or deciding.allow is None:
            return cls(None, blocked, pins)
        return cls(frozenset(map(_entry, deciding.allow)), blocked, pins, deciding.name)

    def refusal(self, distribution: str, name: str = "") -> str:
        """Why a component, or all of a distribution, may not be used; nothing if it may."""
        entries = (normalize(distribution), f"{normalize(distribution)}/{name}")
        for entry in entries:
            if entry in self.block and entry != BUILTIN:
                return f"{entry} is blocked by {self.block[entry]}"
        if self.allow is None or entries[0] == BUILTIN or self.allow.intersection(entries):
            return ""
        return f"{entries[0]} is not allowed by {self.allowed_by}"

    def pin(self, kind: str, name: str) -> tuple[str, str] | None:
        """The distribution that a name is pinned to, and by whom."""
        return self.pins.get(f"{kind}:{name}", self.pins.get(name))


@dataclass(frozen=True)
class _Source:
    name: str
    allow: Sequence[str] | None = None
    block: Sequence[str] = ()
    pins: Mapping[str, str] = field(default_factory=dict)


def _entry(text: str) -> str:
    distribution, slash, name = text.strip().partition("/")
    return normalize(distribution) + slash + name


def _environment() -> _Source:
    def entries(variable: str) -> list[str] | None:
        value = os.environ.get(variable)
        return None if value is None else [entry for entry in value.split(",") if entry.strip()]

    return _Source(
        "the environment", allow=entries("LOSSKIT_PLUGINS_ALLOW"), block=entries("LOSSKIT_PLUGINS_BLOCK") or ()
    )


def _project(folder: Path) -> _Source:
    for parent in (folder, *folder.parents):
        file = parent / "pyproject.toml"
        if file.is_file():
            return _read(file, table=("tool", "losskit"))
    return _Source("")


def _user() -> _Source:
    from platformdirs import user_config_path

    file = user_config_path("losskit", appauthor=False) / "losskit.toml"
    return _read(file) if file.is_file() else _Source("")


def _read(file: Path, table: Sequence[str] = ()) -> _Source:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RecipeError(str(file), expected="a file that can be read", got=error.strerror or str(error)) from error
    if table and table[-1] not in text:
        return _Source("")
    import tomllib

    try:
        settings: Any = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(str(file), expected="TOML", got=brief(error), fix="mend it, or use --no-plugins") from error
    for key in table:
        settings = settings.get(key, {}) if isinstance(settings, dict) else {}
    return _checked(settings, str(file), ".".join(table))


def _checked(settings: Any, file: str, prefix: str) -> _Source:
    checks: dict[str, tuple[str, Any]] = {
        "allow": ("a list of strings", _strings),
        "block": ("a list of strings", _strings),
        "plugins": ("true or false", lambda value: isinstance(value, bool)),
        "pins": ("a table of strings", lambda value: isinstance(value, dict) and _strings([*value.values()])),
    }
    if not isinstance(settings, dict):
        raise RecipeError(f"{prefix} in {file}", expected="a table", got=repr(settings))
    for key, value in settings.items():
        culprit = f"{prefix}.{key} in {file}".lstrip(".")
        if key not in checks:
            fix = did_you_mean(key, checks) or f"remove it; there are {', '.join(checks)}"
            raise RecipeError(culprit, expected="a key of losskit's configuration", got="an unknown one", fix=fix)
        expected, check = checks[key]
        if not check(value):
            raise RecipeError(culprit, expected=expected, got=repr(value))
    allow = settings.get("allow") if settings.get("plugins", True) else []
    return _Source(file, allow=allow, block=settings.get("block", ()), pins=settings.get("pins", {}))


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
