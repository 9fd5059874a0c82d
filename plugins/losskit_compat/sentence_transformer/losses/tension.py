"""Contrastive tension, its in-batch form, and the loader of its pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from losskit.errors import LossError
from losskit_plugins.losses import contrastive_tension, contrastive_tension_in_batch_negatives

from ...base import Incumbent, Scored, renamed
from ...functions import name_of_function
from ...util import cos_sim

__all__ = ["ContrastiveTensionDataLoader", "ContrastiveTensionLoss", "ContrastiveTensionLossInBatchNegatives"]


class ContrastiveTensionLoss(Incumbent, contrastive_tension.ContrastiveTensionLoss):
    """`losskit.losses.ContrastiveTensionLoss` under the incumbent's constructor."""

    model1 = renamed("tower")
    model2 = renamed("model")

    def __init__(self, model: Any) -> None:
        super().__init__(model)


class ContrastiveTensionLossInBatchNegatives(
    Scored, contrastive_tension_in_batch_negatives.ContrastiveTensionLossInBatchNegatives
):
    """`losskit.losses.ContrastiveTensionLossInBatchNegatives` under the incumbent's constructor."""

    model1 = renamed("tower")
    model2 = renamed("model")

    def __init__(
        self, model: Any, scale: float = 20.0, similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim
    ) -> None:
        super().__init__(model, scale)
        self.similarity_fct = similarity_fct

    def get_config_dict(self) -> dict[str, Any]:
        """The scale as it stands, and the similarity."""
        return {"scale": self.logit_scale.exp().item(), "similarity_fct": name_of_function(self.similarity_fct)}


@dataclass
class InputExample:
    """A pair of texts, and 1 if both are the same sentence."""

    texts: list[str]
    label: int


class ContrastiveTensionDataLoader:
    """Batches of pairs of sentences for the incumbent's `old_fit`, of which each `pos_neg_ratio`-th is one with itself.

    Args:
        sentences: texts without labels.
        batch_size: pairs per batch, a multiple of `pos_neg_ratio`.
        pos_neg_ratio: how many pairs there are to one of a sentence with itself.

    Raises:
        LossError: the batch size is no such multiple.
    """

    def __init__(self, sentences: Sequence[str], batch_size: int, pos_neg_ratio: int = 8) -> None:
        self.sentences = sentences
        self.batch_size = batch_size
        self.pos_neg_ratio = pos_neg_ratio
        self.collate_fn: Callable[[list[InputExample]], Any] | None = None
        if batch_size % pos_neg_ratio:
            expected = f"a multiple of pos_neg_ratio={pos_neg_ratio}"
            raise LossError(f"{type(self).__name__}.batch_size", expected=expected, got=repr(batch_size))

    def __iter__(self) -> Iterator[Any]:
        shuffled = list(self.sentences)
        random.shuffle(shuffled)
        rest = iter(shuffled)
        for _ in range(len(self)):
            batch = []
            for place in range(self.batch_size):
                first, same = next(rest), place % self.pos_neg_ratio == 0
                batch.append(InputExample([first, first if same else next(rest)], int(same)))
            yield batch if self.collate_fn is None else self.collate_fn(batch)

    def __len__(self) -> int:
        return len(self.sentences) // (2 * self.batch_size - self.batch_size // self.pos_neg_ratio)
