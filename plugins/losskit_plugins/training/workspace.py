"""Where a run is written until it is whole: a folder beside the output, renamed at the end."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from losskit.errors import ModelError, RecipeError

__all__ = ["Workspace"]

logger = logging.getLogger("losskit")

STATE = "trainer_state.json"


@dataclass
class Workspace:
    """The folder of an unfinished run, `NAME.partial` beside the output `NAME`.

    As a context it makes the folder, and after a failure leaves nothing of it but checkpoints. Of several
    processes only the first writes.

    Args:
        output: where the finished run shall be.
        resume: go on from the last checkpoint, of an unfinished run or of a finished one.
        force: replace what is there.
        replaceable: whether an existing output may be replaced unasked.
    """

    output: Path
    resume: bool = False
    force: bool = False
    replaceable: Callable[[Path], bool] = field(default=lambda output: False)

    def __post_init__(self) -> None:
        self.main = os.environ.get("RANK", "0") == "0"
        if self.output.is_symlink():
            self.output = self.output.resolve()  # a link stays one, and what it leads to is replaced
        self.checkpoint: Path | None = None
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        self.checkpoint = self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None and self.main and (kept := self.abandon()) is not None:
            logger.warning("The unfinished run is kept in %s; --resume goes on with it.", kept)

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return self.output.with_name(f"{self.output.name}.partial")

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie while it runs; they stay in the finished run."""
        return self.folder / "checkpoints"

    def check(self, inputs: Iterable[Path] = ()) -> None:
        """Refuse an output that would be overwritten; writes nothing.

        Args:
            inputs: files and folders that the run is made from, which replacing the output must not remove.

        Raises:
            RecipeError: the output is a file, or is not empty, or a run into it was left unfinished; or it holds
                the working folder or an input.
        """
        if not self.main:
            return
        output, here = self.output.resolve(), Path.cwd()
        if output in (here, *here.parents):
            raise RecipeError(
                f"output {self.output}", expected="a folder of its own", got="the working folder, or one around it",
                fix="choose another output",
            )  # fmt: skip
        if self.resume and self.force:
            raise RecipeError("--resume and --force", expected="one of them", got="both")
        if self.output.exists() and not self.output.is_dir():
            raise RecipeError(f"output {self.output}", expected="a folder", got="a file", fix="choose another output")
        if self.resume or self.force:
            for path in inputs:
                if path.resolve().is_relative_to(output) and path.exists():
                    raise RecipeError(
                        f"output {self.output}", expected="a folder without what the run is made from", got=str(path),
                        fix="choose another output, or move that elsewhere",
                    )  # fmt: skip
            return
        if _filled(self.output) and not self.replaceable(self.output):
            raise RecipeError(
                f"output {self.output}", expected="a new or an empty folder", got="one that is not empty",
                fix="choose another output, or give --force to replace it, or --resume to train on",
            )  # fmt: skip
        if self.folder.exists() and not self._leftover_is_replaceable():
            raise RecipeError(
                f"output {self.output}", expected="no unfinished run", got=f"one in {self.folder}",
                fix="give --resume to go on with it, or --force to start over",
            )  # fmt: skip

    def open(self) -> Path | None:
        """Make the folder, and say which checkpoint to go on from.

        Raises:
            RecipeError: the output cannot be written, or it is finished and kept no checkpoint.
        """
        checkpoint = self._last_checkpoint() if self.resume else None
        if self.resume and checkpoint is None and _filled(self.output):
            raise RecipeError(
                f"--resume into {self.output}", expected="a run that kept a checkpoint", got="a finished one without",
                fix="give --force to train it anew, or choose another output",
            )  # fmt: skip
        if not self.main:
            return checkpoint
        if checkpoint is None or self.folder not in checkpoint.parents:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._remove_made()
            raise RecipeError(
                f"output {self.output}", expected="a place that can be written", got=error.strerror or str(error),
                fix="choose another output",
            ) from error  # fmt: skip
        return checkpoint

    def final(self, path: Path) -> Path:
        """Where a path will be once the run is finished."""
        inside = path.is_relative_to(self.folder)
        return self.output / path.relative_to(self.folder) if inside else path

    def wait(self) -> None:
        """Let all processes come here before any goes on."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def earlier(self, name: str) -> Path | None:
        """A file of the run that is gone on with, if there is one."""
        places = (self.folder, self.output) if self.resume else ()
        return next((place / name for place in places if (place / name).exists()), None)

    def finish(self) -> None:
        """Put the finished run in its place.

        Raises:
            ModelError: the folder could not be renamed; the run is kept where it is.
        """
        old = self.output.with_name(f"{self.output.name}.replaced")
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()
        try:
            shutil.rmtree(old, ignore_errors=True)
            if self.output.exists():
                self.output.rename(old)
            self.folder.rename(self.output)
        except OSError as error:
            raise ModelError(
                f"output {self.output}", got=error.strerror or str(error), fix=f"the finished run is in {self.folder}"
            ) from error
        shutil.rmtree(old, ignore_errors=True)

    def abandon(self) -> Path | None:
        """After a failure: keep the folder if a run can go on from it, else leave nothing; returns what is kept."""
        if self._last_checkpoint(self.checkpoints) is not None:
            return self.folder
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_made()
        return None

    def _remove_made(self) -> None:
        for path in self._made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def _leftover_is_replaceable(self) -> bool:
        """Whether it is empty, or of the kind that may go and nothing that could be resumed."""
        return not _filled(self.folder) or (
            self.replaceable(self.folder) and self._last_checkpoint(self.checkpoints) is None
        )

    def _last_checkpoint(self, *places: Path) -> Path | None:
        """The checkpoint with the most steps that was written to its end, of the unfinished run first."""
        for place in places or (self.checkpoints, self.output / "checkpoints"):
            states = place.glob(f"checkpoint-*/{STATE}")
            steps = {state.parent.name.removeprefix("checkpoint-"): state.parent for state in states}
            whole = [step for step in steps if step.isdecimal()]
            if whole:
                return steps[max(whole, key=int)]
        return None


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
