"""What is installed: distributions by name, their metadata read once, and only as far as it matters.

Nothing here trusts what it reads. A distribution goes by the name of its metadata's folder, which its METADATA
must confirm, so that none can pass for another; and only files are read, for a pipe would never end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from .errors import brief
from .policy import normalize

__all__ = ["Distribution", "Installed", "Point"]

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
VERSION = re.compile(r"v?[0-9][A-Za-z0-9.!+_-]{0,99}")


class Point(NamedTuple):
    """A line of entry_points.txt."""

    group: str
    name: str
    value: str


class Distribution:
    """An installed distribution, as its metadata describe it.

    Args:
        found: what Python found.
        rivals: what it found of the same name in the same folder.
    """

    def __init__(self, found: metadata.Distribution, rivals: tuple[metadata.Distribution, ...] = ()) -> None:
        self._found, self._rivals = found, rivals
        self.folder = _folder(found)
        self._unreadable = ""

    @cached_property
    def name(self) -> str:
        """As METADATA writes it, if that is what its folder is called; else what the folder is called."""
        written = self._header("name")
        if self.folder is None or (NAME.fullmatch(written) and normalize(written) == _folder_name(self.folder)):
            return written
        return _folder_name(self.folder)

    @cached_property
    def version(self) -> str:
        """As METADATA writes it; nothing where that could be no version."""
        written = self._header("version")
        return written if VERSION.fullmatch(written) else ""

    @cached_property
    def requires(self) -> tuple[str, ...]:
        """Requirements (PEP 508)."""
        if self._headers:
            return tuple(value for key, value in self._headers if key == "requires-dist")
        return tuple(self._found.requires or ())

    @property
    def concerns_losskit(self) -> bool:
        """Whether it has entry points in losskit's groups; one whose entry points cannot be read may have some."""
        try:
            return "losskit." in self._points
        except UnicodeDecodeError as error:
            return b"losskit." in error.object
        except OSError:
            return True

    @property
    def flaw(self) -> str:
        """Why nothing of it can be used; nothing if all is well."""
        try:
            _ = self._points
        except (OSError, UnicodeDecodeError) as error:
            return f"its entry_points.txt cannot be read: {brief(error)}"
        name, version = self._header("name"), self._header("version")
        if not self._headers:
            return self._unreadable or "it has no METADATA"
        for header, value, pattern in (("Name", name, NAME), ("Version", version, VERSION)):
            if not pattern.fullmatch(value):
                return f"its METADATA says {header}: {value!r:.60}" if value else f"its METADATA has no {header}"
        if self.folder is not None and normalize(name) != _folder_name(self.folder):
            return f"its METADATA says Name: {name}, but it is installed as {_folder_name(self.folder)}"
        return ""

    @property
    def rivals(self) -> list[str]:
        """The versions that are installed over one another, where there are several."""
        versions = {Distribution(found).version for found in self._rivals} - {self.version}
        return sorted([self.version, *versions], key=_ordered) if versions else []

    @property
    def points(self) -> Iterator[Point | str]:
        """The entry points in losskit's groups, sorted, each once; the lines there that are none, as they are."""
        group, found = "", set()
        lines = [line.strip() for line in self._points.splitlines()]
        for line in lines:
            if line.startswith("[") and line.endswith("]"):
                group = line[1:-1].strip()
            elif line and line[0] not in "#;" and group.startswith("losskit."):
                name, equals, value = (part.strip() for part in line.partition("="))
                found.add(Point(group, name, value) if equals and name else Point(group, "", line))
        for point in sorted(found):
            yield point if point.name else f"{point.value!r:.60} in [{point.group}]"

    @cached_property
    def source(self) -> Path | None:
        """The folder that an editable installation refers to.

        Raises:
            ValueError: direct_url.json is malformed.
        """
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        text = self._text("direct_url.json")
        origin: Any = json.loads(text) if text else {}
        try:
            editable = origin.get("dir_info", {}).get("editable")
            return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{origin!r:.60} is no origin") from error

    @cached_property
    def files(self) -> frozenset[Path] | None:
        """The files that it brought; None where it does not say."""
        names = self._found.files
        return None if names is None else frozenset(Path(str(self._found.locate_file(name))) for name in names)

    @cached_property
    def _points(self) -> str:
        return self._text("entry_points.txt")

    @cached_property
    def _headers(self) -> list[tuple[str, str]]:
        """The headers of METADATA; its long description is not looked at."""
        headers: list[tuple[str, str]] = []
        try:
            text = self._text("METADATA") or self._text("PKG-INFO") or self._text("")
        except (OSError, UnicodeDecodeError) as error:
            self._unreadable = f"its METADATA cannot be read: {brief(error)}"
            return headers
        for line in text.partition("\n\n")[0].split("\n"):
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                headers.append((key.strip().lower(), value.strip()))
        return headers

    def _header(self, key: str) -> str:
        return next((value for name, value in self._headers if name == key), "")

    def _text(self, name: str) -> str:
        """A file of the metadata; nothing where it is missing, or no file."""
        if not isinstance(self.folder, Path):  # in an archive, or wherever a finder has it from
            return self._found.read_text(name) or ""
        file = self.folder / name if name else self.folder
        return file.read_text(encoding="utf-8") if file.is_file() else ""


class Installed:
    """All distributions, each the one that Python would import."""

    def __init__(self) -> None:
        self._found: dict[str, Distribution | None] = {}

    def __iter__(self) -> Iterator[Distribution]:
        """Those there are, by name."""
        for name in sorted(self._candidates):
            found = self.find(name)
            if found is not None:
                yield found

    def find(self, name: str) -> Distribution | None:
        """A distribution by its name."""
        key = normalize(name)
        if key not in self._found:
            self._found[key] = _first(self._candidates.get(key) or list(metadata.distributions(name=name)))
        return self._found[key]

    @cached_property
    def _candidates(self) -> dict[str, list[metadata.Distribution]]:
        """All that Python finds, by name, in the order of its path."""
        found: dict[str, list[metadata.Distribution]] = {}
        for distribution in metadata.distributions():
            folder = _folder(distribution)
            if folder is not None and folder.name.startswith("~"):  # what pip was about to remove
                continue
            name = _folder_name(folder) if folder is not None else normalize(distribution.metadata["Name"] or "")
            found.setdefault(name, []).append(distribution)
        return found


def _first(found: list[metadata.Distribution]) -> Distribution | None:
    """The first on the path; of several in one folder, whose order is that of the disk, the newest."""
    if len(found) < 2:
        return Distribution(found[0]) if found else None
    place = str(found[0].locate_file(""))
    beside = [each for each in found if str(each.locate_file("")) == place]
    if len(beside) == 1:
        return Distribution(beside[0])
    newest = max(beside, key=lambda each: (_ordered(Distribution(each).version), str(_folder(each))))
    return Distribution(newest, tuple(beside))


def _folder(distribution: metadata.Distribution) -> Path | None:
    # Where metadata lie is no part of the interface; installers read it off this attribute too.
    folder: Path | None = getattr(distribution, "_path", None)
    return folder


def _folder_name(folder: Path) -> str:
    """The distribution's name as its folder of metadata has it.

    >>> _folder_name(Path("site-packages/LK_Angle-1.0.dist-info"))
    'lk-angle'
    """
    if folder.name.lower() == "egg-info":
        folder = folder.parent
    return normalize(re.sub(r"\.(dist-info|egg-info|egg)$", "", folder.name).partition("-")[0])


def _ordered(version: str) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", version)], version
