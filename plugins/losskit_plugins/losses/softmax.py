"""Softmax: pairs classified by a layer on top of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError
from losskit.math import differentiable_once, promoted

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
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, concatenate: tuple[Vector, ...]
    ) -> Tensor:
        ctx.save_for_backward(a, b, weight)
        ctx.concatenate = concatenate
        parts = zip(a.split(ROWS), b.split(ROWS), strict=True)
        return torch.cat([torch.addmm(bias, _joined(u, v, concatenate), weight.T) for u, v in parts])

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, weight = ctx.saved_tensors
        of_weight = torch.zeros_like(weight)
        of_a, of_b = [], []
        for u, v, upstream in zip(a.split(ROWS), b.split(ROWS), gradient.split(ROWS), strict=True):
            of_weight.addmm_(upstream.T, _joined(u, v, ctx.concatenate))
            of_u, of_v = _of_pair(u, v, (upstream @ weight).split(a.shape[1], 1), ctx.concatenate)
            of_a.append(of_u)
            of_b.append(of_v)
        return torch.cat(of_a), torch.cat(of_b), of_weight, gradient.sum(0), None


def _joined(a: Tensor, b: Tensor, concatenate: Sequence[Vector]) -> Tensor:
    made = {"a": lambda: a, "b": lambda: b, "difference": lambda: (a - b).abs_(), "product": lambda: a * b}
    return torch.cat([made[name]() for name in concatenate], 1)


def _of_pair(a: Tensor, b: Tensor, upstream: Sequence[Tensor], concatenate: Sequence[Vector]) -> tuple[Tensor, Tensor]:
    """The gradients of both vectors, from those of what was made of them."""
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for name, gradient in zip(concatenate, upstream, strict=True):
        if name == "a":
            of_a += gradient
        elif name == "b":
            of_b += gradient
        elif name == "product":
            of_a.addcmul_(gradient, b)
            of_b.addcmul_(gradient, a)
        else:
            signed = (a - b).sign_().mul_(gradient)
            of_a += signed
            of_b -= signed
    return of_a, of_b


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
        if not self.concatenate or not set(self.concatenate) <= set(get_args(Vector)):
            expected = f"some of {', '.join(get_args(Vector))}"
            raise LossError(f"{name}.concatenate", expected=expected, got=repr(concatenate))
        self.classifier = self.owned_linear(num_labels, vectors=len(self.concatenate), dimension=dimension)

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Refuse classes that there are not."""
        super().check_labels(columns, labels)
        if labels.is_floating_point():
            return
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= self.num_labels:
            raise LossError(
                f"labels for {type(self).__name__}",
                expected=f"classes from 0 to {self.num_labels - 1}",
                got=str(low if low < 0 else high),
                fix="set num_labels to the number of classes, and count them from 0",
            )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The cross-entropy of the pairs `rows`."""
        assert labels is not None
        logits = self.logits(columns, rows)
        targets = self._targets(labels)[rows]
        targets = targets.to(logits.dtype) if targets.ndim == 2 else targets
        return cross_entropy(logits, targets, reduction="sum") / max(1, rows.stop - rows.start)

    def logits(self, columns: Sequence[Output], rows: slice) -> Tensor:
        """What the layer makes of the pairs `rows`, [n, classes]."""
        layer = self.classifier
        tensors = [promoted(t) for t in (columns[0][rows].embedding, columns[1][rows].embedding)]
        dtype = torch.promote_types(tensors[0].dtype, layer.weight.dtype)
        a, b, weight, bias = (t.to(dtype) for t in (*tensors, layer.weight, layer.bias))
        return pair_logits(a, b, weight, bias, self.concatenate)

    def _targets(self, labels: Tensor) -> Tensor:
        """Classes [n], or distributions [n, classes]."""
        if labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] == self.num_labels:
            return labels
        if labels.is_floating_point() or labels.numel() != labels.shape[0]:
            raise LossError(
                f"labels for {type(self).__name__}",
                expected=f"integer classes [n], or distributions [n, {self.num_labels}]",
                got=f"{str(labels.dtype).removeprefix('torch.')} of shape {list(labels.shape)}",
            )
        return labels.reshape(-1).long()
