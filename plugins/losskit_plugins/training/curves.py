"""A training as a picture: loss, learning rate, metrics and similarities over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_curves"]

History = Sequence[Mapping[str, float]]
Series = dict[str, tuple[list[float], list[float]]]

OWN = ("step", "epoch", "loss", "learning_rate", "grad_norm", "effective_negatives")
SIMILARITIES = {"mean_positive_similarity": "positives", "mean_negative_similarity": "negatives"}
COMPONENTS = 8


def draw_curves(history: History, before: Mapping[str, float], after: Mapping[str, float], file: Path) -> None:
    """Draw what was logged into a PNG.

    Args:
        history: the trainer's log: a dict per log with `step` and values by name; evaluations start with `eval_`.
        before: metrics before the first step.
        after: metrics after the last step.
        file: where the picture goes.
    """
    training = [entry for entry in history if "loss" in entry]
    measured = _evaluation(history, before, after)
    panels: list[tuple[str, Series]] = [
        ("Loss", _loss(training)),
        ("Evaluation", {name: each for name, each in measured.items() if not _counts(name)}),
        ("Active dimensions", {name: each for name, each in measured.items() if _counts(name)}),
        ("Learning rate", _series(training, {"learning_rate": "learning rate"})),
        ("Mean similarity", _series(training, SIMILARITIES)),
    ]
    panels = [(title, series) for title, series in panels if series]
    figure = Figure(figsize=(11, 3.6 * ((len(panels) + 1) // 2) + 0.2), dpi=120)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    FigureCanvasAgg(figure)
    for position, (title, series) in enumerate(panels, start=1):
        _panel(figure.add_subplot((len(panels) + 1) // 2, min(2, len(panels)), position), title, series)
    figure.savefig(file)


def _loss(training: History) -> Series:
    series = _series(training, {"loss": "loss"})
    names = dict.fromkeys(name for entry in training for name in entry if name not in (*OWN, *SIMILARITIES))
    return series | _series(training, {name: name for name in list(names)[:COMPONENTS]})


def _evaluation(history: History, before: Mapping[str, float], after: Mapping[str, float]) -> Series:
    last = max((entry["step"] for entry in history), default=0)
    entries = [
        {"step": 0, **before},
        *({"step": e["step"], **{k.removeprefix("eval_"): v for k, v in e.items()}} for e in history if _evaluates(e)),
        {"step": last, **after},
    ]
    return _series(entries, {name: name for name in (after or before)})


def _counts(metric: str) -> bool:
    """Whether a metric is a number of dimensions, and not between -1 and 1 as others are."""
    return metric.startswith("active-dims-") or metric == "flops"


def _evaluates(entry: Mapping[str, float]) -> bool:
    return any(name.startswith("eval_") for name in entry)


def _series(entries: History, names: Mapping[str, str]) -> Series:
    """Per label the steps and values of one name; names that never appear are left out."""
    series: Series = {}
    for name, label in names.items():
        points = {entry["step"]: entry[name] for entry in entries if name in entry}
        if points:
            series[label] = list(points), list(points.values())
    return series


def _panel(axes: Axes, title: str, series: Series) -> None:
    for index, (label, (steps, values)) in enumerate(series.items()):
        axes.plot(
            steps, values, label=label, color=f"C{index}", linewidth=2.0 if index == 0 else 1.3,
            marker="o" if len(steps) <= 12 else None, markersize=4,
        )  # fmt: skip
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("optimizer steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if title == "Learning rate":
        axes.yaxis.set_major_formatter("{x:.1e}")
    if len(series) > 1 or title in ("Evaluation", "Active dimensions"):
        axes.legend(frameon=False, fontsize="small")
