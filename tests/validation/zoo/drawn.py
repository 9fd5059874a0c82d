"""Losses that draw random numbers, follow the training's progress or remember batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output


class Noisy(Loss):
    """Wants a positive nearer than a negative, by a margin that is drawn for the batch.

    Args:
        model: an encoder that embeds.
        margin: the highest there is.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative"])],
        encoders=["dense"],
        stochastic=True,
        formula="mean of softplus(s(a, n) - s(a, p) + u margin), u uniform in [0, 1)",
    )

    def __init__(self, model: Any = None, margin: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.margin = margin

    def draw(self, generator: torch.Generator, sizes: Sequence[int]) -> float:
        """The share of the margin."""
        return float(torch.rand((), generator=generator, device=generator.device))

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean over the triplets `rows`."""
        anchor, positive, negative = (column[rows] for column in columns)
        missing = self.pairwise(anchor, negative) - self.pairwise(anchor, positive)
        return functional.softplus(missing + self.margin * self.share()).mean()

    def share(self) -> float:
        """Of the margin."""
        drawn: float = self.drawn
        return drawn


class DrawsInSecret(Noisy):
    """Wants a positive nearer than a negative, by a margin that is drawn: and does not say so."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative"])],
        encoders=["dense"],
        formula="mean of softplus(s(a, n) - s(a, p) + margin)",
    )


class DrawsNothing(Noisy):
    """Wants a positive nearer than a negative: says that it draws, and does not."""

    def share(self) -> float:
        return 1.0


class DrawsGlobally(Noisy):
    """Wants a positive nearer than a negative, by a margin that the global generator gives."""

    def share(self) -> float:
        return float(torch.rand(()))


class Scheduled(Noisy):
    """Wants a positive nearer than a negative, by a margin that grows in the course of the training."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative"])],
        encoders=["dense"],
        formula="mean of softplus(s(a, n) - s(a, p) + progress margin)",
    )

    def share(self) -> float:
        return self.progress


class Queue(Loss):
    """Tells a positive from the documents of this batch and of some before.

    Args:
        model: an encoder that embeds.
        size: how many documents are remembered.
        scale: inverse temperature.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        memory="B^2",
        fixed_dimension=True,
        formula="mean over i of log sum_j exp(scale s_ij) - scale s_ii, j over documents and memory",
    )

    def __init__(
        self, model: Any = None, size: int = 16, scale: float = 10.0, *, execution: Execution | None = None
    ) -> None:
        super().__init__(model, execution=execution)
        self.size = size
        self.scale = scale
        self.register_buffer("memory", torch.zeros(0, 0))

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Remembers the documents, and appends those of before to the columns."""
        embeddings = columns[1].embedding
        assert embeddings is not None
        before = self.memory.to(embeddings) if self.memory.numel() else embeddings.detach()[:0]
        self.memory = torch.cat([before, embeddings.detach()])[-self.size :]
        return [column.map_embedding(lambda own: torch.cat([own, before])) for column in columns], labels

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean cross-entropy of the anchors `rows`."""
        scores = self.scale * self.matrix(columns[0][rows], columns[1])
        positives = torch.arange(rows.start, rows.stop, device=scores.device)
        return functional.cross_entropy(scores, positives)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has no negatives."""
        return "" if rows > 1 or self.memory.numel() else "one row has nothing to be told from"


class ForgetsMemory(Queue):
    """Tells a positive from the documents of this batch and of some before, which no checkpoint has."""

    def __init__(
        self, model: Any = None, size: int = 16, scale: float = 10.0, *, execution: Execution | None = None
    ) -> None:
        super().__init__(model, size, scale, execution=execution)
        self.register_buffer("memory", torch.zeros(0, 0), persistent=False)


class RemembersInCompute(Queue):
    """Tells a positive from the documents of this batch and of the last, remembered at each call."""

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        return columns, labels

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        longer, _ = super().observe(list(columns), labels)
        return super().compute(longer, labels, rows)
