"""Parsed sources kept between runs; safe to delete at any time, never needed."""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Cache"]

Record = dict[str, Any]


class Cache:
    """Records by file, each valid while the file's time and size stay what they were.

    The file's first line is the checksum of the rest, so what was damaged or half-written reads as empty.
    Writing replaces the file at once; of two processes that write together the later one wins.

    Args:
        folder: where the cache file lies; None: the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._entries: dict[str, list[Any]] | None = None
        self._changed: dict[str, list[Any]] = {}

    def get(self, file: str, stamp: tuple[int, int]) -> Record | None:
        """The record of a file, if it was kept and the file is unchanged."""
        if self._entries is None:
            self._entries = self._load()
        entry = self._entries.get(file)
        return entry[1] if entry is not None and entry[0] == list(stamp) else None

    def put(self, file: str, stamp: tuple[int, int], record: Record) -> None:
        """Keep a record; written by `save`."""
        self._changed[file] = [list(stamp), record]

    def save(self) -> None:
        """Write what is new; a folder that cannot be written is nobody's problem."""
        if not self._changed:
            return
        import tempfile

        kept = {file: entry for file, entry in self._load().items() if os.path.lexists(file)}
        body = json.dumps(kept | self._changed, separators=(",", ":"))
        try:
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(f"{zlib.crc32(body.encode())}\n{body}")
            Path(temporary).replace(path)
        except OSError:
            return
        self._changed.clear()

    def _load(self) -> dict[str, list[Any]]:
        try:
            checksum, _, body = self._path().read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return {}
        if checksum != str(zlib.crc32(body.encode())):
            return {}
        entries: dict[str, list[Any]] = json.loads(body)
        return entries

    def _path(self) -> Path:
        # What the parser writes depends on this version of it and of Python's own.
        parser = Path(__file__).with_name("source.py").stat().st_mtime_ns
        folder = self._folder or _user_cache_folder()
        return folder / f"sources-{sys.version_info[0]}{sys.version_info[1]}-{parser:x}.json"


def _user_cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("losskit", appauthor=False)
