"""Records: what an encoder made of one column of texts, and what losses read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from .errors import LossError

__all__ = ["Output", "Tokens", "pad_token_axes", "token_widths", "widen"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """A part with a token axis, padded with `fill` where records are joined.

    Args:
        values: [n, t, ...].
        mask: [n, t], True where a token counts.
        fill: what stands at masked positions.
    """

    values: Tensor
    mask: Tensor
    fill: float = 0.0

    def leading(self) -> Tokens:
        """The same tokens with those that count in front, wherever the padding was.

        >>> Tokens(torch.tensor([[0, 7, 8]]), torch.tensor([[False, True, True]])).leading().values
        tensor([[7, 8, 0]])
        """
        order = self.mask.logical_not().to(torch.int8).argsort(dim=1, stable=True)
        return Tokens(self.values.gather(1, order), self.mask.gather(1, order), self.fill)


@dataclass(frozen=True, eq=False)
class Output:
    """What an encoder made of one column of n items.

    Args:
        embedding: [n, d]; [n, t, d] late interaction; [n] or [n, classes] cross-encoder scores;
            None for a column that nothing encodes.
        mask: [n, t], True where a token counts; with late interaction only.
        layers: [n, d] per layer, first to last; only if the loss needs "layers".
        parts: named extras that a loss needs: tensors whose first axis is items, `Tokens`, or Outputs.
            `parts["weight"]` [n] holds sample weights.
        lists: how many of the n items belong to each tuple; None: one each.

    Indexing counts tuples, never items:

    >>> scores = Output(torch.tensor([3.0, 1.0, 2.0]), lists=(2, 1))
    >>> scores[1:].embedding
    tensor([2.])
    """

    embedding: Tensor | None
    mask: Tensor | None = None
    layers: tuple[Tensor, ...] = ()
    parts: Mapping[str, Tensor | Tokens | Output] = field(default_factory=dict)
    lists: tuple[int, ...] | None = None

    @property
    def encoded(self) -> Tensor:
        """The embedding, of a column that was encoded.

        Raises:
            LossError: nothing encoded it.

        >>> Output(torch.zeros(2, 3)).encoded.shape
        torch.Size([2, 3])
        """
        if self.embedding is None:
            raise LossError("Output.embedding", expected="an embedding", got="None: nothing encoded this column")
        return self.embedding

    @property
    def weight(self) -> Tensor | None:
        """The sample weights [n], where there are any.

        Raises:
            LossError: they are no tensor.

        >>> Output(torch.zeros(2, 3), parts={"weight": torch.tensor([1.0, 0.5])}).weight
        tensor([1.0000, 0.5000])
        """
        weight = self.parts.get("weight")
        if weight is None or isinstance(weight, Tensor):
            return weight
        raise LossError('Output.parts["weight"]', expected="a tensor [n]", got=type(weight).__name__)

    @property
    def items(self) -> int:
        """The number of items n."""
        return int((self._any() if self.embedding is None else self.embedding).shape[0])

    @property
    def tuples(self) -> int:
        """The number of tuples: of lists where there are lists, else of items."""
        if self.lists is not None:
            return len(self.lists)
        return int((self._any() if self.embedding is None else self.embedding).shape[0])

    def map(self, fn: Callable[..., Tensor], *others: Output) -> Output:
        """Apply `fn` field by field to the tensors of this record and of others of the same form."""
        outputs = (self, *others)

        def apply(values: Sequence[Any]) -> Any:
            first = values[0]
            if first is None:
                return None
            if isinstance(first, Output):
                return first.map(fn, *values[1:])
            if isinstance(first, Tokens):
                return Tokens(fn(*(v.values for v in values)), fn(*(v.mask for v in values)), first.fill)
            return fn(*values)

        return Output(
            embedding=apply([o.embedding for o in outputs]),
            mask=apply([o.mask for o in outputs]),
            layers=tuple(apply(layer) for layer in zip(*(o.layers for o in outputs), strict=True)),
            parts={name: apply([o.parts[name] for o in outputs]) for name in self.parts},
            lists=self.lists,
        )

    def map_embedding(self, fn: Callable[[Tensor], Tensor]) -> Output:
        """Change the embedding; a missing one is left alone."""
        return self if self.embedding is None else replace(self, embedding=fn(self.embedding))

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order in which `with_tensors` takes them back."""
        own = [tensor for tensor in (self.embedding, self.mask, *self.layers) if tensor is not None]
        for part in self.parts.values():
            if isinstance(part, Output):
                own += part.tensors()
            else:
                own += [part.values, part.mask] if isinstance(part, Tokens) else [part]
        return own

    def with_tensors(self, tensors: Sequence[Tensor]) -> Output:
        """The same record around other tensors."""
        rest = iter(tensors)
        return self.map(lambda _: next(rest))

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Output:
        """The record of some tuples: a slice, or positions (a sequence, or a tensor without lists)."""
        if isinstance(rows, slice) and rows.start == 0 and rows.step is None and rows.stop == self.tuples:
            return self
        if self.lists is None and isinstance(rows, Tensor):
            return self.map(lambda t: t.index_select(0, rows))
        if self.lists is None:
            return self.map(lambda t: t[rows if isinstance(rows, slice) else list(rows)])
        if isinstance(rows, Tensor):
            rows = rows.tolist()
        ends = list(accumulate(self.lists, initial=0))
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self.lists))
            if step == 1:
                stop = max(start, stop)
                part = self.map(lambda t: t[ends[start] : ends[stop]])
                return replace(part, lists=self.lists[start:stop])
            rows = range(start, stop, step)
        places = range(len(self.lists))
        rows = [places[row] for row in rows]  # a negative place counts from the last
        items = [item for row in rows for item in range(ends[row], ends[row + 1])]
        part = self.map(lambda t: t[items])
        return replace(part, lists=tuple(self.lists[row] for row in rows))

    def split(self, sizes: Sequence[int]) -> list[Output]:
        """Consecutive records of so many items each, as views of one split."""
        if len(sizes) == 1:
            return [self]
        pieces = [tensor.split(list(sizes)) for tensor in self.tensors()]
        return [self.with_tensors([piece[index] for piece in pieces]) for index in range(len(sizes))]

    @staticmethod
    def cat(outputs: Sequence[Output]) -> Output:
        """Join records of the same form one after another; token axes are padded to the longest.

        Of the parts, those that all have are joined: a further encoder may have read some columns only.
        """
        if len(outputs) == 1:
            return outputs[0]
        shared = [name for name in outputs[0].parts if all(name in o.parts for o in outputs)]
        outputs = [replace(o, parts={name: o.parts[name] for name in shared}) for o in outputs]
        widths = [max(each) for each in zip(*(token_widths(o) for o in outputs), strict=True)]
        joined = [pad_token_axes(o, widths) for o in outputs]
        whole = joined[0].map(lambda *tensors: torch.cat(tensors), *joined[1:])
        if all(o.lists is None for o in outputs):
            return whole
        return replace(whole, lists=tuple(n for o in outputs for n in (o.lists or (1,) * o.items)))

    def _any(self) -> Tensor:
        if self.embedding is not None:
            return self.embedding
        tensors = self.tensors()
        if not tensors:
            raise LossError("Output", expected="an embedding, layers or parts", got="an empty record")
        return tensors[0]


