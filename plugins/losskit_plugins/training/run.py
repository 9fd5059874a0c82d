"""A finished training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from losskit.errors import ModelError, brief

__all__ = ["METRICS_FILE", "RECIPE_FILE", "Run", "plain_table", "read_metrics", "rows_of_metrics", "write_json"]

METRICS_FILE, RECIPE_FILE = "metrics.json", "recipe.yaml"


class Run:
    """A finished training, read from its folder.

    Args:
        path: the folder that `losskit train` wrote.

    Raises:
        ModelError: the folder holds no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metrics = read_metrics(self.path / METRICS_FILE)

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
        return "\n".join([*plain_table(rows_of_metrics(self.before, self.after)), self.sentence])

    @property
    def sentence(self) -> str:
        """The training in one line."""
        steps, speed, loss = (self.train[name] for name in ("steps", "samples_per_second", "loss"))
        return f"{steps} steps at {speed:.0f} samples per second, mean loss {loss:.4f}; saved in {self.path}"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def read_metrics(file: Path) -> dict[str, Any]:
    """What metrics.json holds.

    Raises:
        ModelError: it is missing, or not what losskit writes.
    """
    try:
        metrics: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        dict(metrics["before"])  # runs may come from anybody
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"run {file.parent}", expected=f"a folder with {file.name}", got=brief(error)) from error
    return metrics


def write_json(file: Path, record: Mapping[str, Any]) -> None:
    """Write a record; what is not finite becomes null, for JSON has no other word for it."""
    file.write_text(json.dumps(_finite(record), indent=2) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_of_metrics(
    before: Mapping[str, float | None], after: Mapping[str, float | None]
) -> list[tuple[str, str, str, str]]:
    """A line per metric: name, before, after, change; "-" for what is not known.

    >>> rows_of_metrics({"mrr@10": 0.25, "spearman": None}, {"mrr@10": 0.75, "spearman": 0.5})
    [('mrr@10', '0.2500', '0.7500', '+0.5000'), ('spearman', '-', '0.5000', '-')]
    """
    rows = []
    for name, new in after.items():
        old = before.get(name)
        change = "-" if old is None or new is None else f"{new - old:+.4f}"
        rows.append((name, *("-" if value is None else f"{value:.4f}" for value in (old, new)), change))
    return rows


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
