"""GIST: in-batch contrastive learning whose negatives a guide selects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import threshold

from losskit import Card, Encoder, Execution, Format, Loss, Output, Similarity
from losskit.errors import LossError, check_number
from losskit.math import inner_products, normalize, softmax_cross_entropy

from ._in_batch import InBatch

__all__ = ["GISTEmbedLoss", "gist_embed", "limits"]

Strategy = Literal["absolute", "relative"]

ROUNDING = 16
"""In units of the last place: a candidate so near to the limit counts as equal to the positive."""


def limits(positive: Float[Tensor, " rows"], *, margin: float, strategy: Strategy) -> Float[Tensor, " rows"]:
    """Where a candidate's similarity makes it a false negative: t - margin, or t - |t| margin.

    Args:
        positive: t, the guide's similarity of each anchor with its positive.
        margin: how far below it candidates count as false negatives already.
        strategy: whether the margin is a difference or a share.

    >>> limits(torch.tensor([0.5]), margin=0.2, strategy="relative")
    tensor([0.4000])
    """
    step = margin if strategy == "absolute" else positive.abs() * margin
    return positive - step - ROUNDING * torch.finfo(positive.dtype).eps


def gist_embed(
    scores: Float[Tensor, "rows candidates"],
    guide: Float[Tensor, "rows candidates"],
    positives: Int[Tensor, " rows"],
    *,
    margin: float = 0.0,
    strategy: Strategy = "absolute",
) -> Float[Tensor, ""]:
    """mean over rows of log sum_{j kept} exp(s_ij) - s_i,positive.

    Kept are the positive, and what the guide finds less similar than it, by the margin.
    The plain formula on held score matrices; the loss below works through tiles of them.

    Args:
        scores: scaled similarities of each row with every candidate.
        guide: similarities of the same pairs, as the guide has them.
        positives: the place of each row's positive among the candidates.
        margin: as in `limits`.
        strategy: as in `limits`.

    >>> scores = torch.zeros(1, 3)
    >>> gist_embed(scores, torch.tensor([[0.5, 0.9, 0.1]]), torch.tensor([0]))
    tensor(0.6931)
    """
    chosen = positives[:, None]
    limit = limits(guide.gather(1, chosen).squeeze(1), margin=margin, strategy=strategy)
    false_negatives = (guide >= limit[:, None]).scatter(1, chosen, False)
    kept = scores.masked_fill(false_negatives, float("-inf"))
    return (kept.logsumexp(1) - kept.gather(1, chosen).squeeze(1)).mean()


class GISTEmbedLoss(Loss):
    """Contrastive learning without the negatives that a guide finds as similar as the positive.

    Args:
        model: an encoder that embeds.
        guide: a frozen encoder; where its cosine of an anchor or positive with a candidate reaches that of the
            anchor with the positive, the candidate is no negative.
        temperature: divides the similarities.
        margin_strategy: "absolute" or "relative": how `margin` lowers what candidates have to reach.
        margin: by how much, or by which share.
        contrast_anchors: whether other anchors are candidates too.
        contrast_positives: whether the positive is told from other positives too.
        similarity: of the trained encoder, by name; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        execution: how records come about.

    Raises:
        LossError: an impossible option, or records without the guide's.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"], labels="none")],
        encoders=["dense", "sparse", "multi-vector"],
        reads={"model": None, "guide": None},
        memory="tile",
        formula="mean over i of log sum_{j = i or g_ij < g_ii - margin} exp(s_ij / t) - s_ii / t",
        citation="""@misc{solatorio2024gistembed,
  title = {{GISTEmbed}: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
  author = {Solatorio, Aivin V.},
  year = {2024},
  eprint = {2402.16829},
  archivePrefix = {arXiv}
}""",
        aliases=["gist-embed"],
        requirements=["A guide: an encoder whose cosines say which texts mean the same."],
        relations=["multiple-negatives-ranking: the same without a guide, and with more directions."],
    )
    uses_weights = True
    uses_lists = ("positive", "negative")

    def __init__(
        self,
        model: Any,
        guide: Encoder,
        temperature: float = 0.01,
        margin_strategy: Strategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.frozen = {"guide": guide}
        self.temperature = temperature
        self.margin_strategy = margin_strategy
        self.margin = margin
        self.contrast_anchors = contrast_anchors
        self.contrast_positives = contrast_positives
        self.similarity = similarity
        self._check_options()

    @property
    def guide(self) -> Encoder:
        """The frozen guide."""
        return self.frozen["guide"]

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The contrastive loss of the tuples `rows` against the documents, and anchors, of all tuples."""
        batch = InBatch(columns, rows)
        anchors, positives, *negatives = [self._guided(column) for column in columns]
        row_anchors, row_positives = batch.of_anchors(anchors), batch.of_positives(positives)
        limit = limits((row_anchors * row_positives).sum(1), margin=self.margin, strategy=self.margin_strategy)

        def without_false_negatives(first: Tensor, second: Tensor) -> Callable[[Tensor, slice], Tensor]:
            def adjust(logits: Tensor, part: slice) -> Tensor:
                below = limit[part, None] - inner_products(first[part], second)
                return threshold(below, 0.0, float("-inf")).clamp_(max=0.0)

            return adjust

        among_positives = without_false_negatives(row_anchors, positives)

        def with_positive(logits: Tensor, part: slice) -> Tensor:
            return among_positives(logits, part).scatter_(1, batch.targets[part, None], 0.0)

        blocks = [batch.query_to_positive(with_positive)]
        if self.contrast_anchors:
            blocks.append(batch.query_to_query(without_false_negatives(row_anchors, anchors)))
        if self.contrast_positives:
            blocks.append(batch.positive_to_positive(without_false_negatives(row_positives, positives)))
        for record, guided in zip(columns[2:], negatives, strict=True):
            blocks.append(batch.query_to_negative(record, without_false_negatives(row_anchors, guided)))
        return softmax_cross_entropy(
            blocks, batch.targets, batch.weights, similarity=self.scorer, scale=1 / self.temperature
        )

    def idle(self, rows: int, columns: int, labels: Tensor | None) -> str:
        """A single document has no negatives."""
        return "" if rows * (columns - 1) > 1 else "one row without negatives has nothing to be told from"

    def _guided(self, column: Output) -> Tensor:
        """The guide's unit vectors of a column."""
        record = column.parts.get("guide")
        if not isinstance(record, Output):
            raise LossError(
                f"a column of {type(self).__name__}",
                expected="its guide's embeddings in parts['guide']",
                got=f"parts {sorted(column.parts)}",
                fix="call the loss with features, or its compute with records that carry them",
            )
        return normalize(record.embedding.detach())

    def _check_options(self) -> None:
        name = type(self).__name__
        if self.guide is None:
            raise LossError(f"{name}.guide", expected="an encoder that embeds", got="None")
        check_number(f"{name}.temperature", self.temperature, "a positive number")
        check_number(f"{name}.margin", self.margin)
        if self.margin_strategy not in get_args(Strategy):
            choices = " or ".join(map(repr, get_args(Strategy)))
            raise LossError(f"{name}.margin_strategy", expected=choices, got=repr(self.margin_strategy))
        family = self.view(self.guide).family
        if family not in ("dense", "sparse"):
            raise LossError(f"{name}.guide", expected="an encoder of one vector per text", got=f"one that is {family}")
