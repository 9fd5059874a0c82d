"""Softmax cross-entropy over similarities, in tiles: no score matrix is ever held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LossError
from ..output import Output
from ..protocols import Similarity
from .once import differentiable_once
from .precision import promoted
from .products import Gradients, write_inner_products

__all__ = ["TILE_BYTES", "Block", "row_tiles", "softmax_cross_entropy"]

TILE_BYTES = 16 * 2**20
"""How much memory a tile of scores may take; set `losskit.math.contrastive.TILE_BYTES` to change it."""

TILE_ROWS = 256
"""How many rows a tile may have: enough for the products' full speed, few enough for a cache."""

Adjust = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class Block:
    """Candidates of every row: the similarities of `rows` with `columns`.

    Args:
        rows: a record of r items, one per row of the softmax.
        columns: a record of m candidates.
        adjust: what is added to a tile of logits [t, m], given the tile (without gradient) and its rows as a
            slice; minus infinity removes a candidate. Constant with respect to the gradient.
        turned: whether the candidates are the queries and the rows the documents, of a similarity that tells
            them apart.
    """

    rows: Output
    columns: Output
    adjust: Adjust | None = None
    turned: bool = False


def softmax_cross_entropy(
    blocks: Sequence[Block],
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    similarity: Similarity,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """sum over rows i of w_i (log sum over all candidates of exp(scale s) - scale s_target).

    Rows are worked through in tiles of at most `TILE_BYTES` of scores, and the gradients are formed on the
    way, so that the memory is that of one tile beside the inputs and their gradients. With a similarity that
    has a `transform` a tile costs three matrix products; any other is called per tile and differentiated.
    The gradients cannot be differentiated again.

    Args:
        blocks: the candidates of each row; one softmax runs over all blocks.
        targets: [r], the place of each row's positive among the columns of the first block.
        weights: [r], without gradient, in float32 at least; None: 1 / r each, so that the sum is the mean.
        similarity: of records.
        scale: factor of the similarities, the inverse temperature; may be a parameter.

    Returns:
        A scalar.
    """
    if weights is None:
        dtype = promoted(blocks[0].rows.tensors()[0]).dtype
        weights = torch.full_like(targets, 1 / max(1, len(targets)), dtype=dtype)
    transform: Callable[[Output], Tensor] | None = getattr(similarity, "transform", None)
    if transform is None:
        return _called(blocks, targets, weights, similarity, scale)
    vectors = _Vectors(transform, scale)
    places = [(vectors.place(block.rows, True), vectors.place(block.columns, False)) for block in blocks]
    factor = 1.0 if isinstance(scale, Tensor) else scale
    adjusts = [block.adjust for block in blocks]
    value: Tensor = _Fused.apply(places, adjusts, factor, targets, weights, *vectors.made.values())  # type: ignore[no-untyped-call]
    return value


class _Vectors:
    """What the fused tiles multiply: each record once, however many blocks it stands in.

    A scale that may ask for a gradient is multiplied into the rows here, a number into the products later.
    """

    def __init__(self, transform: Callable[[Output], Tensor], scale: float | Tensor) -> None:
        self.transform = transform
        self.scale = scale
        self.made: dict[tuple[int, bool], Tensor] = {}

    def place(self, record: Output, rows: bool) -> int:
        """Where the vectors of a record stand among all."""
        scaled = rows and isinstance(self.scale, Tensor)
        key = id(record), scaled
        if key not in self.made:
            plain = self.made.get((id(record), False))
            vectors = self.transform(record) if plain is None else plain
            self.made[key] = vectors * self.scale if scaled else vectors
        return list(self.made).index(key)


def row_tiles(rows: int, candidates: int, size: int) -> list[slice]:
    """Slices of rows whose scores fit into a tile, of like size."""
    most = max(1, min(TILE_ROWS, TILE_BYTES // max(1, candidates * size)))
    step = -(-rows // max(1, -(-rows // most)))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, max(1, step))]


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each row of a tile, [t, 1], and the probabilities, which overwrite the logits."""
    chosen = logits.gather(1, targets)
    highest = logits.amax(1, keepdim=True)
    probabilities = torch.softmax(logits, 1, out=logits)
    # The highest logit's probability is 1 over the sum: never so small that its logarithm is lost.
    return highest.sub_(chosen).sub_(probabilities.amax(1, keepdim=True).log_()), probabilities


class _Fused(torch.autograd.Function):
    """Tiles as matrix products.

    Gradients are formed in the forward if something asks for them, for no tile could be kept; but where there is only
    one, it is smaller than what it gives, and is kept instead.
    """

    @staticmethod
    def forward(
        ctx: Any,
        places: Sequence[tuple[int, int]],
        adjusts: Sequence[Adjust | None],
        scale: float,
        targets: Tensor,
        weights: Tensor,
        *vectors: Tensor,
    ) -> Tensor:
        widths = [vectors[column].shape[0] for _, column in places]
        parts = row_tiles(targets.shape[0], sum(widths), vectors[0].element_size())
        wanted = ctx.needs_input_grad[5:]
        ctx.places, ctx.widths, ctx.single = places, widths, len(parts) == 1
        gradients = Gradients(vectors, wanted, single=False) if not ctx.single else None
        memory = vectors[0].new_empty(parts[0].stop if parts else 0, sum(widths))
        value = vectors[0].new_zeros(())
        for part in parts:
            tile, chosen, weight = memory[: part.stop - part.start], targets[part, None], weights[part, None]
            blocks = tile.split_with_sizes(widths, 1)
            for block, (row, column), adjust in zip(blocks, places, adjusts, strict=True):
                write_inner_products(block, vectors[row][part] * scale, vectors[column])
                if adjust is not None:
                    block += adjust(block, part)
            losses, probabilities = _softmax(tile, chosen)
            value += losses.mul_(weight).sum()
            if any(wanted):
                factors = weight * scale
                probabilities.mul_(factors).scatter_add_(1, chosen, factors.neg())
            if gradients is not None:
                for derivatives, (row, column) in zip(blocks, places, strict=True):
                    gradients.add(row, part, column, derivatives)
        ctx.save_for_backward(*((memory, *vectors) if gradients is None else gradients.result()))
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.single:
            return *(None,) * 5, *(None if each is None else each * upstream for each in ctx.saved_tensors)
        tile, *vectors = ctx.saved_tensors
        gradients = Gradients(vectors, ctx.needs_input_grad[5:], single=True)
        blocks = (tile * upstream).split_with_sizes(ctx.widths, 1)
        for derivatives, (row, column) in zip(blocks, ctx.places, strict=True):
            gradients.add(row, slice(None), column, derivatives)
        return *(None,) * 5, *gradients.result()


def whole(similarity: Similarity) -> bool:
    """Whether it must be called once, on everything: tiles give no gradient to parameters, and cannot be traced."""
    learned = isinstance(similarity, nn.Module) and any(p.requires_grad for p in similarity.parameters())
    return learned or torch.compiler.is_compiling()


def _called(
    blocks: Sequence[Block], targets: Tensor, weights: Tensor, similarity: Similarity, scale: float | Tensor
) -> Tensor:
    """Tiles by calling the similarity."""
    if whole(similarity):
        everything = slice(0, targets.shape[0])
        return _called_tile(blocks, targets, weights.detach(), similarity, scale, everything)
    tensors = [promoted(tensor) for record in _records(blocks).values() for tensor in record.tensors()]
    learned = [scale] if isinstance(scale, Tensor) else []
    value: Tensor = _Called.apply(blocks, targets, weights, similarity, scale, *tensors, *learned)  # type: ignore[no-untyped-call]
    return value


def _called_tile(
    blocks: Sequence[Block],
    targets: Tensor,
    weights: Tensor,
    similarity: Similarity,
    scale: float | Tensor,
    part: slice,
) -> Tensor:
    """The weighted cross-entropy of a tile, differentiable."""
    tiles: list[Tensor] = []
    for block, scores in zip(blocks, _scores(blocks, similarity, part), strict=True):
        tile = scores * scale
        tiles.append(tile if block.adjust is None else tile + block.adjust(tile.detach(), part).detach())
    logits = torch.cat(tiles, dim=1)
    chosen = logits.gather(1, targets[part, None]).squeeze(1)
    return (weights[part] * (logits.logsumexp(1) - chosen)).sum()


def _scores(blocks: Sequence[Block], similarity: Similarity, part: slice) -> list[Tensor]:
    """The similarities of rows `part` in each block; a pooled one is called once for all blocks of the same rows."""
    # Cut by items: a record's own indexing counts tuples.
    rows = [replace(block.rows, lists=None)[part] for block in blocks]
    if not getattr(similarity, "pooled", False):
        return [
            similarity(block.columns, each).T if block.turned else similarity(each, block.columns)
            for block, each in zip(blocks, rows, strict=True)
        ]
    if any(block.turned or block.rows is not blocks[0].rows for block in blocks):
        raise LossError(
            f"a similarity among all candidates, {type(similarity).__name__}",
            expected="a loss that compares anchors with documents",
            got="one that compares documents too",
            fix="choose another similarity, or leave the other directions out",
        )
    columns = [replace(block.columns, lists=None) for block in blocks]
    return list(similarity(rows[0], Output.cat(columns)).split([each.items for each in columns], 1))


class _Called(torch.autograd.Function):
    """As `_Fused`, for similarities that are not an inner product: each tile is differentiated at once."""

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
        ctx.needed = ctx.needs_input_grad[5:]
        leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, ctx.needed, strict=True)]
        rest = iter(leaves)
        around = _around(blocks, rest)
        factor = next(rest, scale)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        value = leaves[0].new_zeros(())
        parts = row_tiles(targets.shape[0], sum(block.columns.items for block in blocks), leaves[0].element_size())
        totals = () if len(parts) == 1 else tuple(torch.zeros_like(leaf) for leaf in wanted)
        for part in parts:
            with torch.enable_grad():
                loss = _called_tile(around, targets, weights, similarity, factor, part)
            value += loss.detach()
            gradients = torch.autograd.grad(loss, wanted, materialize_grads=True) if wanted else ()
            for total, gradient in zip(totals, gradients, strict=False):
                total += gradient
            totals = totals or gradients
        ctx.save_for_backward(*totals)
        return value

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rest = iter(ctx.saved_tensors)
        return *(None,) * 5, *(next(rest) * upstream if need else None for need in ctx.needed)


def _records(blocks: Sequence[Block]) -> dict[int, Output]:
    """The records of blocks, each once."""
    return {id(record): record for block in blocks for record in (block.rows, block.columns)}


def _around(blocks: Sequence[Block], tensors: Iterator[Tensor]) -> list[Block]:
    """The blocks with their records around other tensors."""
    made = {
        key: record.with_tensors([next(tensors) for _ in record.tensors()]) for key, record in _records(blocks).items()
    }
    return [replace(block, rows=made[id(block.rows)], columns=made[id(block.columns)]) for block in blocks]
