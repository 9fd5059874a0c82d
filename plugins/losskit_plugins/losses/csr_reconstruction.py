"""CSR reconstruction: sparse codes from which the dense embedding can be had back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError, check_number
from losskit.math import masked_mean, pad_lists, promoted, tuple_index

__all__ = ["TERMS", "CSRReconstructionLoss", "count_active", "mean_squared_error", "reconstruction", "spread"]

TERMS = ("reconstruction_loss_k", "reconstruction_loss_4k", "reconstruction_loss_aux")


def mean_squared_error(
    vectors: Float[Tensor, "n d"], others: Float[Tensor, "n d"], shares: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """sum over i of c_i |x_i - y_i|^2 / d, where the shares c are 1 / n if there are none. In float32 at least.

    >>> mean_squared_error(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    tensor(1.)
    """
    vectors, others = promoted(vectors), promoted(others)
    if shares is None:
        return functional.mse_loss(others, vectors)
    return functional.mse_loss(others, vectors, reduction="none").mean(1) @ shares.to(vectors.dtype)


def spread(vectors: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The mean squared distance of entries from the mean of their dimension; 1 where all vectors are the same.

    >>> spread(torch.tensor([[1.0, 0.0], [3.0, 0.0]])), spread(torch.ones(3, 2))
    (tensor(0.5000), tensor(1.))
    """
    # Seen from the first one, equal vectors are 0, whose mean is not rounded.
    vectors = promoted(vectors) - promoted(vectors[:1]).detach()
    found = functional.mse_loss(vectors.mean(0).expand_as(vectors), vectors)
    return found.where(found != 0, 1.0)


def reconstruction(columns: Sequence[Output], rows: slice, *, beta: float) -> dict[str, Float[Tensor, ""]]:
    """L_k, L_4k / 8 and beta L_aux of the tuples `rows`, each the mean over the columns that were encoded.

    L_k and L_4k are mean squared errors of what the k and the 4 k largest latents decode to. L_aux is that of what dead
    latents make of the residual of the former, over the residuals' `spread` in the whole column; 0 without dead ones.

    Args:
        columns: records with the parts that the loss needs.
        rows: tuples; where a tuple has several items, their mean counts.
        beta: weight of L_aux.

    Raises:
        LossError: no column has these parts.
    """
    encoded = [column for column in columns if "backbone" in column.parts]
    if not encoded:
        raise LossError(
            "csr-reconstruction",
            expected="records with an embedding and its reconstructions",
            got=f"parts {sorted({name for column in columns for name in column.parts})}",
            fix="call it with features and a csr encoder, not with embeddings",
        )
    weight = _per_tuple(columns[0][rows], promoted(encoded[0].parts["backbone"]).dtype)
    errors = zip(*(_errors(column, rows, weight) for column in encoded), strict=True)
    of_k, of_4k, of_aux = (sum(each[1:], each[0]) / len(encoded) for each in errors)
    return dict(zip(TERMS, (of_k, of_4k / 8, beta * of_aux), strict=True))


def count_active(loss: Loss, columns: Sequence[Output]) -> None:
    """Let an encoder that looks for dead latents count which are active in the records of a training forward."""
    count = None if loss.model is None else getattr(loss.encoder, "count_active", None)
    if count is not None:
        count([column.embedding for column in columns if column.embedding is not None])


class CSRReconstructionLoss(Loss):
    """Asks that dense embeddings can be had back from their sparse codes, and revives latents that are never used.

    Args:
        model: an encoder with a sparse auto-encoder.
        beta: weight of the auxiliary term.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text+"], labels="none")],
        encoders=["sparse"],
        needs=["backbone", "decoded_k", "decoded_4k", "decoded_aux", "decoded_k_pre_bias"],
        memory="B",
        formula="|x - x_k|^2 / d + |x - x_4k|^2 / 8 d + beta |e - e_aux|^2 / |e - mean(e)|^2, e = x - x_k + b",
        citation="""@misc{wen2025matryoshkarevisitingsparsecoding,
  title = {Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation},
  author = {Wen, Tiansheng and Wang, Yifei and Zeng, Zequn and others},
  year = {2025},
  eprint = {2503.01776},
  archivePrefix = {arXiv}
}""",
        relations=["csr: adds it to a loss that says which texts belong together."],
        requirements=["The encoder must be csr, or another that gives reconstructions."],
        deviations={
            "gradient": "what dead latents are to make up for is a target: its reconstruction gets no gradient"
        },
    )
    uses_weights = True
    uses_lists = ("text",)
    compares_rows = False

    def __init__(self, model: Any = None, beta: float = 1.0, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        check_number(f"{type(self).__name__}.beta", beta)
        self.beta = beta

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> dict[str, Tensor]:
        """`reconstruction_loss_k`, `_4k` and `_aux`."""
        return reconstruction(columns, rows, beta=self.beta)

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """Counts active latents."""
        count_active(self, columns)
        return columns, labels


def _errors(column: Output, rows: slice, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The three errors of one column."""
    part = column[rows]
    shares = _shares(part, weight)
    embeddings, auxiliary = part.parts["backbone"], part.parts.get("decoded_aux")
    of_k, of_4k = (mean_squared_error(embeddings, part.parts[name], shares) for name in ("decoded_k", "decoded_4k"))
    if auxiliary is None:
        return of_k, of_4k, torch.zeros_like(of_k)
    residuals = column.parts["backbone"] - column.parts["decoded_k_pre_bias"].detach()
    mine = Output(residuals, lists=column.lists)[rows].embedding
    return of_k, of_4k, mean_squared_error(mine, auxiliary, shares) / spread(residuals)


def _per_tuple(record: Output, dtype: torch.dtype) -> Tensor | None:
    """The sample weight of each tuple, if there are any; its items share it."""
    weight = record.weight
    if weight is None:
        return None
    weight = weight.detach().to(dtype)
    return weight if record.lists is None else masked_mean(*pad_lists(weight, record.lists), dim=1)


def _shares(record: Output, weight: Tensor | None) -> Tensor | None:
    """What each item counts, given the weights of tuples, whose items count alike; None: all the same."""
    like = promoted(record.parts["backbone"])
    share = None if weight is None else weight / record.tuples
    if record.lists is None:
        return share
    counts = like.new_tensor(record.lists)
    each = 1 / (record.tuples * counts) if share is None else share / counts
    return each[tuple_index(record.lists, record.items, like.device)]
