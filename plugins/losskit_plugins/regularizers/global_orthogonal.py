"""Global orthogonal regularization: embeddings spread over the sphere as random ones would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from losskit import Card, Output, Similarity, build
from losskit.errors import LossError, check_number
from losskit.math import differentiable_once, full_precision, inner_products, over_tiles

__all__ = ["GlobalOrthogonalRegularizer", "check_options", "global_orthogonal", "off_diagonal_sums"]

Scalar = Float[Tensor, ""]


def global_orthogonal(
    records: Sequence[Output],
    similarity: Similarity,
    *,
    mean_weight: float | None = 1.0,
    second_moment_weight: float | None = 1.0,
    aggregation: str = "mean",
) -> dict[str, Scalar]:
    """w1 (M_1)^2 and w2 max(0, M_2 - 1 / d), where M_k is the mean of s_ij^k over i != j, over all records.

    Args:
        records: of n embeddings of width d each; one of a single embedding adds nothing.
        similarity: an inner product of transformed vectors takes the shorter Gram matrix, any other tiles of scores.
        mean_weight: w1; 0 or None leaves the term out.
        second_moment_weight: w2, as well; the mean square of random directions' cosines is 1 / d.
        aggregation: "mean" or "sum" over the records.

    >>> record = Output(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0]]))
    >>> global_orthogonal([record], build("cosine", kind="similarity"))
    {'gor_mean': tensor(0.3600), 'gor_second_moment': tensor(0.1100)}
    """
    weights = {"gor_mean": mean_weight, "gor_second_moment": second_moment_weight}
    terms = dict(zip(weights, zip(*(_terms(record, similarity) for record in records), strict=True), strict=True))
    return {key: weight * getattr(torch.stack(terms[key]), aggregation)() for key, weight in weights.items() if weight}


def off_diagonal_sums(vectors: Float[Tensor, "n dim"]) -> tuple[Scalar, Scalar]:
    """sum over i != j of v_i v_j, and of (v_i v_j)^2, in O(n dim min(n, dim)) time.

    The gradients cannot be differentiated again.

    >>> off_diagonal_sums(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
    (tensor(1.2000), tensor(0.7200))
    """
    sums: tuple[Scalar, Scalar] = _OffDiagonal.apply(vectors)  # type: ignore[no-untyped-call]
    return sums


def check_options(name: str, mean_weight: float | None, second_moment_weight: float | None, aggregation: str) -> None:
    """Refuse weights that leave nothing, and an unknown aggregation.

    Raises:
        LossError: names the option of `name`.
    """
    for option, weight in (("mean_weight", mean_weight), ("second_moment_weight", second_moment_weight)):
        if weight is not None:
            check_number(f"{name}.{option}", weight)
    if not mean_weight and not second_moment_weight:
        expected, got = "it or second_moment_weight other than 0", repr(mean_weight)
        raise LossError(f"{name}.mean_weight", expected=expected, got=got)
    if aggregation not in ("mean", "sum"):
        raise LossError(f"{name}.aggregation", expected="mean or sum", got=repr(aggregation))


class GlobalOrthogonalRegularizer(nn.Module):
    """Asks that the similarities of a column's embeddings have the mean and spread of random directions.

    Args:
        mean_weight: of the squared mean similarity.
        second_moment_weight: of what the mean squared similarity exceeds 1 / d by.
        aggregation: "mean" or "sum" of queries and documents.
        similarity: by name; None: cosine.

    Raises:
        LossError: weights that are both 0, or another aggregation.
    """

    card = Card(
        encoders=["dense", "sparse"],
        row_wise=False,
        memory="D^2 or tile",
        formula="w1 (mean_{i != j} s_ij)^2 + w2 max(0, mean_{i != j} s_ij^2 - 1/d)",
        citation="""@inproceedings{zhang2017spread,
  title = {Learning Spread-Out Local Feature Descriptors},
  author = {Zhang, Xu and Yu, Felix X. and Kumar, Sanjiv and Chang, Shih-Fu},
  booktitle = {Proceedings of the IEEE International Conference on Computer Vision},
  year = {2017}
}""",
    )

    def __init__(
        self,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: str = "mean",
        similarity: str | Similarity | None = None,
    ) -> None:
        super().__init__()
        check_options(type(self).__name__, mean_weight, second_moment_weight, aggregation)
        self.mean_weight = mean_weight
        self.second_moment_weight = second_moment_weight
        self.aggregation = aggregation
        self.similarity = similarity
        chosen = "cosine" if similarity is None else similarity
        self.scorer: Similarity = build(chosen, kind="similarity") if isinstance(chosen, str) else chosen

    def forward(self, queries: Output | None, documents: Output) -> Scalar:
        """The weighted sum of both terms."""
        records = [documents] if queries is None else [queries, documents]
        terms = global_orthogonal(records, self.scorer, **self._terms)
        return torch.stack(list(terms.values())).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**self._terms, "similarity": self.similarity}

    @property
    def _terms(self) -> dict[str, Any]:
        names = ("mean_weight", "second_moment_weight", "aggregation")
        return {name: getattr(self, name) for name in names}


def _terms(record: Output, similarity: Similarity) -> tuple[Scalar, Scalar]:
    """Both terms of one record."""
    assert record.embedding is not None
    transform = getattr(similarity, "transform", None)
    with full_precision(record.embedding):
        if transform is not None:
            total, squares = off_diagonal_sums(transform(record))
        else:
            total, squares = _tiled(record, similarity, 1), _tiled(record, similarity, 2)
    pairs = max(1, record.items * (record.items - 1))
    return (total / pairs).square(), (squares / pairs - 1.0 / record.embedding.shape[-1]).relu()


def _tiled(record: Output, similarity: Similarity, power: int) -> Scalar:
    """sum over i != j of s_ij^power."""

    def off_diagonal(scores: Tensor, part: slice) -> Tensor:
        own = torch.arange(part.start, part.stop, device=scores.device)[:, None]
        return scores.scatter(1, own, 0.0).pow(power).sum()

    total = over_tiles(record, record, off_diagonal, similarity=similarity)
    return total


class _OffDiagonal(torch.autograd.Function):
    """With many vectors from the Gram matrix of the dimensions, for |V V^T| = |V^T V|; else from that of the vectors.

    The squared lengths are taken off the former. With n >= 2 d that loses no precision: the sum of squares of
    unit vectors is n^2 / d or more, and theirs is n.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> tuple[Tensor, Tensor]:
        along, lengths = vectors.sum(0), torch.linalg.vector_norm(vectors, dim=1).square_()
        ctx.by_dimension = vectors.shape[0] >= 2 * vectors.shape[1]
        if ctx.by_dimension:
            gram = inner_products(vectors.T, vectors.T)
            total = (vectors @ along).sub_(lengths).sum()
            squares = torch.linalg.vector_norm(gram).square() - lengths.square().sum()
        else:
            gram = inner_products(vectors, vectors).fill_diagonal_(0.0)
            total, squares = gram.sum(), torch.linalg.vector_norm(gram).square()
        ctx.save_for_backward(vectors, gram, along, lengths)
        return total, squares

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, of_total: Tensor, of_squares: Tensor) -> Tensor:
        vectors, gram, along, lengths = ctx.saved_tensors
        own = 2.0 * of_total
        if ctx.by_dimension:
            gradient, own = inner_products(vectors, gram), (lengths * (4.0 * of_squares) + own)[:, None]
        else:
            gradient = inner_products(gram, vectors.T)
        return gradient.mul_(4.0 * of_squares).addcmul_(vectors, own, value=-1.0).add_(along * (2.0 * of_total))
