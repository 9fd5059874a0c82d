"""Laws of one kind of component: what a similarity says of itself, what weights are, wrappers that change nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .compare import Result, Violation, differentiate, require_equal
from .forward_laws import forward
from .law import NotApplicable, law
from .subject import Subject

__all__ = ["diagonal", "identity", "of_lists_alone", "transform", "weights"]

LISTS = (5, 3, 1, 4, 0)
"""The lengths of the lists that weightings are tried on: of a single document and of none among them."""


@law(1, "similarity", cause="two formulas for one similarity")
def diagonal(subject: Subject) -> None:
    """Item i with item i is the diagonal of all pairs."""
    loss = subject.build()
    a, b = subject.records(loss)
    leaves = [leaf for leaf in (*a.tensors(), *b.tensors()) if leaf.requires_grad]
    require_equal(
        "pairwise beside the diagonal of the matrix",
        differentiate(loss.matrix(a, b).diagonal().sin().sum(), leaves),
        differentiate(loss.pairwise(a, b).sin().sum(), leaves),
    )


@law(1, "similarity", cause="a transform that leaves out a step of the similarity")
def transform(subject: Subject) -> None:
    """All pairs are inner products of transformed vectors, if there is a `transform`."""
    loss = subject.build()
    similarity = loss.scorer
    own = getattr(similarity, "transform", None)
    if own is None:
        raise NotApplicable("the similarity has no transform")
    a, b = subject.records(loss)
    require_equal(
        "transformed vectors beside the matrix",
        Result(torch.zeros(()), (similarity(a, b).detach(),)),
        Result(torch.zeros(()), ((own(a) @ own(b).T).detach(),)),
    )


@law(1, "weighting", cause="a division by gains or discounts that may be 0, or tensors made on one device")
def weights(subject: Subject) -> None:
    """Weights are numbers, 0 or more, for all pairs and on padding, of the type of the gains; nothing is written to."""
    for dtype in (torch.float32, torch.float64):
        inputs = _lists(dtype)
        before = [each.clone() for each in inputs]
        found = subject.make()(*inputs)
        _require_weights(found, *inputs)
        if not all(map(torch.equal, inputs, before)):
            raise Violation("a weighting changes its inputs", "the gains, discounts and labels as they were", "others")
        away = subject.make()(*(each.to("meta") for each in inputs))
        if away.device.type != "meta":
            raise Violation("the weights leave the device of the gains", "meta", away.device)


@law(5, "weighting", cause="a maximum or mean over all lists")
def of_lists_alone(subject: Subject) -> None:
    """A list has the weights that it has alone, whatever lists and padding stand beside it."""
    gain, discount, true = _lists(torch.float64)
    weighting = subject.make()
    together = weighting(gain, discount, true).expand(len(LISTS), gain.shape[1], gain.shape[1])
    for place, count in enumerate(filter(None, LISTS)):
        row = slice(place, place + 1)
        alone = weighting(gain[row, :count], discount[:, :count], true[row, :count]).expand(1, count, count)
        require_equal(
            f"a list of {count} documents, alone and among others",
            Result(torch.zeros(()), (alone,)),
            Result(torch.zeros(()), (together[row, :count, :count],)),
        )


def _lists(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Gains, discounts and labels of lists with ties, one of them without a relevant document, and 0 on padding."""
    positions = torch.arange(max(LISTS))
    there = positions < torch.tensor(LISTS)[:, None]
    labels = torch.tensor([[2, 0, 2, 1, 3], [0, 1, 1, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    true = labels.to(dtype) * there
    discount = (positions + 2).to(dtype).log2()[None]
    raised = true.exp2() - 1
    ideal = (raised.sort(dim=1, descending=True).values / discount).sum(1, keepdim=True)
    return raised / ideal.clamp(min=1e-10), discount, true


def _require_weights(found: Tensor, gain: Tensor, discount: Tensor, true: Tensor) -> None:
    pairs = (*gain.shape, gain.shape[1])
    try:
        broadcast = torch.broadcast_shapes(found.shape, pairs)
    except RuntimeError:
        broadcast = torch.Size()
    if broadcast != pairs:
        raise Violation("weights have another shape", f"one that broadcasts to {list(pairs)}", list(found.shape))
    if found.dtype != gain.dtype:
        raise Violation("weights have another type", gain.dtype, found.dtype)
    if not found.isfinite().all() or (found < 0).any():
        worst = "NaN or infinity" if not found.isfinite().all() else f"{float(found.min()):g}"
        raise Violation("weights are no numbers of 0 or more", "0 or more, and finite", worst)


@law(12, "wrapper", cause="a factor or normalisation that remains where there is nothing to do")
def identity(subject: Subject) -> None:
    """With options that make it the identity, a wrapper gives what the inner loss gives."""
    if subject.equals is None:
        raise NotApplicable("no options are known that make it the identity")
    inner = replace(subject, make=subject.equals, kind="loss")
    require_equal("the wrapped beside the inner loss", forward(inner, inner.build()), forward(subject, subject.build()))


LAWS = (diagonal, transform, weights, of_lists_alone, identity)
