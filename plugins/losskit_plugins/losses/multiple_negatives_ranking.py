"""Multiple negatives ranking: in-batch contrastive learning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from losskit import Card, Execution, Format, Loss, Output, Similarity
from losskit.errors import LossError
from losskit.math import Block, promoted, softmax_cross_entropy, tuple_index

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
    )
    uses_weights = True

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
        batch = _Batch(columns, rows)
        scale = self.scale if self.scale is not None else 20.0 if self.similarity_name == "cosine" else 1.0
        penalty = partial(batch.penalty, self.hardness_mode, self.hardness_strength / scale)
        first = batch.query_to_doc(penalty if self.hardness_mode and self.hardness_strength else None)
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
        if self.scale is not None and not self.scale > 0:
            raise LossError(f"{name}.scale", expected="a positive number", got=repr(self.scale))
        if not self.hardness_strength >= 0:
            raise LossError(f"{name}.hardness_strength", expected="0 or more", got=repr(self.hardness_strength))
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


class _Batch:
    """The rows of the softmax: one per positive of the tuples in question.

    `owners` holds the tuple of each row, `targets` its positive's place among all documents, `weights` what
    it counts.
    """

    def __init__(self, columns: Sequence[Output], rows: slice) -> None:
        self.columns = columns
        self.anchors, positives = columns[0], columns[1]
        self.documents = positives if len(columns) == 2 else Output.cat(columns[1:])
        self.counts = positives.lists
        self.n_positives = positives.items
        self.device = positives.embedding.device
        self.first, self.last = rows.start, rows.stop
        if self.counts is not None:
            self.first, self.last = sum(self.counts[: rows.start]), sum(self.counts[: rows.stop])
        self.targets = torch.arange(self.first, self.last, device=self.device)
        self.weights = self._weights(rows)
        # A record that stands in several places is the very same object: scoring then works on it once.
        every_row = (self.first, self.last) == (0, self.n_positives)
        self.row_positives = positives if every_row else positives.map(lambda t: t[self.first : self.last])
        if self.counts is None:
            self.row_anchors = self.anchors if every_row else self.anchors[rows]
        else:
            self.row_anchors = self.anchors[self.owners]

    @property
    def owners(self) -> Tensor:
        """Made when asked for: most batches never do."""
        return self.document_owners[self.first : self.last]

    @property
    def document_owners(self) -> Tensor:
        """The tuple of each document."""
        return torch.cat([tuple_index(c.lists, c.items, self.device) for c in self.columns[1:]])

    def _weights(self, rows: slice) -> Tensor:
        """The mean over tuples of the mean over their positives, times sample weights."""
        dtype = promoted(self.documents.embedding).dtype
        share = torch.full(
            (self.last - self.first,), 1 / max(1, rows.stop - rows.start), device=self.device, dtype=dtype
        )
        if self.counts is not None:
            share = share / torch.tensor(self.counts, device=self.device, dtype=dtype)[self.owners]
        weight = self.anchors.parts.get("weight")
        return share if weight is None else share * weight[self.owners].to(dtype)

    def query_to_doc(self, penalty: Any = None) -> Block:
        """Each anchor with all documents, without its other positives."""
        if self.counts is None:
            return Block(self.row_anchors, self.documents, penalty)

        def adjust(logits: Tensor, part: slice) -> Tensor:
            columns = torch.arange(logits.shape[1], device=logits.device)
            siblings = self._own(part) & (columns < self.n_positives) & (columns != self.targets[part, None])
            added = torch.zeros_like(logits) if penalty is None else penalty(logits, part)
            return added.masked_fill_(siblings, float("-inf"))

        return Block(self.row_anchors, self.documents, adjust)

    def query_to_query(self) -> Block:
        """Each anchor with the other anchors."""
        return Block(self.row_anchors, self.anchors, self._without_own_anchor)

    def doc_to_query(self) -> Block:
        """Each positive with all anchors, its own among them."""
        return Block(self.row_positives, self.anchors)

    def doc_to_doc(self) -> Block:
        """Each positive with the documents of other tuples."""

        def adjust(logits: Tensor, part: slice) -> Tensor:
            return torch.zeros_like(logits).masked_fill_(self._own(part), float("-inf"))

        return Block(self.row_positives, self.documents, adjust)

    def penalty(self, mode: str, strength: float, logits: Tensor, part: slice) -> Tensor:
        """`strength` times the logits of the negatives that the hardness mode picks."""
        own = self._own(part)
        columns = torch.arange(logits.shape[1], device=logits.device)
        picked = {
            "in_batch_negatives": ~own,
            "hard_negatives": own & (columns >= self.n_positives),
            "all_negatives": columns != self.targets[part, None],
        }[mode]
        return (logits * strength).masked_fill_(~picked, 0.0)

    def _own(self, part: slice) -> Tensor:
        return self.document_owners == self.owners[part, None]

    def _without_own_anchor(self, logits: Tensor, part: slice) -> Tensor:
        own = torch.arange(logits.shape[1], device=logits.device) == self.owners[part, None]
        return torch.zeros_like(logits).masked_fill_(own, float("-inf"))
