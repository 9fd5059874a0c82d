"""Multiple negatives ranking: in-batch contrastive learning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import LossError, check_number
from losskit.math import softmax_cross_entropy

from ._in_batch import InBatch

__all__ = ["MultipleNegativesRankingLoss", "info_nce"]

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Partition = Literal["joint", "per_direction"]
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]

logger = logging.getLogger("losskit")


def info_nce(scores: Float[Tensor, "rows candidates"], positives: Int[Tensor, " rows"]) -> Float[Tensor, ""]:
    """mean over rows of log sum_j exp(s_ij) - s_i,positive.

    The plain formula on a held score matrix; the loss below works through tiles of it.

    Args:
        scores: scaled similarities of each row with every candidate; minus infinity removes one.
        positives: the place of each row's positive among the candidates.

    >>> import torch
    >>> info_nce(torch.zeros(2, 4), torch.tensor([0, 1]))
    tensor(1.3863)
    """
    return (scores.logsumexp(1) - scores.gather(1, positives[:, None]).squeeze(1)).mean()


class MultipleNegativesRankingLoss(Loss):
    """Draws each anchor to its positive and away from every other document of the batch.

    Args:
        model: an encoder that embeds.
        scale: inverse temperature; None: 20 with cosine, else 1.
        similarity: by name; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        directions: which similarities stand in the denominator beside query_to_doc: those of the anchor with
            other anchors, of the positive with anchors, of the positive with other documents.
        partition_mode: "joint": one softmax over all directions; "per_direction": the mean of one for each.
        hardness_mode: which negatives of query_to_doc get a penalty that grows with their similarity.
        hardness_strength: factor of that penalty, in units of the unscaled similarity.
        execution: how records come about.

    Raises:
        LossError: an impossible scale, strength or set of directions.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"], labels="none")],
        encoders=["dense", "sparse", "multi-vector"],
        memory="tile",
        formula="mean over i of log sum_j exp(scale s_ij) - scale s_ii",
        citation="""@misc{oord2018representation,
  title = {Representation Learning with Contrastive Predictive Coding},
  author = {van den Oord, Aaron and Li, Yazhe and Vinyals, Oriol},
  year = {2018},
  eprint = {1807.03748},
  archivePrefix = {arXiv}
}
@misc{henderson2017efficient,
  title = {Efficient Natural Language Response Suggestion for Smart Reply},
  author = {Henderson, Matthew and others},
  year = {2017},
  eprint = {1705.00652},
  archivePrefix = {arXiv}
}""",
        recommends=["matryoshka"],
        requirements=[
            "Batches without duplicate texts: a duplicate of the positive would be taken for a negative.",
            "More rows per batch mean more negatives; grad-cache makes large batches fit.",
        ],
        deviations={"gradient": "with hardness_mode, by how much negatives are penalised counts as given"},
    )
    cases = [{}, {"hardness_mode": "all_negatives", "hardness_strength": 2.0}]  # noqa: RUF012 - read as it stands
    uses_weights = True
    uses_lists = ("positive", "negative")

    def __init__(
        self,
        model: Any = None,
        scale: float | None = None,
        similarity: str | Similarity | None = None,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        partition_mode: Partition = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.scale = scale
        self.similarity = similarity
        self.directions = tuple(dict.fromkeys(directions))
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = hardness_strength
        self._check_options()

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The contrastive loss of the tuples `rows` against the documents, and anchors, of all tuples."""
        batch = InBatch(columns, rows)
        scale = self.scale if self.scale is not None else 20.0 if self.similarity_name == "cosine" else 1.0
        hard = self.hardness_mode if self.hardness_strength else None
        first = batch.query_to_doc(None if hard is None else batch.penalty(hard, self.hardness_strength / scale))
        others = [getattr(batch, direction)() for direction in self.directions if direction != "query_to_doc"]
        cross_entropy = partial(softmax_cross_entropy, weights=batch.weights, similarity=self.scorer, scale=scale)
        if self.partition_mode == "joint":
            return cross_entropy([first, *others], batch.targets)
        total = cross_entropy([first], batch.targets)
        for block in others:  # doc_to_query only, where the anchor itself is the positive
            total = total + cross_entropy([block], batch.owners)
        return total / len(self.directions)

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has no negatives."""
        return "" if rows * (columns - 1) > 1 else "one row without negatives has nothing to be told from"

    def _check_options(self) -> None:
        name = type(self).__name__
        for option, given, choices in (
            ("directions", self.directions, get_args(Direction)),
            ("partition_mode", (self.partition_mode,), get_args(Partition)),
            ("hardness_mode", (self.hardness_mode,), (None, *get_args(Hardness))),
        ):
            unknown = [repr(each) for each in given if each not in choices]
            if unknown:
                raise LossError(f"{name}.{option}", expected=" or ".join(map(repr, choices)), got=", ".join(unknown))
        if (self.hardness_mode is None) != (self.hardness_strength == 0):
            logger.warning("%s: hardness_mode and hardness_strength have an effect only together", name)
        if self.scale is not None:
            check_number(f"{name}.scale", self.scale, "a positive number")
        check_number(f"{name}.hardness_strength", self.hardness_strength, "0 or more")
        if "query_to_doc" not in self.directions:
            raise LossError(f"{name}.directions", expected="query_to_doc among them", got=repr(self.directions))
        within = {"query_to_query", "doc_to_doc"} & set(self.directions)
        if self.partition_mode == "per_direction" and within:
            raise LossError(
                f"{name}.directions",
                expected="query_to_doc and doc_to_query only, with partition_mode='per_direction'",
                got=repr(self.directions),
                fix="a direction without a positive needs partition_mode='joint'",
            )
