"""What the laws are checked on: a component, the encoder under it, and the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..card import Card, Format
from ..clock import Clock
from ..features import unload
from ..loss import Loss, Value
from ..output import Output
from ..protocols import Regularizer
from ..registry import get
from .batches import CLASSES, Batch, random_batch
from .toys import ToyEncoder

__all__ = ["Subject", "subjects"]

MOMENT = Clock(step=1, progress=0.5)
"""Where the training stands unless a law says otherwise: schedules ask."""


@dataclass(frozen=True)
class Subject:
    """A component with an encoder family and a format.

    Args:
        make: a loss's class, or a function from a model to the loss; the class of a similarity, regularizer,
            weighting or encoder, or a function that makes one.
        kind: "loss", "wrapper", "similarity", "regularizer", "weighting" or "encoder".
        family: of the toy encoder.
        form: the data; None: the first format.
        negatives: columns that a starred input gives.
        lists: inputs that hold several texts per row.
        weights: whether rows have sample weights.
        equals: for a wrapper that its options make the identity: what makes the inner loss.
        seed: of encoder and data.
        rows: of the data.
        plain: whether `make` wraps a plain module, which has no stages that laws could look at.
        component: the class that is looked at, where `make` does not tell it.
        encoder: what makes the encoder under a loss; None: a toy.
        note: what else distinguishes it, such as options.
    """

    make: Callable[..., Any]
    kind: str = "loss"
    family: str = "dense"
    form: Format | None = None
    negatives: int = 1
    lists: tuple[str, ...] = ("documents",)
    weights: bool = False
    equals: Callable[..., Loss] | None = None
    seed: int = 0
    rows: int = 6
    plain: bool = False
    component: type | None = None
    encoder: Callable[[], Any] | None = None
    note: str = ""

    def __str__(self) -> str:
        parts = [] if self.kind == "encoder" else [self.family, *(self.form.inputs if self.form else ())]
        parts += [*(["weights"] if self.weights else []), *([self.note] if self.note else [])]
        return "-".join([*parts, *([f"{self.rows}-rows"] if self.rows != Subject.rows else [])])

    def build(self, *, dropout: float = 0.0, seed: int | None = None) -> Loss:
        """The loss on a new toy encoder, the same each time; a component of a loss stands in one that reads it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            outputs = CLASSES if self.form is not None and self.form.outputs == "classes" else 1
            toy = ToyEncoder(self.family, dropout=dropout, outputs=outputs)
            model = toy if self.encoder is None else self.encoder()
            loss: Loss = _AROUND[self.kind](model, self.make()) if self.kind in _AROUND else self.make(model)
            loss.set_clock(MOMENT)
            return loss

    @cached_property
    def looked_at(self) -> type:
        """The class of the component."""
        if self.component is not None:
            return self.component
        made = getattr(self.make, "func", self.make)
        if isinstance(made, type):
            return made
        built = self.make() if self.kind == "encoder" else self.build()
        return type(getattr(built, self.kind) if self.kind in _AROUND else built)

    @property
    def card(self) -> Card | None:
        """That of the component."""
        found: Card | None = getattr(self.looked_at, "card", None)
        return found

    @cached_property
    def place(self) -> tuple[str | None, int | None]:
        """File and line of what the component does, as far as they can be known."""
        try:
            cls = self.looked_at
            does = next((vars(cls)[name] for name in _DOES if name in vars(cls)), cls)
            return inspect.getsourcefile(does), inspect.getsourcelines(does)[1]
        except Exception:  # noqa: BLE001 - a stranger's component may raise anything when it is made
            return None, None

    @cached_property
    def batch(self) -> Batch:
        """The data."""
        form = self.form or self.build().formats[0]
        return random_batch(
            form,
            rows=self.rows,
            negatives=self.negatives,
            lists=self.lists,
            weights=self.weights,
            dimension=8,
            seed=self.seed,
        )

    def records(self, loss: Loss, batch: Batch | None = None) -> list[Output]:
        """The columns as the loss stage gets them, as leaves that ask for gradients."""
        features, riders = zip(*map(unload, (batch or self.batch).features(loss)), strict=True)
        with torch.no_grad():
            return [column.map(as_leaf) for column in loss._encoded(features, riders)]


def as_leaf(tensor: Tensor) -> Tensor:
    """A copy that asks for a gradient, if one can flow to it."""
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())


def subjects(
    make: Callable[..., Any],
    *,
    kind: str = "loss",
    families: Sequence[str] | None = None,
    **settings: Any,
) -> list[Subject]:
    """A subject for every encoder family and format of a component; an encoder is one by itself.

    Args:
        make: as in `Subject`.
        kind: as in `Subject`.
        families: of encoders; None: those of its card, dense where it names none.
        settings: further arguments of `Subject`.
    """
    first = Subject(make, kind, **settings)
    if kind == "encoder":
        return [first]
    if families is None:
        card = getattr(make, "card", None) or first.card  # what is made on request is made for a dense encoder
        families = (card.encoders if card is not None else ()) or ("dense",)
    found = [replace(first, family=family) for family in families]
    if first.form is not None:
        return found
    return [replace(each, form=form) for each in found for form in each.build().formats]


_DOES = ("compute", "score", "forward", "__call__", "__init__")
"""The methods whose line is where to look first."""


class _Reading(Loss):
    """Reads all of a similarity: mean over i of sum over j of sin(s_ij), plus 2 sin of the pairwise one."""

    card: ClassVar[Card] = Card(
        formats=[Format(["text", "text"])], encoders=["dense", "sparse", "multi-vector"], memory="B"
    )

    def __init__(self, model: Any, similarity: Any) -> None:
        super().__init__(model)
        self.similarity = similarity

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """Matrix and pairwise of the tuples `rows`."""
        a, b = columns[0][rows], columns[1]
        return (self.matrix(a, b).sin().sum(1) + 2 * self.pairwise(a, b[rows]).sin()).mean()


class _Regularized(Loss):
    """A regularizer alone, of queries and documents."""

    card: ClassVar[Card] = Card(
        formats=[Format(["text", "text"])], encoders=["dense", "sparse", "multi-vector"], row_wise=False, memory="B"
    )

    def __init__(self, model: Any, regularizer: Regularizer) -> None:
        super().__init__(model)
        self.regularizer = regularizer

    @property
    def remembers(self) -> bool:
        """Whether the regularizer does."""
        return isinstance(self.regularizer, nn.Module) and any(True for _ in self.regularizer.buffers())

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Lets the regularizer see the records, if it asks for that."""
        see = getattr(self.regularizer, "observe", None)
        if see is not None:
            with torch.no_grad():
                see(columns[0], columns[1])
        return columns, labels

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """The penalty on the tuples `rows`."""
        return self.regularizer(columns[0][rows], columns[1][rows])


def _weighted(model: Any, weighting: Any) -> Loss:
    """The loss that weightings are made for."""
    loss: Loss = get("loss", "lambda").load()(model, weighting)
    return loss


_AROUND: dict[str, Callable[[Any, Any], Loss]] = {
    "similarity": _Reading,
    "regularizer": _Regularized,
    "weighting": _weighted,
}
"""Per kind of component that is none itself, a loss that holds it under the name of its kind."""
