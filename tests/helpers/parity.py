"""What the parity tests share: embeddings, a model that both libraries take, and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losskit import LossError
from losskit.testing import Result, ToyEncoder, Violation, differentiate, require_equal

DIM = 6
FLOAT32 = 1e-5
TEXTS = [["a b c", "d", "e f g h", "i j"], ["k l", "m n o", "p", "q r"], ["s", "t u v w", "x y", "z"]]


def embeddings(columns: int, rows: int = 5, dtype: torch.dtype = torch.float64, dim: int = DIM) -> list[Tensor]:
    """Random embeddings per column, the same each time."""
    generator = torch.Generator().manual_seed(columns)
    drawn = [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(columns)]
    return [column.to(dtype).requires_grad_() for column in drawn]


def on(loss: Any, columns: Sequence[Tensor], labels: Tensor | None = None) -> Result:
    """The loss of embeddings, with their gradients and those of the parameters that the loss owns."""
    owned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    return differentiate(loss.compute_loss_from_embeddings(columns, labels), [*columns, *owned])


class Stub(nn.Module):
    """A toy encoder as the incumbent sees models."""

    def __init__(self, family: str = "dense") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.toy = ToyEncoder(family, DIM)
        self.device = torch.device("cpu")
        self.num_labels = 1

    similarity, dimension, normalized = "cosine", DIM, False

    def __getitem__(self, index):
        return (self.toy,)[index]

    def get_embedding_dimension(self):
        return DIM

    def preprocess(self, texts, prompt=None, task=None):
        return self.toy.preprocess(texts)

    def forward(self, features):
        made = self.toy({key: features[key] for key in ("input_ids", "attention_mask")}).embedding
        key, value = ("scores", made[:, None]) if self.toy.family == "cross-encoder" else ("sentence_embedding", made)
        return {**features, key: value}


def through(model: Stub, loss: Any, columns: int = 3, labels: Tensor | None = None) -> Result:
    """The loss of texts through the stub, with the gradients of its parameters."""
    features = [model.preprocess(column) for column in TEXTS[:columns]]
    return differentiate(loss(features, labels), list(model.parameters()))


def cached(model: Stub, loss: Any, columns: int = 3) -> Result:
    """As `through`, for a loss of the incumbent that fills gradients in a hook of the backward."""
    model.zero_grad()
    value = loss([model.preprocess(column) for column in TEXTS[:columns]], None)
    value.backward()
    parameters = list(model.parameters())
    return Result(value.detach(), tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters))


def require_as_near(theirs: Any, ours: Any, columns: int, labels: Tensor | None = None, rows: int = 5) -> None:
    """In float32 ours is no farther from the truth in float64 than 1.5 times the original, or 1e-5."""
    singles = embeddings(columns, rows, dtype=torch.float32)
    doubles = [column.detach().double().requires_grad_() for column in singles]
    truth = torch.cat([gradient.flatten() for gradient in on(ours, doubles, labels).gradients])
    errors = []
    for loss in (theirs, ours):
        found = torch.cat([gradient.flatten() for gradient in on(loss, singles, labels).gradients])
        errors.append(float((found - truth).abs().max() / truth.abs().max()))
    assert errors[1] <= max(1.5 * errors[0], 1e-5), errors


Difference = tuple[Callable[[], Any], Callable[[], Any]]
"""What the original gives, and what ours gives or raises."""


def one_zero_vector(theirs: Any, ours: Any, columns: int, labels: Tensor | None = None) -> Difference:
    """The difference that a zero vector makes, whose cosine has no gradient in ours."""

    def run(loss: Any) -> Result:
        first, *others = embeddings(columns)
        return on(loss, [first.detach().index_fill(0, torch.tensor(0), 0.0).requires_grad_(), *others], labels)

    return lambda: run(theirs), lambda: run(ours)


def require_different(theirs: Callable[[], Any], ours: Callable[[], Any]) -> None:
    """Ours differs from the original, or refuses by name where the original goes on."""
    expected = theirs()
    try:
        got = ours()
    except LossError:
        return
    if not isinstance(expected, Result):
        assert expected != got
        return
    with pytest.raises(Violation):
        require_equal("a difference of the table", expected, got)
