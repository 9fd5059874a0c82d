"""Plain modules as subjects: losses in the style of sentence-transformers, and functions of embeddings and labels.

    from losskit import Format
    from losskit.testing import check, plain_subjects

    for subject in plain_subjects(MyLoss, {"margin": 0.5}, [Format(["anchor", "positive"])], ["dense"]):
        print(check(subject))

Such a module encodes by itself; here its model is a `Player`, which returns the records that a law looks at.
"""

from __future__ import annotations

import copy
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..card import Format
from ..loss import Loss, Value
from ..output import Output
from .player import Guide, Player, Playing
from .subject import Subject

__all__ = ["PlainLoss", "filled_in", "of_embeddings", "plain_subjects"]

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
        drawing = nullcontext() if torch.compiler.is_compiling() else self._drawing()
        with self.player.plays(playing), drawing:
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


class InBatch(nn.Module):
    """What plain wrappers are tried around: cross-entropy of the own document among all, on dot products."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Sequence[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch."""
        made = [self.model(dict(features))["sentence_embedding"] for features in sentence_features]
        return self.compute_loss_from_embeddings(made, labels)

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss of embeddings, one tensor per column."""
        scores = embeddings[0] @ torch.cat(list(embeddings[1:]) or [embeddings[0]]).T
        return nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


class OfEmbeddings(nn.Module):
    """A function of embeddings and labels as a loss of one column."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, sentence_features: Sequence[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Raises:
            ValueError: more columns than one.
        """
        (features,) = sentence_features
        return self.loss(self.model(features)["sentence_embedding"], labels)


def filled_in(cls: type) -> tuple[str, ...]:
    """The arguments of a constructor that are made here where they are not given: an inner loss, and guides.

    >>> filled_in(OfEmbeddings)
    ('loss',)
    """
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    return tuple(
        each.name
        for each in parameters
        if each.default is each.empty and (each.name == "loss" or _names_model(each.annotation))
    )


def _names_model(annotation: Any) -> bool:
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] in ("SentenceTransformer", "SparseEncoder")


def _built(cls: type[nn.Module], options: Mapping[str, Any], player: Player) -> nn.Module:
    """A module of a class on a player; arguments that are objects are its own."""
    made: dict[str, Any] = {
        name: InBatch(player) if name == "loss" else Guide(player.get_embedding_dimension(), player)
        for name in filled_in(cls)
        if name not in options
    }
    return cls(player, **made, **copy.deepcopy(dict(options)))


def _posed(cls: type) -> type | None:
    """The class that a constructor's annotation asks a model to be, as far as its module knows it."""
    parameters = list(inspect.signature(cls).parameters.values())
    asked = parameters[0].annotation if parameters else None
    if isinstance(asked, str):
        asked = vars(sys.modules[cls.__module__]).get(asked)
    return asked if isinstance(asked, type) and asked is not nn.Module and issubclass(asked, nn.Module) else None


def plain_subjects(
    cls: type[nn.Module],
    options: Mapping[str, Any] | None = None,
    formats: Sequence[Format] = (),
    families: Sequence[str] = ("dense",),
    *,
    make: Make | None = None,
    parts: Sequence[str] = (),
    **settings: Any,
) -> list[Subject]:
    """A subject for each encoder family and format of a plain module.

    Args:
        cls: of the module; its constructor takes the model first.
        options: of the constructor; an inner `loss` and a guide are made up.
        formats: the data; none: (anchor, positive) without labels.
        families: of encoders.
        make: the module on a model, where more than options are needed.
        parts: what its model returns beside embeddings, as a card's `needs` names it.
        settings: further arguments of `Subject`.

    >>> [str(subject) for subject in plain_subjects(InBatch)]
    ['dense-anchor-positive']
    """
    create = make or partial(_built, cls, dict(options or {}))
    return [
        Subject(
            partial(PlainLoss, make=create, form=form, parts=parts, poses=_posed(cls)),
            family=family,
            form=form,
            plain=True,
            component=cls,
            **settings,
        )
        for family in families
        for form in formats or (Format(["anchor", "positive"]),)
    ]


def of_embeddings(loss: Callable[..., Tensor], **settings: Any) -> Subject:
    """The subject of a function of (embeddings [n, d], class labels [n]), as losses of pytorch-metric-learning are.

    Args:
        loss: the function; a module may own parameters for embeddings of width 8 and three classes.
        settings: further arguments of `Subject`.

    >>> from losskit.testing import check
    >>> subject = of_embeddings(lambda x, y: nn.functional.cross_entropy(x, y))
    >>> [found.status for found in check(subject, only=["order", "untouched"])]
    ['passed', 'passed']
    """
    form = Format(["text"], labels="class")
    make = partial(PlainLoss, make=lambda player: OfEmbeddings(player, copy.deepcopy(loss)), form=form)
    cls = loss if isinstance(loss, type) else type(loss)
    return Subject(make, form=form, plain=True, component=cls, **settings)
