"""Which laws there are."""

from __future__ import annotations

from collections.abc import Sequence

from .forward_laws import dropout, executions, order, padding, untouched
from .kind_laws import diagonal, identity, of_lists_alone, transform, weights
from .law import Check, Law
from .saving_laws import config, owned_state, pickled
from .stage_laws import additivity, compiles, degenerate, half_precision, masking, meta
from .subject import Subject

__all__ = ["ALL", "check", "laws"]

ALL: tuple[Law, ...] = (
    diagonal,
    transform,
    weights,
    of_lists_alone,
    additivity,
    executions,
    dropout,
    order,
    padding,
    masking,
    untouched,
    degenerate,
    half_precision,
    config,
    pickled,
    owned_state,
    meta,
    compiles,
    identity,
)
"""In the order of the contracts."""


def laws(kind: str) -> tuple[Law, ...]:
    """The laws of a kind of component.

    >>> [law.id for law in laws("similarity")][:2]
    ['diagonal', 'transform']
    """
    return tuple(each for each in ALL if kind in each.kinds)


def check(subject: Subject, only: Sequence[str] = ()) -> list[Check]:
    """Run the laws of a subject.

    Args:
        subject: a component with an encoder and data.
        only: ids of laws; none: all.

    >>> from losskit import losses
    >>> [check.status for check in check(Subject(losses.CoSENTLoss), only=["untouched", "degenerate"])]
    ['passed', 'passed']
    """
    return [each(subject) for each in laws(subject.kind) if not only or each.id in only]
