"""What is said on stderr while something runs: messages, and on a terminal a bar."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from .output import plain

__all__ = ["CheckBar", "Progress"]


class Progress:
    """Shows messages of the logger `losskit` and the progress of trainings, as a context.

    Args:
        quiet: warnings only.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
            expand=True,
        )
        self._handler = _Messages(self.console)

    def __enter__(self) -> Self:
        logger = logging.getLogger("losskit")
        logger.addHandler(self._handler)
        logger.setLevel(logging.WARNING if self.quiet else logging.INFO)
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()
        logging.getLogger("losskit").removeHandler(self._handler)

    @property
    def callbacks(self) -> Sequence[Any]:
        """For a trainer."""
        return [TrainingBar(self.bars)]


class TrainingBar:
    """A callback of transformers that moves a bar; any event it does not know passes by.

    Args:
        bars: where it is drawn.
    """

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the bar, as far as a resumed training has come."""
        self.task = self.bars.add_task("training", total=state.max_steps, completed=state.global_step, values="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step more."""
        self.bars.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Show the loss."""
        if self.task is not None and "loss" in logs:
            self.bars.update(self.task, values=f"loss {logs['loss']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.bars.remove_task(self.task)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


class CheckBar:
    """The bar of a validation, as a context: what is under way, and how much is done.

    Args:
        quiet: no bar.
        total: how much there is to do; None: not known.
        console: where it is drawn; None: stderr.
    """

    def __init__(self, quiet: bool = False, total: int | None = None, console: Console | None = None) -> None:
        console = console or Console(stderr=True, highlight=False)
        what = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False, table_column=what),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            expand=True,
        )
        self.task = self.bars.add_task("starting", total=total)
        self._began = False

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def begin(self, name: str) -> None:
        """Show what begins; what began before it is done."""
        self.bars.update(self.task, description=plain(name), advance=int(self._began))
        self._began = True

    def end(self, name: str) -> None:
        """Show what has ended."""
        self.bars.update(self.task, description=plain(name), advance=1)


class _Messages(logging.Handler):
    """Log records as lines above the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, however wide the terminal."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        style = "yellow" if prefix else ""
        self.console.print(Text(prefix + plain(record.getMessage()), style=style), soft_wrap=True)
