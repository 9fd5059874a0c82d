"""MaxSim: late interaction of token vectors."""

from __future__ import annotations

from torch import Tensor

from losskit import Card, Output
from losskit.math import maxsim, pairwise_maxsim

__all__ = ["MaxSimSimilarity"]


class MaxSimSimilarity:
    """Sum over the tokens of a query of their highest inner product with a token of the document.

    A document without tokens scores -1e9, below every other.
    """

    card = Card(
        encoders=["multi-vector"],
        memory="tile",
        formula="sum over query tokens i of max over document tokens j of a_i b_j",
        citation="""@inproceedings{khattab2020colbert,
  title = {{ColBERT}: Efficient and Effective Passage Search via Contextualized Late Interaction over {BERT}},
  author = {Khattab, Omar and Zaharia, Matei},
  booktitle = {Proceedings of the 43rd International ACM SIGIR Conference on Research and Development in
               Information Retrieval},
  year = {2020}
}""",
    )

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All queries with all documents, [n, m]."""
        return maxsim(a.embedding, a.mask, b.embedding, b.mask)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Query i with document i, [n]."""
        return pairwise_maxsim(a.embedding, a.mask, b.embedding, b.mask)
