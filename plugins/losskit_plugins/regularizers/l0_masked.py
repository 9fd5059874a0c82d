"""FLOPS of those texts only that have too many active terms."""

from __future__ import annotations

from losskit import Card
from losskit.errors import check_number

from .flops import FlopsRegularizer

__all__ = ["L0MaskedRegularizer"]


class L0MaskedRegularizer(FlopsRegularizer):
    """FLOPS that leaves texts alone once they are sparse enough.

    Args:
        threshold: texts with at most so many active terms count as 0, and get no gradient.

    Raises:
        LossError: a threshold below 0.
    """

    card = Card(
        encoders=["sparse"],
        row_wise=False,
        memory="B V",
        formula="sum_j (mean_i e_ij [|e_i|_0 > threshold])^2",
        citation="""@misc{shen2025exploring,
  title = {Exploring $\\\\ell_0$ Sparsification for Inference-free Sparse Retrievers},
  author = {Shen, Xinjie and Geng, Zhichao and Yang, Yang},
  year = {2025},
  eprint = {2504.14839},
  archivePrefix = {arXiv}
}""",
        relations=["flops with the same threshold."],
    )
    cases = [{"threshold": 2}]  # noqa: RUF012 - a validation's toy has 8 terms

    def __init__(self, threshold: float = 150) -> None:
        check_number(f"{type(self).__name__}.threshold", threshold, "0 or more")  # None is for plain FLOPS
        super().__init__(threshold)
