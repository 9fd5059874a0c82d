"""A plain module as a loss whose `compute` plays it the records."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..card import Format
from ..loss import Loss, Value
from ..output import Output
from .player import Player
from .playing import Playing

__all__ = ["Make", "PlainLoss"]

Make = Callable[[Player], nn.Module]


class PlainLoss(Loss):
    """A plain module as a loss whose `compute` plays it the records.

    Args:
        model: the encoder, for laws that begin with texts.
        make: the plain module on a player.
        form: the data.
        parts: what its model returns beside embeddings, as a card's `needs` names it.
        poses: a class that the player passes for.
    """

    def __init__(
        self, model: Any, make: Make, form: Format, parts: Sequence[str] = (), poses: type | None = None
    ) -> None:
        super().__init__(model)
        self.form, self.parts = form, tuple(parts)
        encoder = self.encoder
        self.player = Player(encoder.family, encoder.dimension or 0, getattr(encoder, "outputs", 1), poses)
        self.plain = make(self.player)
        like = next(model.parameters(), None)
        if like is not None:
            self.plain.to(like.dtype)
        self._caches = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Words of the texts too, which guides read."""
        return () if self.encoder.family == "cross-encoder" else ("input_ids", *self.parts)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """What the module gives for these records, all rows at once."""
        playing = Playing(columns, self.form)
        if not (self._caches and torch.is_grad_enabled()):
            value = self._called(playing, labels)
            if not (self.player.feed.without_gradients and torch.is_grad_enabled()):
                return value
            self._caches = True  # it encodes again in a hook of the backward, where the graph does not lead
        return self._replayed(playing, labels)

    def _called(self, playing: Playing, labels: Tensor | None) -> Value:
        """The module's value, called as trainers do."""
        self.player.feed.without_gradients = False
        with self.player.plays(playing), self._drawing():
            columns: Sequence[Any] = playing.features() if self.player.family != "cross-encoder" else playing.texts()
            value: Value = self.plain(columns, playing.labels(labels))
            return value

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draws from the global generators are the same in every call, for comparisons, and yet leave a mark there."""
        before = torch.get_rng_state(), random.getstate()
        seed = torch.initial_seed()
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        begun = _state(), random.getstate()
        try:
            yield
        finally:
            drawn = [now != was for now, was in zip((_state(), random.getstate()), begun, strict=True)]
            self.drawn = torch.zeros(0) if any(drawn) else None
            torch.set_rng_state(before[0])
            random.setstate(before[1])
            if drawn[0]:
                torch.rand(1, device="cpu")
            if drawn[1]:
                random.random()

    def _replayed(self, playing: Playing, labels: Tensor | None) -> Value:
        """The value of a module that forms gradients by backward calls of its own, connected to the records."""
        keys: list[str] = []
        records = [tensor for column in playing.columns for tensor in column.tensors()]
        owned = [parameter for parameter in self.plain.parameters() if parameter.requires_grad]

        def start(leaves: Sequence[Tensor]) -> tuple[Playing, list[Tensor]]:
            again = _around(playing, leaves)
            value = self._called(again, labels)
            keys.extend(value if isinstance(value, dict) else ())
            return again, list(value.values()) if isinstance(value, dict) else [value]

        values: tuple[Tensor, ...]
        values = _Replayed.apply(start, self.player, len(records), *records, *owned)  # type: ignore[no-untyped-call]
        return dict(zip(keys, values, strict=True)) if keys else values[0]


def _state() -> bytes:
    """Of torch's global generator, looked at by no operation on tensors."""
    return torch.get_rng_state().numpy().tobytes()


def _around(playing: Playing, tensors: Sequence[Tensor]) -> Playing:
    rest = iter(tensors)
    return Playing([column.map(lambda _: next(rest)) for column in playing.columns], playing.form)


class _Replayed(torch.autograd.Function):
    """Runs a loss on copies of its inputs, and in the backward its own backward with all hooks."""

    @staticmethod
    def forward(ctx: Any, start: Any, player: Player, records: int, *inputs: Tensor) -> tuple[Tensor, ...]:
        leaves = [each.detach().requires_grad_(each.requires_grad) for each in inputs[:records]]
        with torch.enable_grad():
            ctx.playing, ctx.values = start(leaves)
        ctx.player, ctx.inputs = player, (*leaves, *inputs[records:])
        values = tuple(value.detach().clone() for value in ctx.values)
        still = [out for out, value in zip(values, ctx.values, strict=True) if not value.requires_grad]
        ctx.mark_non_differentiable(*still)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs, before = ctx.inputs, [each.grad for each in ctx.inputs]
        live = [index for index, value in enumerate(ctx.values) if value.requires_grad]
        try:
            for each in inputs:
                each.grad = None
            with ctx.player.plays(ctx.playing):
                torch.autograd.backward([ctx.values[index] for index in live], [gradients[index] for index in live])
            return (None, None, None, *(each.grad for each in inputs))
        finally:
            for each, gradient in zip(inputs, before, strict=True):
                each.grad = gradient
            ctx.playing = ctx.values = ctx.inputs = None
