"""`evaluate`: the metrics that data and encoder allow, or those asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from losskit import Encoder
from losskit.errors import DataError, did_you_mean
from losskit.recipe import EvalSource
from losskit_plugins.data import beir
from losskit_plugins.data.columns import Match
from losskit_plugins.data.files import checked_rows, match_evaluation

from .activity import activity_metrics, activity_names
from .classed_texts import ClassedTexts
from .pairs import Pairs
from .ranked_lists import RankedLists
from .retrieval import Retrieval
from .scored_pairs import ScoredPairs
from .scoring import Scorer

__all__ = ["GROUPS", "Task", "evaluate", "read_evaluation"]

GROUPS = {
    "retrieval": ("ndcg@10", "mrr@10", "recall@10"),
    "sparse": activity_names(("query", "document")),
}
"""Names that stand for several metrics."""


class Task(Protocol):
    """Evaluation data that can measure an encoder."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names it knows; those of `activity_names` come on top."""
        ...

    @property
    def roles(self) -> tuple[str, str]:
        """Those of the texts on either side of its scores."""
        ...

    def default_metrics(self, scorer: Scorer) -> tuple[str, ...]:
        """The names that say most about this encoder."""
        ...

    def measure(self, scorer: Scorer, names: Sequence[str]) -> dict[str, float]:
        """These metrics."""
        ...


def evaluate(
    encoder: Encoder,
    data: Task,
    metrics: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[str, float]:
    """Metrics of an encoder.

    Args:
        encoder: of any family.
        data: `ScoredPairs`, `ClassedTexts`, `Pairs`, `RankedLists`, `Retrieval`, or what `read_evaluation` returns.
        metrics: names, or groups of `GROUPS`; None: those that suit data and encoder, of a sparse one also how many
            dimensions are active.
        batch_size: texts or pairs per forward.
        progress: show bars.

    Raises:
        DataError: a metric that is unknown, or that these data or this encoder cannot give.
    """
    scorer = Scorer(encoder, batch_size, progress)
    active = activity_names(data.roles)
    sparse = encoder.family == "sparse"
    if metrics is None:
        names = [*data.default_metrics(scorer), *(active if sparse else ())]
    else:
        names = check_metrics(data, metrics)
    if not sparse and not set(active).isdisjoint(names):
        wanted = next(name for name in names if name in active)
        raise DataError(f"metric {wanted!r}", expected="a sparse encoder", got=f"one of the family {encoder.family}")
    found = data.measure(scorer, [name for name in names if name in data.metrics])
    if sparse:
        found |= activity_metrics(scorer.activity, data.roles)
    return {name: found[name] for name in names}


def check_metrics(data: Task, metrics: Sequence[str]) -> list[str]:
    """The names that are meant, groups spelt out.

    Raises:
        DataError: a name that is unknown, or that these data cannot give.
    """
    names = list(dict.fromkeys(name for each in metrics for name in GROUPS.get(each, (each,))))
    known = (*data.metrics, *activity_names(data.roles))
    for name in names:
        if name not in known:
            raise DataError(
                f"metric {name!r}", expected=f"of {type(data).__name__}: {', '.join(known)}",
                fix=did_you_mean(name, known),
            )  # fmt: skip
    return names


def read_evaluation(source: EvalSource) -> Task:
    """Evaluation data from a file or a BEIR folder; also checks the metrics that the source asks for.

    Raises:
        DataError: it cannot be read, its columns fit nothing of `EVALUATION_FORMATS`, or a value or metric is wrong.
    """
    matched = match_evaluation(source)
    if matched is None:
        task: Task = Retrieval(beir.read_collection(Path(source.path), source.split))
    else:
        task = _task(matched, list(checked_rows(source, matched)))
    check_metrics(task, source.metrics or ())
    return task


def _task(matched: Match, rows: Sequence[Mapping[str, Any]]) -> Task:
    columns = [[row[column.data] for row in rows] for column in matched.columns]
    if matched.label is None:
        others = [_as_lists(column) for column in columns[1:]]
        negatives = [[text for texts in each for text in texts] for each in zip(*others[1:], strict=True)]
        return Pairs(columns[0], others[0], negatives or [[]] * len(rows))
    if matched.label.kind == "class":
        return ClassedTexts(columns[0], [str(row[matched.label.data]) for row in rows])
    labels = [matched.label.final(row[matched.label.data]) for row in rows]
    if matched.label.kind == "score":
        return ScoredPairs(columns[0], columns[1], labels)
    documents = [[text for texts in each for text in texts] for each in zip(*map(_as_lists, columns[1:]), strict=True)]
    return RankedLists(columns[0], documents, labels)


def _as_lists(column: Sequence[str | list[str]]) -> list[list[str]]:
    return [[value] if isinstance(value, str) else value for value in column]
