"""Contrastive losses over the batch: some keep every law, the others miss one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output
from losskit.math import Block, mean_over_rows, promoted, softmax_cross_entropy


class InfoNCE(Loss):
    """Tells the positive of an anchor from all other documents of the batch.

    Args:
        model: an encoder that embeds.
        scale: inverse temperature.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"])],
        encoders=["dense"],
        memory="B^2",
        formula="mean over i of log sum_j exp(scale s_ij) - scale s_ii",
    )
    uses_weights = True

    def __init__(self, model: Any = None, scale: float = 10.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean cross-entropy of the anchors `rows`."""
        weight = columns[0][rows].parts.get("weight")
        values = self.entropy(self.scores(columns, rows), rows)
        return mean_over_rows(values, weight if isinstance(weight, Tensor) else None)

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        """Those of the anchors `rows` with all documents, positives first."""
        return self.scale * self.matrix(columns[0][rows], Output.cat(columns[1:]))

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        """That of each row."""
        positives = torch.arange(rows.start, rows.stop, device=scores.device)
        return scores.logsumexp(1) - scores.gather(1, positives[:, None]).squeeze(1)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has no negatives."""
        return "" if rows * (columns - 1) > 1 else "one row without negatives has nothing to be told from"


class Tiled(InfoNCE):
    """Tells the positive of an anchor from all other documents of the batch, tile by tile."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"])],
        encoders=["dense", "multi-vector"],
        memory="tile",
        formula="mean over i of log sum_j exp(scale s_ij) - scale s_ii",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean cross-entropy of the anchors `rows`."""
        anchors, documents = columns[0][rows], Output.cat(columns[1:])
        targets = torch.arange(rows.start, rows.stop, device=documents.tensors()[0].device)
        weight = anchors.parts.get("weight")
        like = promoted(documents.tensors()[0])
        shares = weight.to(like.dtype) if isinstance(weight, Tensor) else like.new_ones(anchors.tuples)
        return softmax_cross_entropy(
            [Block(anchors, documents)], targets, shares / anchors.tuples, similarity=self.scorer, scale=self.scale
        )


class Unstable(InfoNCE):
    """Tells positives from other documents: by exponents of inner products as they are."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        a, b = columns[0][rows].embedding, Output.cat(columns[1:]).embedding
        assert a is not None
        assert b is not None
        return a.double() @ b.double().T

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        positives = torch.arange(rows.start, rows.stop, device=scores.device)
        return scores.exp().sum(1).log() - scores.gather(1, positives[:, None]).squeeze(1)


class ClaimsTile(InfoNCE):
    """Tells positives from other documents: says that it holds a tile of the scores, and holds all."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"])],
        encoders=["dense"],
        memory="tile",
        formula="mean over i of log sum_j exp(scale s_ij) - scale s_ii",
    )


class Cubic(InfoNCE):
    """Tells positives from other documents: holds a number for each anchor and two documents."""

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        positives = torch.arange(rows.start, rows.stop, device=scores.device)
        differences = (scores[:, None, :] - scores[:, :, None]).logsumexp(2)
        return differences.gather(1, positives[:, None]).squeeze(1)


class ReadsTwoColumns(InfoNCE):
    """Tells positives from other documents: negatives are not read."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        return super().scores(columns[:2], rows)


class PositivesOfOthers(InfoNCE):
    """Tells positives from other documents: takes the first documents for the positives of any rows."""

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        return super().entropy(scores, slice(0, rows.stop - rows.start))


class Transposed(InfoNCE):
    """Tells positives from other documents: takes the worst document for the positive."""

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        return super().entropy(-scores, rows)


class PicksByMask(InfoNCE):
    """Tells positives from other documents: picks the negatives by a mask, whose size the host must know."""

    def entropy(self, scores: Tensor, rows: slice) -> Tensor:
        own = torch.zeros_like(scores, dtype=torch.bool)
        own[:, rows.start : rows.stop].fill_diagonal_(True)
        negatives = scores[~own].view(len(scores), -1)
        positives = scores[own]
        return torch.cat([positives[:, None], negatives], 1).logsumexp(1) - positives


class Loops(InfoNCE):
    """Tells positives from other documents: goes through all of them in Python."""

    def scores(self, columns: Sequence[Output], rows: slice) -> Tensor:
        scores = super().scores(columns, rows)
        return torch.stack([torch.stack([each + 0 for each in row.unbind(0)]) for row in scores.unbind(0)])