def token_widths(output: Output) -> list[int]:
    """Per tensor of a record the width of its token axis, 0 where it has none."""
    return [
        0 if fill is None else int(tensor.shape[1])
        for tensor, fill in zip(output.tensors(), _fills(output), strict=True)
    ]


def pad_token_axes(output: Output, widths: Sequence[int]) -> Output:
    """The record with every token axis padded to its width, as `token_widths` orders them."""
    return output.with_tensors(
        [
            tensor if fill is None else widen(tensor, width, fill)
            for tensor, fill, width in zip(output.tensors(), _fills(output), widths, strict=True)
        ]
    )


def _fills(output: Output) -> list[float | None]:
    """Per tensor of a record what its token axis is padded with, None where it has none."""
    fills: list[float | None] = []
    if output.embedding is not None:
        fills.append(None if output.mask is None else 0.0)
    if output.mask is not None:
        fills.append(0.0)
    fills += [None] * len(output.layers)
    for part in output.parts.values():
        if isinstance(part, Output):
            fills += _fills(part)
        elif isinstance(part, Tokens):
            fills += [part.fill, 0.0]
        else:
            fills.append(None)
    return fills


def widen(tensor: Tensor, width: int, fill: float) -> Tensor:
    """A tensor [n, t, ...] padded along its second axis."""
    missing = width - tensor.shape[1]
    if not missing:
        return tensor
    return torch.cat([tensor, tensor.new_full((tensor.shape[0], missing, *tensor.shape[2:]), fill)], dim=1)
