"""Symmetric multiple negatives ranking: both directions of retrieval."""

from __future__ import annotations

from typing import Any

from losskit import Card, Execution, Format, Similarity

from .multiple_negatives_ranking import MultipleNegativesRankingLoss

__all__ = ["MultipleNegativesSymmetricRankingLoss"]


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """Finds the positive of each anchor among all documents, and the anchor of each positive among all anchors.

    It is `MultipleNegativesRankingLoss` with the directions query_to_doc and doc_to_query, a softmax for each.

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
        formula="mean over i of (log sum_j exp(scale s_ij) + log sum_j exp(scale s_ji)) / 2 - scale s_ii",
        citation="""@inproceedings{radford2021learning,
  title = {Learning Transferable Visual Models From Natural Language Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and others},
  booktitle = {Proceedings of the 38th International Conference on Machine Learning},
  year = {2021}
}""",
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
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
            execution=execution,
        )
