"""A finished training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from losskit.errors import ModelError

__all__ = ["METRICS_FILE", "Run", "plain_table", "rows_of_metrics"]

METRICS_FILE = "metrics.json"


class Run:
    """A finished training, read from its folder.

    Args:
        path: the folder that `losskit train` wrote.

    Raises:
        ModelError: the folder holds no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / METRICS_FILE
        try:
            self.metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"run {self.path}", expected=f"a folder with {METRICS_FILE}", got=f"{type(error).__name__}: {error}"
            ) from error

    @property
    def before(self) -> dict[str, float]:
        """Metrics before the first step, by name."""
        return dict(self.metrics["before"])

    @property
    def after(self) -> dict[str, float]:
        """Metrics after the last step, by name."""
        return dict(self.metrics["after"])

    @property
    def train(self) -> dict[str, float]:
        """`steps`, `samples_per_second` and the mean `loss` of the training."""
        return dict(self.metrics["train"])

    @cached_property
    def encoder(self) -> Any:
        """The trained encoder, loaded when first asked for."""
        import losskit

        return losskit.load(self.path)

    @property
    def summary(self) -> str:
        """Metrics before and after as a plain table."""
        train = self.train
        line = f"{train['steps']} steps, {train['samples_per_second']:.0f} samples/s, mean loss {train['loss']:.4f}"
        rows = rows_of_metrics(self.before, self.after)
        return "\n".join([*plain_table(rows), line, f"saved in {self.path}"])

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def rows_of_metrics(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """A line per metric: name, before, after, change.

    >>> rows_of_metrics({"mrr@10": 0.25}, {"mrr@10": 0.75})
    [('mrr@10', '0.2500', '0.7500', '+0.5000')]
    """
    return [
        (name, f"{before[name]:.4f}", f"{value:.4f}", f"{value - before[name]:+.4f}")
        for name, value in after.items()
        if name in before
    ]


def plain_table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Lines of aligned columns under a heading; none without rows.

    >>> print(*plain_table([("mrr@10", "0.2500", "0.7500", "+0.5000")]), sep="\\n")
    metric  before   after   change
    mrr@10  0.2500  0.7500  +0.5000
    """
    if not rows:
        return []
    table = [("metric", "before", "after", "change"), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    first, *others = widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in table
    ]
