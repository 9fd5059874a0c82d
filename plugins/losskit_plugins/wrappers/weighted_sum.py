"""A weighted sum of losses on the same batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from torch import Tensor, nn

from losskit import Card, Execution, Format, Loss, Output, Wrapper
from losskit.card import split_input
from losskit.errors import LossError, check_number
from losskit.loss import Value
from losskit.wrapper import prefixed

from .schedule import check_schedule, scheduled

__all__ = ["WeightedSumLoss"]


class WeightedSumLoss(Wrapper):
    """Adds several losses of one batch, each with a name and a weight.

    Args:
        model: the encoder.
        losses: by name.
        weights: by the same names, a number or a schedule such as
            `{"schedule": "linear", "from": 0, "to": 1, "delay": 0.1, "warmup": 0.3}` (see `scheduled`), which
            follows the training's progress and stands at its end in evaluation. A missing weight is 1, None: all.
            A loss whose weight is the number 0 is not computed.
        execution: how records come about.

    Raises:
        LossError: no loss, a weight without a loss or that is none, losses that no common data fits, or with a
            cross-encoder losses that score other pairs of the same texts.
    """

    card = Card(
        encoders=["dense", "sparse", "multi-vector", "cross-encoder"],
        memory="B",
        formula="sum over k of w_k(progress) loss_k",
        relations=["With one loss of weight 1 it is that loss."],
    )
    identity = {"losses": {"only": "multiple-negatives-ranking"}}  # noqa: RUF012 - read as it stands

    def __init__(
        self,
        model: Any,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float | Mapping[str, Any]] | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        Loss.__init__(self, model, execution=execution)
        self.losses = _named(type(self).__name__, losses)
        self.weights = None if weights is None else dict(weights)
        self._check_options()
        self._check_inner()
        if model is not None and self.encoder.family == "cross-encoder":
            self.drawn_pairs(_some_texts(self.formats[0]))  # which says whether they agree

    @property
    def inner(self) -> Mapping[str, Loss]:
        """The summed losses."""
        return {f"losses.{name}": loss for name, loss in self.losses.items()}

    @property
    def formats(self) -> tuple[Format, ...]:
        """The data that every loss takes."""
        return reduce(_common, (loss.formats for loss in self.losses.values()))

    @property
    def needs(self) -> tuple[str, ...]:
        """What any of the losses reads."""
        return tuple(dict.fromkeys(need for loss in self.losses.values() for need in loss.needs))

    @property
    def reads(self) -> Mapping[str, Sequence[int] | None] | None:
        """What any of the losses reads; None: one of them reads all columns."""
        found: dict[str, Sequence[int] | None] = {}
        for loss in self.losses.values():
            if loss.reads is None:
                return None
            for name, places in loss.reads.items():
                known = found.get(name, ())
                both = None if known is None or places is None else sorted({*known, *places})
                found[name] = both
        return found

    @property
    def row_wise(self) -> bool:
        """If all losses are."""
        return all(loss.row_wise for loss in self.losses.values())

    @property
    def fixed_dimension(self) -> bool:
        """If any loss does."""
        return any(loss.fixed_dimension for loss in self.losses.values())

    @property
    def takes_weights(self) -> bool:
        """If all losses do."""
        return all(loss.takes_weights for loss in self.losses.values())

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """Every loss under its name, times its weight."""
        values: dict[str, Tensor] = {}
        for name, loss in self.losses.items():
            weight = self._weight(name)
            if weight is not None:
                for key, each in prefixed(name, loss.compute(columns, _labels_for(loss, labels), rows)).items():
                    values[key] = each * weight
        return values

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Any]:
        """That of each loss, under its name."""
        found: dict[str, Any] = {}
        for name, loss in self.losses.items():
            inner = loss.denominator(columns, _labels_for(loss, labels), rows)
            found.update(prefixed(name, inner) if isinstance(inner, dict) else {name: inner})
        return found

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Each loss in turn; none may append what another would then see."""
        for name, loss in self.losses.items():
            seen, _ = loss.observe(columns, _labels_for(loss, labels))
            if seen[0].tuples != columns[0].tuples:
                raise LossError(
                    f"{type(self).__name__}.losses.{name}",
                    expected="a loss that adds no rows to the batch",
                    got=f"{type(loss).__name__}, which does",
                    fix="train with it alone",
                )
        return columns, labels

    def pairs(self, columns: Sequence[Any], drawn: Any = None) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """Those of every loss.

        Raises:
            LossError: two losses want different pairs scored.
        """
        made = {name: loss.pairs(columns, loss.drawn) for name, loss in self.losses.items()}
        first, *others = made
        for name in others:
            if made[name] != made[first]:
                raise LossError(
                    f"{type(self).__name__}.losses.{name}",
                    expected=f"the pairs of texts that {first} scores, as all share their scores",
                    got=f"others, of {type(self.losses[name]).__name__}",
                    fix="train with each loss alone",
                )
        return made[first]

    def _weight(self, name: str) -> float | None:
        """The weight of a loss at this moment; None where it is left out for good."""
        weight = 1.0 if self.weights is None else self.weights.get(name, 1.0)
        if isinstance(weight, Mapping):
            return scheduled(weight, self.progress)
        return weight or None

    def _check_options(self) -> None:
        name = type(self).__name__
        if not self.losses:
            raise LossError(f"{name}.losses", expected="one loss or more", got="none")
        if self.weights is not None and all(self.weights.get(key) == 0 for key in self.losses):
            raise LossError(f"{name}.weights", expected="one that is not 0", got=repr(self.weights))
        unknown = sorted(set(self.weights or ()) - set(self.losses))
        if unknown:
            raise LossError(f"{name}.weights", expected=f"names among {', '.join(self.losses)}", got=", ".join(unknown))
        for key, weight in (self.weights or {}).items():
            check = check_schedule if isinstance(weight, Mapping) else check_number
            check(f"{name}.weights.{key}", weight)
        if not self.formats:
            raise LossError(
                f"{name}.losses",
                expected="losses that some data fits in common",
                got="; ".join(f"{key}: {_described(loss.formats)}" for key, loss in self.losses.items()),
            )


