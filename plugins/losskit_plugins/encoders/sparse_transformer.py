"""`SparseTransformerEncoder`: what sparse encoders around a transformer share, and rows of a sparse matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor
from transformers import PreTrainedModel

from losskit.output import Output

from .layout import Settings, TransformerSettings
from .options import own_number, vector_similarity
from .tokenizer import Tokenizer
from .transformer_encoder import TransformerEncoder

__all__ = ["SETTINGS", "SparseTransformerEncoder", "sparse_matrix", "sparse_rows"]

SETTINGS = ("similarity_fn_name", "max_active_dims")
"""The further keys that folders of sparse encoders have."""

Row = tuple[Tensor, Tensor]
"""The positions and the values of what is not zero."""


class SparseTransformerEncoder(TransformerEncoder):
    """Features, inference and the folder of a sparse encoder; a subclass says what `forward` makes of features.

    Args:
        transformer: run by `forward`.
        tokenizer: of its texts.
        settings: of the folder that it comes from.
        run: how the transformer is run, as folders say it.
        dimension: the width of its vectors.
        prompts: added to those of the folder.
        similarity: what vectors are compared by; None: as the folder says, or "dot".
        max_active_dims: how many entries of a vector `encode` keeps; None: as the folder says, or all.
        options: what the encoder was made with, by name; "model" None where it was an object.

    Raises:
        RecipeError: an option is none that there is.
        ModelError: what the folder says is none.
    """

    family = "sparse"
    normalized = False

    def __init__(
        self,
        transformer: PreTrainedModel,
        tokenizer: Tokenizer,
        settings: Settings,
        run: TransformerSettings,
        dimension: int,
        prompts: Mapping[str, str] | None,
        similarity: str | None,
        max_active_dims: int | None,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(transformer, tokenizer, settings, run, prompts, options)
        self.dimension = dimension
        self.similarity = vector_similarity(similarity, settings, default="dot")
        self.max_active_dims = own_number("max_active_dims", max_active_dims, settings)

    def _results(self, record: Output) -> Sequence[Row]:
        assert record.embedding is not None
        return sparse_rows(record.embedding.float(), self.max_active_dims)

    def _collected(self, results: Sequence[Row]) -> csr_array:
        return sparse_matrix(results, self.dimension)

    def _own_settings(self) -> tuple[str, Mapping[str, Any]]:
        own = {"similarity_fn_name": self.similarity, "max_active_dims": self.max_active_dims}
        return "SparseEncoder", {name: value for name, value in own.items() if value is not None}


def sparse_rows(vectors: Tensor, most: int | None = None) -> list[Row]:
    """What is not zero in each of n vectors, on the CPU.

    Args:
        vectors: [n, d].
        most: how many entries of a vector are kept, those of the largest absolute values; None: all.

    >>> sparse_rows(torch.tensor([[0.0, 2.0, -3.0], [1.0, 0.0, 0.0]]), most=1)
    [(tensor([2]), tensor([-3.])), (tensor([0]), tensor([1.]))]
    """
    if most is not None and most < vectors.shape[1]:
        largest = vectors.abs().topk(most, dim=1).indices
        vectors = torch.zeros_like(vectors).scatter_(1, largest, vectors.gather(1, largest))
    rows, positions = vectors.nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(vectors)).tolist()
    found = (each.cpu().split(counts) for each in (positions, vectors[rows, positions]))
    return list(zip(*found, strict=True))


def sparse_matrix(rows: Sequence[Row], width: int) -> csr_array:
    """Rows of `sparse_rows` as a matrix [n, width] in float32."""
    empty = (torch.zeros(0, dtype=torch.long), torch.zeros(0))
    positions, values = (torch.cat(parts).numpy() for parts in zip(empty, *rows, strict=True))
    ends = torch.tensor([0, *(len(each) for each, _ in rows)]).cumsum(0).numpy()
    return csr_array((values, positions, ends), shape=(len(rows), width))
