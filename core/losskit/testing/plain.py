"""Plain modules as subjects: losses in the style of sentence-transformers, and functions of embeddings and labels.

    from losskit import Format
    from losskit.testing import check
    from losskit.testing.plain import plain_subjects

    for subject in plain_subjects(MyLoss, {"margin": 0.5}, [Format(["anchor", "positive"])], ["dense"]):
        print(check(subject))

Such a module encodes by itself; here its model is a `Player`, which returns the records that a law looks at.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..card import Format
from .plain_loss import Make, PlainLoss
from .player import Guide, Player
from .subject import Subject

__all__ = ["PlainLoss", "filled_in", "of_embeddings", "plain_subjects"]


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
