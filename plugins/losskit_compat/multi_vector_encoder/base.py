"""What the incumbent's losses of multi-vector encoders share: tasks, scoring functions, and mini-batches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Direct, Execution, GradCache, Output, Similarity
from losskit.adapt import DictEncoder
from losskit.loss import Value
from losskit.protocols import Encoder, Features
from losskit_plugins.similarities.xtr import XTRSimilarity

from ..base import Scored
from . import scoring

__all__ = ["InMiniBatches", "MultiVectorLoss", "Scores", "ScoresOfLists", "ScoresOfPairs", "executed", "scores_or"]

THEIR_SCORING = "sentence_transformers.multi_vector_encoder.scoring"


class _Called(nn.Module):
    """A function of token embeddings and masks, as a similarity that is called on all documents at once.

    A module, so that the parameters of a learned function are found.
    """

    pooled = True

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return self._scores(a, b.embedding[:, None], b.mask[:, None])

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return self(a, b).diagonal()

    def _scores(self, a: Output, documents: Tensor, mask: Tensor) -> Tensor:
        return self.function(a.embedding, documents, queries_mask=a.mask, documents_mask=mask)


class Scores(_Called):
    """A function of queries [q, t, d] and documents [b, n, t, d] that gives [q, b n]."""


class ScoresOfPairs(_Called):
    """A function of queries [q, t, d] and documents [q, t, d] that gives [q]."""

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return self._scores(a, b.embedding, b.mask)


class ScoresOfLists(_Called):
    """A function of queries [q, t, d] and documents [q, n, t, d] that gives [q, n]."""

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return self._scores(a, b.embedding[:, None], b.mask[:, None]).squeeze(1)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each of k others, [n, k]."""
        together = Output.cat(others)
        documents, mask = (each.unflatten(0, (len(others), -1)).transpose(0, 1) for each in together.tensors())
        return self._scores(a, documents, mask)


def scores_or(otherwise: Callable[[Any], Similarity]) -> Callable[[Any], Similarity]:
    """What is made of a function: of XTR with options the registered similarity, else `otherwise`."""

    def made(function: Any) -> Similarity:
        places = [scoring, sys.modules.get(THEIR_SCORING, scoring)]
        xtr = tuple(kind for place in places for kind in (place.XTRScores, place.XTRKDScores))
        return XTRSimilarity(function.top_k) if type(function) in xtr else otherwise(function)

    return made


class MultiVectorLoss(Scored):
    """A loss of token embeddings: the first column holds queries, all others documents."""

    def view(self, model: Any) -> Encoder:
        """A model seen as an encoder; one that does not say what it is gives token embeddings."""
        seen = super().view(model)
        return TokenModule(seen.module) if type(seen) is DictEncoder else seen

    def forward(
        self,
        sentence_features: Iterable[Features],
        labels: Tensor | Sequence[Tensor] | None = None,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Value:
        """The loss of a batch; columns that do not say their task are a query's or documents by their place."""
        tasks = [
            {"task": "document" if place else "query", **features} for place, features in enumerate(sentence_features)
        ]
        return super().forward(tasks, labels, prompt, task)


class TokenModule(DictEncoder):
    """A module `forward(features, task=...)` that returns token embeddings with the mask of those that count."""

    @property
    def family(self) -> str:
        """The module's own, else multi-vector."""
        return str(getattr(self.module, "family", "multi-vector"))

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode by calling the module on a copy of the features."""
        made = self.module(dict(features), task=features["task"])
        return Output(made["token_embeddings"], mask=made["attention_mask"].bool())


class InMiniBatches(MultiVectorLoss):
    """A loss with `mini_batch_size`: gradient caching, unless it is None."""

    @property
    def mini_batch_size(self) -> int | None:
        """Items per forward of the encoder, with gradient caching; None: all at once."""
        return self._mini_batch_size

    @mini_batch_size.setter
    def mini_batch_size(self, size: int | None) -> None:
        self._mini_batch_size = size
        self._execution = executed(size, self.execution.gather)


def executed(mini_batch_size: int | None, gather: bool) -> Execution | None:
    """The execution of these settings; None leaves it to a loss around it."""
    if mini_batch_size is not None:
        return GradCache(mini_batch_size=mini_batch_size, gather=gather)
    return Direct(gather=True) if gather else None
