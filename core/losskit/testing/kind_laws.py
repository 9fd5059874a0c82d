"""Laws of one kind of component: what a similarity says of itself, and wrappers that change nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from .compare import Result, differentiate, require_equal
from .forward_laws import forward
from .law import NotApplicable, law
from .subject import Subject

__all__ = ["diagonal", "identity", "transform"]


@law(1, "similarity")
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


@law(1, "similarity")
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


@law(12, "wrapper")
def identity(subject: Subject) -> None:
    """With options that make it the identity, a wrapper gives what the inner loss gives."""
    if subject.equals is None:
        raise NotApplicable("no options are known that make it the identity")
    inner = replace(subject, make=subject.equals, kind="loss")
    require_equal("the wrapped beside the inner loss", forward(inner, inner.build()), forward(subject, subject.build()))