def _named(name: str, losses: Mapping[str, Loss]) -> nn.ModuleDict:
    """The losses as modules, whose names stand in paths and before slashes."""
    try:
        modules = nn.ModuleDict(dict(losses))
    except KeyError as error:
        raise LossError(f"{name}.losses", expected="names that a module can have", got=str(error.args[0])) from None
    slashed = [key for key in modules if "/" in key]
    if slashed:
        raise LossError(f"{name}.losses", expected="names without a slash", got=", ".join(slashed))
    return modules


def _some_texts(form: Format) -> list[list[Any]]:
    """Columns of a format, all texts in them different."""
    names = [split_input(name) for name in form.inputs]
    columns = [name for name, suffix in names for _ in range(2 if suffix in ("*", "+") else 1)]
    return [
        [
            [f"{place} {row} {text}" for text in range(2)] if name == "documents" else f"{place} {row}"
            for row in range(6)
        ]
        for place, name in enumerate(columns)
    ]


def _labels_for(loss: Loss, labels: Tensor | None) -> Tensor | None:
    """The labels, for a loss that takes any."""
    return None if all(item.labels == "none" for item in loss.formats) else labels


def _common(formats: Sequence[Format], others: Sequence[Format]) -> tuple[Format, ...]:
    """The data that fits one of each."""
    found = (_narrowed(a, b) for a in formats for b in others)
    return tuple(dict.fromkeys(item for item in found if item is not None))


def _narrowed(a: Format, b: Format) -> Format | None:
    """What fits both, in the words of the first; None if nothing does."""
    if "none" not in (a.labels, b.labels) and a.labels != b.labels:
        return None
    (few_a, most_a), (few_b, most_b) = a.arity, b.arity
    fewest = max(few_a, few_b)
    limits = [most for most in (most_a, most_b) if most is not None]
    most = min(limits, default=None)
    if most is not None and fewest > most:
        return None
    names = [column.rstrip("*+?") for column in a.inputs]
    names += [names[-1]] * (max(fewest, most or 0) - len(names))
    if most is None:
        inputs = [*names[:fewest], f"{names[-1]}*"]
    else:
        inputs = [*names[:fewest], *(f"{name}?" for name in names[fewest:most])]
    return Format(inputs, b.labels if a.labels == "none" else a.labels, a.outputs or b.outputs)


def _described(formats: Sequence[Format]) -> str:
    return " or ".join(f"({', '.join(item.inputs)}) with labels {item.labels}" for item in formats)
