"""Writes the files of a folder all together or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from losskit.errors import RecipeError, brief

__all__ = ["check_folder", "folder_at", "write_files"]


def folder_at(path: str) -> Path:
    """A folder, of which `~` at the beginning means somebody's home.

    Raises:
        RecipeError: nobody has that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        expected = "the home of somebody, or ./~ for a folder of that name"
        raise RecipeError(f"--out {path}", expected=expected, got="nobody's") from None


def check_folder(folder: Path, paths: Sequence[str], *, whole: bool, force: bool) -> None:
    """Refuse a folder into which files cannot be written, or only over others.

    Args:
        folder: that need not exist.
        paths: of the files, below it.
        whole: whether the folder is to hold nothing else.
        force: whether what is there may be replaced.

    Raises:
        RecipeError: what stands in the way, or that it cannot be looked at.
    """
    with _told(folder):
        if os.path.lexists(folder) and not folder.is_dir():
            got = "a file of that name" if folder.exists() else "a link to nothing"
            raise RecipeError(f"--out {folder}", expected="a folder", got=got)
        if not folder.exists():
            return
        there = [str(folder)] if whole and any(folder.iterdir()) else []
        there = there or [str(folder / path) for path in paths if os.path.lexists(folder / path)]
        if there and not force:
            fix = "write --force to replace what is written anew, or another --out"
            raise RecipeError(there[0], expected="nothing there, or an empty folder", got="something", fix=fix)
        for path in paths:
            _check_place(folder, folder / path)


def _check_place(folder: Path, file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        raise RecipeError(str(file), expected="a file or nothing", got="a folder")
    for parent in file.relative_to(folder).parents:
        place = folder / parent
        if place != folder and os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
            raise RecipeError(str(place), expected="a folder", got="a link" if place.is_symlink() else "a file")


def write_files(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write files below a folder, which is made if need be; what else is there stays.

    They are written beside their place first. If moving them fails, what they replaced is put back.

    Args:
        folder: as `check_folder` left it.
        files: texts by path.
        force: whether what is there may be replaced.

    Raises:
        RecipeError: they cannot be written; then nothing has changed.
    """
    with _told(folder):
        fresh = not folder.exists()
        place = folder.parent if fresh else folder
        with _made(place), _aside(place / f".losskit-new-{os.urandom(4).hex()}") as aside:
            for path, text in files.items():
                file = aside / "new" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            if fresh:
                (aside / "new").rename(folder)
                return
            with contextlib.ExitStack() as folders:
                for path in files:
                    folders.enter_context(_made((folder / path).parent))
                _move(aside, folder, list(files), force)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder that is there; if what follows fails, it is not there any more than before."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder for a while."""
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(aside: Path, folder: Path, paths: Sequence[str], force: bool) -> None:
    """Put new files in their places; all, or none."""
    done: list[str] = []
    try:
        for path in paths:
            place, old = folder / path, aside / "old" / path
            old.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place) and not force:  # it was not when the folder was checked
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
            done.append(path)
            if os.path.lexists(place):
                place.rename(old)
            (aside / "new" / path).rename(place)
    except BaseException:
        for path in reversed(done):
            if os.path.lexists(aside / "old" / path):
                (aside / "old" / path).replace(folder / path)
            elif not (aside / "new" / path).exists():
                (folder / path).unlink()
        raise


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        expected = "a folder that can be written"
        raise RecipeError(f"--out {folder}", expected=expected, got=brief(error)) from None
