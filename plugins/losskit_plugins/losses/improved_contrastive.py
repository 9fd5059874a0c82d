"""The improved contrastive loss of GTE: every similarity of a batch in one denominator."""

from __future__ import annotations

from typing import Any

from losskit import Card, Execution, Format, Similarity

from .multiple_negatives_ranking import MultipleNegativesRankingLoss

__all__ = ["ImprovedContrastiveLoss"]


class ImprovedContrastiveLoss(MultipleNegativesRankingLoss):
    """Tells each pair from all other pairs, anchors from anchors and documents from documents too.

    It is `MultipleNegativesRankingLoss` with all four directions in one softmax.

    Args:
        model: an encoder that embeds.
        scale: inverse temperature; None: 20 with cosine, else 1.
        similarity: by name; None: cosine on dense, dot on sparse, maxsim on multi-vector.
        execution: how records come about.

    Raises:
        LossError: a scale that is not positive.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive", "negative*"], labels="none")],
        encoders=["dense", "sparse", "multi-vector"],
        memory="tile",
        formula="mean over i of log(sum_j e^(q_i d_j) + e^(q_j d_i) + sum_(j != i) e^(q_i q_j) + e^(d_i d_j)) - q_id_i",
        citation="""@misc{li2023towards,
  title = {Towards General Text Embeddings with Multi-stage Contrastive Learning},
  author = {Li, Zehan and Zhang, Xin and Zhang, Yanzhao and Long, Dingkun and Xie, Pengjun and Zhang, Meishan},
  year = {2023},
  eprint = {2308.03281},
  archivePrefix = {arXiv}
}""",
        aliases=["gte"],
        recommends=["matryoshka"],
        requirements=["Batches without duplicate texts: a duplicate would be taken for a negative."],
        relations=["multiple-negatives-ranking: with any set of directions."],
    )

    def __init__(
        self,
        model: Any = None,
        scale: float | None = None,
        similarity: str | Similarity | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity,
            directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
            execution=execution,
        )
