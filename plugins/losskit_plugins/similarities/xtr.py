"""XTR: late interaction of the tokens that would be retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from losskit import Card, Output
from losskit.errors import LossError
from losskit.math import xtr

__all__ = ["XTRSimilarity"]


class XTRSimilarity:
    """Mean of the best matches of a query in a document that are among the top k of all documents' tokens.

    So training sees what retrieval of single tokens will find; a document of which no token is retrieved scores 0.

    Args:
        top_k: how many document tokens each query token retrieves.

    Raises:
        LossError: a `top_k` that is no positive whole number.
    """

    card = Card(
        encoders=["multi-vector"],
        memory="tile",
        formula="mean of the max_j a_i b_j that are among the top k of query token i with tokens of any document",
        citation="""@inproceedings{lee2023rethinking,
  title = {Rethinking the Role of Token Retrieval in Multi-Vector Retrieval},
  author = {Lee, Jinhyuk and Dai, Zhuyun and Duddu, Sai Meher Karthik and Lei, Tao and Naim, Iftekhar and
            Chang, Ming-Wei and Zhao, Vincent},
  booktitle = {Advances in Neural Information Processing Systems 36},
  year = {2023}
}""",
        requirements=["Documents enough for a choice: where all their tokens together are at most top_k, all count."],
        relations=["mean-maxsim: what it is where every match is retrieved."],
    )

    pooled = True

    def __init__(self, top_k: int = 256) -> None:
        self.top_k = top_k
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise LossError(f"{type(self).__name__}.top_k", expected="a whole number of 1 or more", got=repr(top_k))

    def get_config_dict(self) -> dict[str, Any]:
        """The options that make it again."""
        return {"top_k": self.top_k}

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All queries with all documents, [n, m]."""
        return xtr(a.embedding, a.mask, b.embedding, b.mask, top_k=self.top_k)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Query i with document i, [n], retrieved among all."""
        return self(a, b).diagonal()

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Query i with document i of each of k others, [n, k], retrieved among the documents of all."""
        scores = self(a, Output.cat(others)).unflatten(1, (len(others), -1))
        return torch.stack([each.diagonal() for each in scores.unbind(1)], 1)
