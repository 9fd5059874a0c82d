"""Softmax: pairs classified by a layer on top of their embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError
from losskit.math import differentiable_once, promoted

from ._classes import check_classes, class_targets

__all__ = ["SoftmaxLoss", "pair_logits"]

Vector = Literal["a", "b", "difference", "product"]
ROWS = 512
"""How many pairs are worked on at a time: their vectors side by side stay in a processor's cache."""


def pair_logits(
    a: Float[Tensor, "rows dim"],
    b: Float[Tensor, "rows dim"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, " classes"],
    concatenate: Sequence[Vector] = ("a", "b", "difference"),
) -> Float[Tensor, "rows classes"]:
    """W [u; v; |u - v|; u v] + bias, of the vectors that `concatenate` names, in that order.

    The concatenation is never held whole.

    >>> a, b, weight = torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[1.0, 10.0]])
    >>> pair_logits(a, b, weight, torch.zeros(1), ["a", "difference"])
    tensor([[23.]])
    """
    logits: Tensor = _PairLogits.apply(a, b, weight, bias, tuple(concatenate))
    return logits


class _PairLogits(torch.autograd.Function):
    """Each vector times its part of the weight, a few rows at a time."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, concatenate: tuple[Vector, ...]
    ) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        ctx.concatenate = concatenate
        parts = _parts(weight, concatenate)
        made = []
        for u, v in _chunks(a, b):
            logits = bias
            for name, part in parts.items():
                logits = torch.addmm(logits, _vector(name, u, v), part.T)
            made.append(logits)
        return made[0] if len(made) == 1 else torch.cat(made)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight = ctx.saved_tensors
        of_a, of_b, of_weight = torch.empty_like(a), torch.empty_like(b), torch.zeros_like(weight)
        parts, of_parts = _parts(weight, ctx.concatenate), _parts(of_weight, ctx.concatenate)
        for u, v, upstream, of_u, of_v in _chunks(a, b, gradient, of_a, of_b):
            _of_pair(u, v, upstream, parts, of_u, of_v)
            for name, of_part in of_parts.items():
                of_part.addmm_(upstream.T, _vector(name, u, v))
        return of_a, of_b, of_weight, gradient.sum(0), None


def _chunks(*tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
    if tensors[0].shape[0] <= ROWS:
        return [tensors]
    return zip(*(tensor.split(ROWS) for tensor in tensors), strict=True)


def _parts(weight: Tensor, concatenate: Sequence[Vector]) -> dict[Vector, Tensor]:
    """What each vector is multiplied with, as views."""
    count = len(concatenate)
    parts = weight.split_with_sizes([weight.shape[1] // count] * count, 1)
    return dict(zip(concatenate, parts, strict=True))


def _vector(name: Vector, a: Tensor, b: Tensor) -> Tensor:
    if name == "difference":
        return (a - b).abs_()
    return a * b if name == "product" else a if name == "a" else b


def _of_pair(
    a: Tensor, b: Tensor, upstream: Tensor, parts: Mapping[Vector, Tensor], of_a: Tensor, of_b: Tensor
) -> None:
    """Write the gradients of both vectors, given the part of the weight that each choice is multiplied with."""
    if "difference" in parts:
        torch.mul((a - b).sign_(), upstream @ parts["difference"], out=of_a)
        torch.neg(of_a, out=of_b)
    else:
        of_a.zero_()
        of_b.zero_()
    for name, into in (("a", of_a), ("b", of_b)):
        if name in parts:
            into.addmm_(upstream, parts[name])
    if "product" in parts:
        through = upstream @ parts["product"]
        of_a.addcmul_(through, b)
        of_b.addcmul_(through, a)


class SoftmaxLoss(Loss):
    """Classifies pairs by a linear layer on their embeddings, which the loss owns.

    Args:
        model: an encoder that embeds.
        num_labels: how many classes there are.
        concatenate: what the layer reads: "a", "b", "difference" (absolute), "product".
        dimension: of the embeddings; None: as the encoder says.
        execution: how records come about.

    Raises:
        LossError: fewer than two classes, an unknown vector, or an encoder of unknown dimension.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="class"),
            Format(inputs=["text", "text"], labels="distribution"),
        ],
        encoders=["dense", "sparse"],
        fixed_dimension=True,
        memory="B",
        formula="mean of -sum_c y_c log softmax(W [u; v; |u - v|] + bias)_c",
        citation="""@inproceedings{reimers2019sentencebert,
  title = {{Sentence-BERT}: Sentence Embeddings using {Siamese} {BERT}-Networks},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of EMNLP-IJCNLP},
  year = {2019}
}""",
        requirements=["Classes are integers from 0 to num_labels - 1, or a distribution over them per row."],
    )
    compares_rows = False

    def __init__(
        self,
        model: Any,
        num_labels: int,
        concatenate: tuple[Vector, ...] = ("a", "b", "difference"),
        dimension: int | None = None,
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.num_labels = num_labels
        self.concatenate = tuple(concatenate)
        self.dimension = dimension
        name = type(self).__name__
        if num_labels < 2:
            raise LossError(f"{name}.num_labels", expected="2 or more", got=repr(num_labels))
        chosen = set(self.concatenate)
        if not chosen or not chosen <= set(get_args(Vector)) or len(chosen) < len(self.concatenate):
            expected = f"some of {', '.join(get_args(Vector))}, each once"
            raise LossError(f"{name}.concatenate", expected=expected, got=repr(concatenate))
        self.classifier = self.owned_linear(num_labels, vectors=len(self.concatenate), dimension=dimension)

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Refuse classes that there are not."""
        super().check_labels(columns, labels)
        check_classes(type(self).__name__, labels, self.num_labels)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The cross-entropy of the pairs `rows`."""
        assert labels is not None
        logits = self.logits(columns, rows)
        targets = class_targets(type(self).__name__, labels, self.num_labels)[rows]
        if rows.start == rows.stop:
            return logits.sum()
        return cross_entropy(logits, targets.to(logits.dtype) if targets.ndim == 2 else targets)

    def logits(self, columns: Sequence[Output], rows: slice) -> Tensor:
        """What the layer makes of the pairs `rows`, [n, classes]."""
        layer = self.classifier
        a, b = promoted(columns[0][rows].embedding), promoted(columns[1][rows].embedding)
        weight, bias = layer.weight, layer.bias
        dtype = torch.promote_types(a.dtype, weight.dtype)
        if a.dtype != weight.dtype:
            a, b, weight, bias = (tensor.to(dtype) for tensor in (a, b, weight, bias))
        return pair_logits(a, b, weight, bias, self.concatenate)
