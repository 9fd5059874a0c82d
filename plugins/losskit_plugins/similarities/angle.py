"""Angle between complex vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from losskit import Card, Output
from losskit.math import normalize, pairwise_angle

__all__ = ["AngleSimilarity"]


class AngleSimilarity:
    """How small the angle between two complex vectors is, in [0, sqrt 2].

    The halves of a vector are the real and the imaginary parts of its entries; one of odd width gets a zero.
    """

    card = Card(
        encoders=["dense", "sparse"],
        memory="tile",
        formula="|Re c + Im c| with c = sum_k a_k conj(b_k) / (|a| |b|)",
        citation="""@inproceedings{li2024aoe,
  title = {{AoE}: Angle-Optimized Embeddings for Semantic Textual Similarity},
  author = {Li, Xianming and Li, Jing},
  booktitle = {Proceedings of the 62nd Annual Meeting of the Association for Computational Linguistics},
  year = {2024}
}""",
    )

    bound = 2**0.5

    def __call__(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        x, y = (normalize(record.embedding) for record in (a, b))
        if y.shape[1] % 2:
            x, y = (functional.pad(each, (0, 1)) for each in (x, y))
        real, imaginary = y.chunk(2, 1)
        # The product with the entries of y times 1 + i is the sum of real and imaginary part.
        return (x @ torch.cat([real - imaginary, real + imaginary], 1).T).abs()

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return pairwise_angle(a.embedding, b.embedding)

    def pairwise_each(self, a: Output, others: Sequence[Output]) -> Tensor:
        """Item i with item i of each other, [n, k]."""
        return pairwise_angle(a.embedding, *(other.embedding for other in others))
