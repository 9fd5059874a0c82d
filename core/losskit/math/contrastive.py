"""Softmax cross-entropy over similarities, in tiles: no score matrix is ever held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..output import Output
from ..protocols import Similarity
from .precision import promoted

__all__ = ["TILE_BYTES", "Block", "softmax_cross_entropy"]

TILE_BYTES = 16 * 2**20
"""How much memory a tile of scores may take; set `losskit.math.contrastive.TILE_BYTES` to change it."""

Adjust = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class Block:
    """Candidates of every row: the similarities of `rows` with `columns`.

    Args:
        rows: a record of r items, one per row of the softmax.
        columns: a record of m candidates.
        adjust: what is added to a tile of logits [t, m], given the tile (without gradient) and its rows as a
            slice; minus infinity removes a candidate. Constant with respect to the gradient.
    """

    rows: Output
    columns: Output
    adjust: Adjust | None = None


def softmax_cross_entropy(
    blocks: Sequence[Block],
    targets: Tensor,
    weights: Tensor,
    *,
    similarity: Similarity,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """sum over rows i of w_i (log sum over all candidates of exp(scale s) - scale s_target).

    Rows are worked through in tiles of at most `TILE_BYTES` of scores, and the gradients are formed on the
    way, so that the memory is that of one tile beside the inputs and their gradients. With a similarity that
    has a `transform` a tile costs three matrix products; any other is called per tile and differentiated.

    Args:
        blocks: the candidates of each row; one softmax runs over all blocks.
        targets: [r], the place of each row's positive among the columns of the first block.
        weights: [r], without gradient.
        similarity: of records.
        scale: factor of the similarities, the inverse temperature; may be a parameter.

    Returns:
        A scalar.
    """
    transform: Callable[[Output], Tensor] | None = getattr(similarity, "transform", None)
    if transform is None:
        return _called(blocks, targets, weights, similarity, scale)
    # The same record often stands in several blocks: transform it once.
    made: dict[int, Tensor] = {}
    for record in (record for block in blocks for record in (block.rows, block.columns)):
        if id(record) not in made:
            made[id(record)] = transform(record)
    scaled: dict[int, Tensor] = {}
    for block in blocks:
        if id(block.rows) not in scaled:
            scaled[id(block.rows)] = made[id(block.rows)] * scale
    rows = [scaled[id(block.rows)] for block in blocks]
    columns = [made[id(block.columns)] for block in blocks]
    value: Tensor = _Fused.apply([block.adjust for block in blocks], targets, weights, *rows, *columns)
    return value


def _tiles(rows: int, candidates: int, size: int) -> list[slice]:
    """Slices of rows whose scores fit into a tile."""
    step = max(1, TILE_BYTES // max(1, candidates * size))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _softmax(logits: Sequence[Tensor], targets: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The weighted cross-entropy of a tile, and its derivatives by the logits, which it overwrites."""
    chosen = logits[0].gather(1, targets[:, None]).squeeze(1)
    highest = torch.stack([tile.amax(1) for tile in logits]).amax(0) if len(logits) > 1 else logits[0].amax(1)
    exponentials = [tile.sub_(highest[:, None]).exp_() for tile in logits]
    total = exponentials[0].sum(1)
    for tile in exponentials[1:]:
        total = total + tile.sum(1)
    value = (weights * (highest - chosen + total.log())).sum()
    factor = (weights / total)[:, None]
    derivatives = [tile.mul_(factor) for tile in exponentials]
    derivatives[0].scatter_add_(1, targets[:, None], -weights[:, None])
    return value, derivatives


class _Fused(torch.autograd.Function):
    """Tiles as matrix products; gradients are formed in the forward if something asks for them."""

    @staticmethod
    def forward(
        ctx: Any, adjusts: Sequence[Adjust | None], targets: Tensor, weights: Tensor, *tensors: Tensor
    ) -> Tensor:
        blocks = len(adjusts)
        rows, columns = tensors[:blocks], tensors[blocks:]
        wanted = any(ctx.needs_input_grad)
        row_gradients = [torch.empty_like(each) for each in rows] if wanted else []
        column_gradients: list[Tensor | None] = [None] * blocks
        value = rows[0].new_zeros(())
        candidates = sum(each.shape[0] for each in columns)
        for part in _tiles(rows[0].shape[0], candidates, rows[0].element_size()):
            logits = [row[part] @ column.T for row, column in zip(rows, columns, strict=True)]
            for tile, adjust in zip(logits, adjusts, strict=True):
                if adjust is not None:
                    tile += adjust(tile, part)
            loss, derivatives = _softmax(logits, targets[part], weights[part])
            value = value + loss
            if not wanted:
                continue
            for index, derivative in enumerate(derivatives):
                torch.mm(derivative, columns[index], out=row_gradients[index][part])
                column_gradients[index] = _accumulated(column_gradients[index], derivative, rows[index][part])
        if wanted:
            ctx.save_for_backward(*row_gradients, *(each for each in column_gradients if each is not None))
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(gradient * upstream for gradient in ctx.saved_tensors)


def _accumulated(total: Tensor | None, derivative: Tensor, rows: Tensor) -> Tensor:
    if total is None:
        return derivative.T @ rows
    return total.addmm_(derivative.T, rows)


def _called(
    blocks: Sequence[Block], targets: Tensor, weights: Tensor, similarity: Similarity, scale: float | Tensor
) -> Tensor:
    """Tiles by calling the similarity, differentiated tile by tile."""
    records = [record for block in blocks for record in (block.rows, block.columns)]
    tensors = [promoted(tensor) for record in records for tensor in record.tensors()]
    learned = [scale] if isinstance(scale, Tensor) else []
    value: Tensor = _Called.apply(blocks, targets, weights, similarity, scale, *tensors, *learned)
    return value


class _Called(torch.autograd.Function):
    """As `_Fused`, for similarities that are not an inner product."""

    @staticmethod
    def forward(
        ctx: Any,
        blocks: Sequence[Block],
        targets: Tensor,
        weights: Tensor,
        similarity: Similarity,
        scale: float | Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        needed = ctx.needs_input_grad[5:]
        leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
        rest = iter(leaves)
        records = [
            (_around(block.rows, rest), _around(block.columns, rest), block.adjust) for block in blocks
        ]
        factor = next(rest, scale)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        totals: list[Tensor] = [torch.zeros_like(leaf) for leaf in wanted]
        value = leaves[0].new_zeros(())
        candidates = sum(columns.items for _, columns, _ in records)
        for part in _tiles(targets.shape[0], candidates, leaves[0].element_size()):
            with torch.enable_grad():
                scores = [similarity(rows[part], columns) * factor for rows, columns, _ in records]
            logits = [score.detach().clone() for score in scores]
            for tile, (_, _, adjust) in zip(logits, records, strict=True):
                if adjust is not None:
                    tile += adjust(tile, part)
            loss, derivatives = _softmax(logits, targets[part], weights[part])
            value = value + loss
            if wanted:
                for total, gradient in zip(
                    totals, torch.autograd.grad(scores, wanted, derivatives, allow_unused=True), strict=True
                ):
                    if gradient is not None:
                        total += gradient
        ctx.needed = needed
        ctx.save_for_backward(*totals)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rest = iter(ctx.saved_tensors)
        return *(None,) * 5, *(next(rest) * upstream if need else None for need in ctx.needed)


def _around(record: Output, tensors: Any) -> Output:
    return record.with_tensors([next(tensors) for _ in record.tensors()])
