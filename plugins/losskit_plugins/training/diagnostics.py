"""Whether embeddings spread or collapse, and how sparse they are, seen through a loss's observers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from losskit import Loss, Output
from losskit.registry import name_of

__all__ = ["Diagnostics", "Similarities", "effective_negatives"]

logger = logging.getLogger("losskit")

ROWS = 256
"""Rows of a batch that are measured at most: enough for a mean, and never a whole score matrix."""
COLLAPSED = 0.99
GAP = 1e-3


class Similarities(NamedTuple):
    """Similarities of some rows: of each with what belongs to it, and with everything else.

    Args:
        positives: [p].
        negatives: [rows, m].
        where: [rows, m], True where a negative counts.
    """

    positives: Tensor
    negatives: Tensor
    where: Tensor


def effective_negatives(negatives: Tensor, where: Tensor, *, scale: float) -> Tensor:
    """How many negatives matter: exp of the entropy of their softmax, averaged over rows.

    As many as there are if all are equally near, 1 if one outweighs the rest.

    Args:
        negatives: [rows, m] similarities.
        where: [rows, m], True where a negative counts; rows without any are left out.
        scale: what similarities are multiplied by.

    >>> equal = torch.zeros(2, 5)
    >>> effective_negatives(equal, torch.ones(2, 5, dtype=torch.bool), scale=20.0)
    tensor(5.)
    """
    rows = where.any(dim=1)
    logits = (scale * negatives[rows]).masked_fill(~where[rows], -torch.inf)
    logs = logits.log_softmax(dim=1)
    entropy = -(logs.exp() * logs.masked_fill(~where[rows], 0.0)).sum(dim=1)
    return entropy.exp().mean()


class Diagnostics:
    """Measures the last batch of a loss: similarities of positives and negatives, and effective negatives.

    Of a sparse encoder also the mean number of active dimensions, in the first column and in all others.

    It looks at losses of embeddings with two columns or more; the first is compared with each other. What belongs
    to a row is its own item of column 1, or of a list column those items whose label is above 0. Scores of
    cross-encoders are no similarities and are left out.

    Args:
        loss: observed from now on.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self._last: tuple[list[Output], Tensor | None, slice] | None = None
        self._warned = False
        loss.observers.append(self._see)

    def forget(self) -> None:
        """Let go of the last batch."""
        self._last = None

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The diagnostics of the last batch; empty where there is nothing to compare."""
        if self._last is None or self.loss.encoder.family == "cross-encoder":
            return {}
        columns, labels, rows = self._last
        active = _active(columns, rows) if self.loss.encoder.family == "sparse" else {}
        if len(columns) < 2 or any(column.embedding is None for column in columns):
            return active
        found = self._similarities(columns, labels, slice(rows.start, min(rows.stop, rows.start + ROWS)))
        if not found.positives.numel() or not found.where.any():
            return active
        values = {
            "mean_positive_similarity": float(found.positives.mean()),
            "mean_negative_similarity": float(found.negatives[found.where].mean()),
            "effective_negatives": float(effective_negatives(found.negatives, found.where, scale=self._scale())),
        }
        self._warn(values)
        return active | values

    def _see(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> None:
        self._last = [Output(c.embedding, c.mask, lists=c.lists) for c in columns], labels, rows

    def _similarities(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Similarities:
        core, anchors = self._core(), columns[0][rows]
        scores = [core.matrix(anchors, column).float() for column in columns[1:]]
        owners = torch.tensor(_owners(columns[1]), device=scores[0].device)
        mine = owners[None, :] == torch.arange(rows.start, rows.stop, device=owners.device)[:, None]
        positive = mine if columns[1].lists is None or labels is None else mine & (labels > 0)[None, :]
        where = torch.cat(
            [~mine if columns[1].lists is None else mine & ~positive, *map(_everything, scores[1:])], dim=1
        )
        return Similarities(scores[0][positive], torch.cat(scores, dim=1), where)

    def _core(self) -> Loss:
        """The innermost loss, whose similarity and scale count."""
        loss = self.loss
        while loss.inner:
            loss = next(iter(loss.inner.values()))
        return loss

    def _scale(self) -> float:
        core = self._core()
        scale = core.get_config_dict().get("scale")
        # Cosines lie within [-1, 1]: unscaled, their softmax would be flat whatever the embeddings are.
        default = 20.0 if name_of(type(core.scorer)) == "cosine" else 1.0
        return default if scale is None else float(scale)

    def _warn(self, values: dict[str, float]) -> None:
        positive, negative = values["mean_positive_similarity"], values["mean_negative_similarity"]
        if self._warned or not (min(positive, negative) > COLLAPSED and abs(positive - negative) < GAP):
            return
        self._warned = True
        logger.warning(
            "The embeddings of %s have collapsed: mean similarity %.4f of positives and %.4f of negatives. "
            "Lower the learning rate, warm up longer, or check that positives differ from negatives.",
            type(self.loss).__name__, positive, negative,
        )  # fmt: skip


def _active(columns: Sequence[Output], rows: slice) -> dict[str, float]:
    """The mean number of entries that are not 0, of queries and of documents; of a single column, of its texts."""
    counts = [column[rows].embedding.count_nonzero(1) for column in columns if column.embedding is not None]
    sides = {"active_dims_query": counts[:-1][:1], "active_dims_document": counts[1:] or counts}
    found = {name: torch.cat(side).double() for name, side in sides.items() if side}
    return {name: float(each.mean()) for name, each in found.items() if each.numel()}


def _owners(column: Output) -> list[int]:
    """To which row each item of a column belongs."""
    lists = column.lists or (1,) * column.items
    return [row for row, count in enumerate(lists) for _ in range(count)]


def _everything(scores: Tensor) -> Tensor:
    return torch.ones_like(scores, dtype=torch.bool)
