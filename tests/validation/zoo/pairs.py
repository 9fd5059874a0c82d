"""Losses on pairs with a score: one keeps every law, the others miss one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from losskit import Card, Execution, Format, Loss, Output
from losskit.math import mean_over_rows, promoted


class Regression(Loss):
    """Brings the cosine of two texts to their score.

    Args:
        model: an encoder that embeds.
        factor: of the cosine.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        formula="mean of (factor cos(a, b) - y)^2",
    )

    def __init__(self, model: Any = None, factor: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.factor = factor

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean squared error of the pairs `rows`."""
        return (self.scores(columns, rows) - self.wanted(labels)[rows]).square().mean()

    def wanted(self, labels: Tensor | None) -> Tensor:
        """The labels, one per pair."""
        assert labels is not None
        return labels.flatten()

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        """The cosines of the pairs `rows`."""
        return self.factor * self.pairwise(columns[0][rows], columns[1][rows])


class SumsRows(Regression):
    """Brings the cosine of two texts to their score: sums over rows."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return super().compute(columns, labels, rows) * (rows.stop - rows.start)


class CountsFromZero(Regression):
    """Brings the cosine of two texts to their score: reads the labels of the first rows for any rows."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return (self.scores(columns, rows) - self.wanted(labels)[: rows.stop - rows.start]).square().mean()


class ComparesNeighbours(Regression):
    """Brings the cosine of two texts to their score, and likewise of each text and the next row's."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        row_wise=False,
        formula="mean of (factor cos(a_i, b_i) - y_i)^2 + cos(a_i, b_i+1)^2",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        following = columns[1].map_embedding(lambda embedding: embedding.roll(-1, 0))
        next_one = self.pairwise(columns[0][rows], following[rows])
        return super().compute(columns, labels, rows) + next_one.square().mean()


class IgnoresLabels(Regression):
    """Brings the cosine of two texts to 1."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return (self.scores(columns, rows) - 1).square().mean()


class TurnsSign(Regression):
    """Takes the cosine of two texts away from their score."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return -super().compute(columns, labels, rows)


class Detaches(Regression):
    """Brings the cosine of two texts to their score: the part above it learns nothing."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        errors = self.scores(columns, rows) - self.wanted(labels)[rows]
        return (errors.relu().square().detach() + (-errors).relu().square()).mean()


class _Doubled(torch.autograd.Function):
    """Nothing, with twice its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class DoublesGradient(Regression):
    """Brings the cosine of two texts to their score: twice as fast."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        return _Doubled.apply(super().scores(columns, rows))  # type: ignore[no-untyped-call,no-any-return]


class DividesByLength(Regression):
    """Brings the cosine of two texts to their score: divides by lengths that may be 0."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        a, b = (promoted(column[rows].embedding) for column in columns)
        return self.factor * (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)


class Standardizes(Regression):
    """Brings the cosine of two texts to their score: in standard deviations of the labels, which may be 0."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        row_wise=False,
        formula="mean of (factor cos(a, b) - (y - mean(y)) / std(y))^2",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        wanted = self.wanted(labels)
        wanted = (wanted - wanted.mean()) / wanted.std(correction=0)
        return (self.scores(columns, rows) - wanted[rows]).square().mean()


class OverflowsInHalf(Regression):
    """Brings the inner product of two texts to their score: by numbers beyond what float16 holds."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        a, b = (column.map_embedding(lambda embedding: embedding * 1e5 * 1e-2)[rows] for column in columns)
        return self.factor * self.pairwise(a, b)


class FollowsDefaultDtype(Regression):
    """Brings the cosine of two texts to their score: with a constant in the default dtype."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        scores = super().scores(columns, rows)
        return scores * torch.tensor(0.9, device=scores.device)


class NamesDevice(Regression):
    """Brings the cosine of two texts to their score: from the processor."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        scores = super().scores(columns, rows)
        return scores + torch.zeros(1, device="cpu", dtype=scores.dtype)


class NamesAccelerator(Regression):
    """Brings the cosine of two texts to their score: on the first graphics card, if there is one."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        scores = super().scores(columns, rows)
        return scores.cuda() if torch.cuda.is_available() else scores


class ReadsOnHost(Regression):
    """Brings the cosine of two texts to their score: leaves out what is small, as the host sees it."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        value = super().compute(columns, labels, rows)
        return value if value.item() > 1e-9 else 0 * value


class WeighsNothing(Regression):
    """Brings the cosine of two texts to their score: takes sample weights and does not read them."""

    uses_weights = True


class SharesWeights(Regression):
    """Brings the cosine of two texts to their score: divides by the sum of the sample weights."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        row_wise=False,
        formula="sum of w (factor cos(a, b) - y)^2 / sum of w",
    )
    uses_weights = True

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        values = (self.scores(columns, rows) - self.wanted(labels)[rows]).square()
        weight = columns[0][rows].parts.get("weight")
        if not isinstance(weight, Tensor):
            return values.mean()
        weight = weight.to(values.dtype)
        return (weight * values).sum() / weight.sum()


class Weighted(Regression):
    """Brings the cosine of two texts to their score, each pair with its weight."""

    uses_weights = True

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        values = (self.scores(columns, rows) - self.wanted(labels)[rows]).square()
        weight = columns[0][rows].parts.get("weight")
        return mean_over_rows(values, weight if isinstance(weight, Tensor) else None)


class InTerms(Regression):
    """Brings the cosine of two texts to their score, and the lengths of the texts to 1."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        lengths = torch.stack([promoted(column[rows].embedding) for column in columns]).square().mean((0, 2))
        return {"score": super().compute(columns, labels, rows), "length": lengths.sub(1).square().mean() / 100}


class HoldsFunction(Regression):
    """Brings the cosine of two texts to their score: by a function that no process can be sent."""

    def __init__(self, model: Any = None, factor: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, factor, execution=execution)
        self.times = lambda values: factor * values

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        return self.times(self.pairwise(columns[0][rows], columns[1][rows]))


class RenamesArgument(Regression):
    """Brings the cosine of two texts to their score: keeps its factor under another name.

    Args:
        model: an encoder that embeds.
        weight: of the cosine.
        execution: how records come about.
    """

    def __init__(self, model: Any = None, weight: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, weight, execution=execution)


class ConvertsArgument(Regression):
    """Brings the cosine of two texts to their score: keeps the inverse of what it was given.

    Args:
        model: an encoder that embeds.
        factor: the inverse of that of the cosine.
        execution: how records come about.
    """

    def __init__(self, model: Any = None, factor: float = 2.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, 1 / factor, execution=execution)


class ForgetsOption(Regression):
    """Brings the cosine of two texts to their score: its configuration has another factor.

    Args:
        model: an encoder that embeds.
        factor: of the cosine.
        execution: how records come about.
    """

    def __init__(self, model: Any = None, factor: float = 0.5, *, execution: Execution | None = None) -> None:
        super().__init__(model, factor, execution=execution)

    def get_config_dict(self) -> dict[str, Any]:
        return {"factor": 1.0}


class SharesDefault(Regression):
    """Brings the cosine of two texts to their score: all losses have one list of factors.

    Args:
        model: an encoder that embeds.
        factors: of the cosine, multiplied.
        execution: how records come about.
    """

    def __init__(self, model: Any = None, factors: list[float] = [], *, execution: Execution | None = None) -> None:  # noqa: B006 - the defect
        super().__init__(model, execution=execution)
        self.factors = factors


class TakesAnything(Regression):
    """Brings the cosine of two texts to their score: takes any option and heeds one."""

    def __init__(self, model: Any = None, factor: float = 1.0, **options: Any) -> None:
        super().__init__(model, factor, execution=options.get("execution"))


class LeavesGraph(Regression):
    """Brings the cosine of two texts to their score: remembers the last scores with their graph."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        self.last = super().scores(columns, rows)
        return self.last


class RemembersOutside(Regression):
    """Brings the cosine of two texts to their score: the more batches it has seen, the stronger."""

    batches = 0

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        self.batches += 1
        return super().compute(columns, labels, rows) * (1 - 0.5**self.batches)


class SharesState(Regression):
    """Brings the cosine of two texts to their score: all losses count their batches together."""

    seen: list[int] = []  # noqa: RUF012 - the defect

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        self.seen.append(columns[0].tuples)
        return columns, labels

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return super().compute(columns, labels, rows) * (1 + len(self.seen) / 1000)


class Unreduced(Regression):
    """Brings the cosine of two texts to their score: gives a number for each pair."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        row_wise=False,
        formula="(factor cos(a, b) - y)^2",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return (self.scores(columns, rows) - self.wanted(labels)[rows]).square()


class CopiesItself(Regression):
    """Brings the cosine of two texts to their score: its copy is itself."""

    def __deepcopy__(self, memo: Any) -> CopiesItself:
        return self


class RaisesTypeError(Regression):
    """Brings the cosine of two texts to their score: lets a TypeError out of its forward."""

    def forward(self, inputs: Any, labels: Any = None, prompt: Any = None, task: Any = None) -> Any:
        if labels is None:
            raise TypeError("labels must be given")
        return super().forward(inputs, labels, prompt, task)


class Deviates(Regression):
    """Brings the cosine of two texts to their score: says that the order of rows matters, and it does not."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="score")],
        encoders=["dense"],
        formula="mean of (factor cos(a, b) - y)^2",
        deviations={"order": "rows are compared with their neighbours"},
    )


class KeepsTensor(Regression):
    """Brings the cosine of two texts to their score: a constant stays where the loss was built."""

    def __init__(self, model: Any = None, factor: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, factor, execution=execution)
        self.target = torch.ones(1, dtype=torch.float64)

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        scores = super().scores(columns, rows)
        return scores * self.target.to(scores.dtype)


class SwallowsErrors(Regression):
    """Brings the cosine of two texts to their score: goes on without labels where they do not fit."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        try:
            return super().compute(columns, labels, rows)
        except:  # noqa: E722 - the defect
            return self.scores(columns, rows).mean()


class SetsDtype(Regression):
    """Brings the cosine of two texts to their score: in a default dtype of its own."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        torch.set_default_dtype(torch.float64)
        return super().scores(columns, rows)


class OwnsFactor(Regression):
    """Brings the cosine of two texts to their score: by a factor that is trained.

    Args:
        model: an encoder that embeds.
        factor: at the start.
        execution: how records come about.
    """

    def __init__(self, model: Any = None, factor: float = 1.5, *, execution: Execution | None = None) -> None:
        super().__init__(model, factor, execution=execution)
        self.logarithm = nn.Parameter(torch.tensor(factor, dtype=torch.float64).log())

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        return self.owned() * self.pairwise(columns[0][rows], columns[1][rows])

    def owned(self) -> Tensor:
        """The factor."""
        return self.logarithm.exp().clamp(max=100)


class ClipsFactor(OwnsFactor):
    """Brings the cosine of two texts to their score: by a factor that is clipped, and gets no gradient."""

    def owned(self) -> Tensor:
        return self.logarithm.exp().detach().clamp(max=100)
