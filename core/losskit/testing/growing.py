"""What a component takes in memory and work where one of its sizes grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..card import split_input
from ..loss import Loss
from ..math import contrastive, over_tiles
from ..output import Output
from .batches import WORDS
from .compare import total
from .meters import Meter
from .stage import all_rows, leaves_of, prepare
from .subject import Subject, as_leaf

__all__ = ["Cost", "Run", "cost", "stage"]

FEW = 4
"""How many rows there are where something else grows."""
TILE_BYTES = 2**17
"""A smaller tile, so that what is bounded by one shows it at small sizes."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """What a forward and backward took.

    Args:
        size: of what grows.
        memory: the peak, in bytes, beyond what was there before.
        work: numbers gone through.
        calls: operations, however large.
    """

    size: int
    memory: int
    work: int
    calls: int


def cost(subject: Subject, axis: str, size: int) -> Cost | None:
    """That of a component at a size; None where it has no such size.

    Args:
        subject: with the component.
        axis: "B", rows; "D", the width of embeddings; or "n", documents or negatives of a row.
        size: how many.
    """
    run = _MADE.get(subject.kind, _of_loss)(subject, axis, size)
    if run is None:
        return None
    try:
        with _small_tiles(), Meter() as meter:
            run()
    except (RuntimeError, ValueError):
        if axis != "D":
            raise
        return None  # parameters of a width that the card does not declare: another law says so
    return Cost(size, meter.peak, meter.work, meter.calls)


@contextmanager
def _small_tiles() -> Iterator[None]:
    before = contrastive.TILE_BYTES
    contrastive.TILE_BYTES = TILE_BYTES
    try:
        yield
    finally:
        contrastive.TILE_BYTES = before


def _of_loss(subject: Subject, axis: str, size: int) -> Run | None:
    """A forward and backward at a size, with what they start from already made."""
    if axis == "B":
        return stage(*prepare(replace(subject, rows=size)))
    few = replace(subject, rows=FEW)
    if axis == "D":
        return _widened(few, size)
    form = subject.form or subject.build().formats[0]
    last, suffix = split_input(form.inputs[-1])
    if suffix in ("*", "+"):
        return stage(*prepare(replace(few, negatives=size)))
    return _lengthened(few, size) if last in subject.lists else None


def stage(loss: Loss, columns: Sequence[Output], labels: Tensor | None) -> Run:
    """A forward and backward of the loss stage."""
    leaves = leaves_of(columns, loss)

    def run() -> None:
        value = total(loss.compute(columns, labels, all_rows(columns)))
        if value.requires_grad:
            torch.autograd.grad(value, leaves, allow_unused=True)

    return run


def _widened(subject: Subject, width: int) -> Run | None:
    """With embeddings repeated to a width; of what has a width of its own nothing is known."""
    loss, columns, labels = prepare(subject)
    narrow = None if subject.family == "cross-encoder" or loss.fixed_dimension else loss.encoder.dimension
    if narrow is None:
        return None

    def wide(tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or tensor.shape[-1] != narrow:
            return tensor
        return tensor.detach().repeat(*[1] * (tensor.ndim - 1), width // narrow).requires_grad_(tensor.requires_grad)

    return stage(loss, [column.map(wide) for column in columns], None if labels is None else wide(labels))


def _lengthened(subject: Subject, documents: int) -> Run:
    """With as many documents in each list of the last column."""
    batch = subject.batch
    generator = torch.Generator().manual_seed(subject.seed)
    texts = [WORDS[place % len(WORDS)] for place in range(documents)]
    labels = batch.labels
    if isinstance(labels, list):
        labels = [torch.randint(3, (documents,), generator=generator).double() / 2 for _ in labels]
    longer = replace(batch, columns=[*batch.columns[:-1], [texts] * batch.rows], labels=labels)
    return stage(*prepare(subject, longer))


def _of_similarity(subject: Subject, axis: str, size: int) -> Run | None:
    """All pairs in tiles, as a contrastive loss has them."""
    if axis == "n":
        return None
    few = replace(subject, rows=size if axis == "B" else FEW)
    loss = few.build()
    a, b = few.records(loss)
    if axis == "D":
        a, b = (c.map_embedding(lambda t: as_leaf(t.detach().repeat(*[1] * (t.ndim - 1), size // 8))) for c in (a, b))

    def run() -> None:
        value = over_tiles(a, b, lambda scores, _: scores.sin().sum(), similarity=loss.scorer)
        assert isinstance(value, Tensor)
        value.backward()

    return run


def _of_weighting(subject: Subject, axis: str, size: int) -> Run | None:
    """The weights of a few lists."""
    if axis != "n":
        return None
    true = torch.arange(size, dtype=torch.float64).remainder(3).expand(FEW, size).clone()
    discount = torch.arange(2, size + 2, dtype=torch.float64).log2()[None]
    weighting, gain = subject.make(), true.exp2() - 1
    return lambda: weighting(gain, discount, true)


_MADE: dict[str, Callable[[Subject, str, int], Run | None]] = {
    "similarity": _of_similarity,
    "weighting": _of_weighting,
}
