"""Which laws there are."""

from __future__ import annotations

from collections.abc import Sequence

from ..validation.report import merged
from . import (
    claim_laws,
    cost_laws,
    device_laws,
    direction_laws,
    encode_laws,
    encoder_laws,
    encoder_saving_laws,
    encoder_training_laws,
    forward_laws,
    gradient_laws,
    interface_laws,
    kind_laws,
    number_laws,
    saving_laws,
    stage_laws,
    state_laws,
    system_laws,
    use_laws,
)
from .law import Check, Law, deviations
from .subject import Subject

__all__ = ["ALL", "check", "laws"]

HERE: tuple[Law, ...] = (
    *interface_laws.LAWS,
    *kind_laws.LAWS,
    *stage_laws.LAWS,
    *forward_laws.LAWS,
    *gradient_laws.LAWS,
    *use_laws.LAWS,
    *direction_laws.LAWS,
    *claim_laws.LAWS,
    *state_laws.LAWS,
    *number_laws.LAWS,
    *cost_laws.LAWS,
    *saving_laws.LAWS,
    *encoder_laws.LAWS,
    *encode_laws.LAWS,
    *encoder_training_laws.LAWS,
    *encoder_saving_laws.LAWS,
)
"""Those that need nothing but this process."""
ALL: tuple[Law, ...] = (*HERE, *system_laws.LAWS, *device_laws.LAWS)


def laws(kind: str, level: str | None = None) -> tuple[Law, ...]:
    """The laws of a kind of component.

    Args:
        kind: "loss", "wrapper", "similarity", "regularizer", "weighting" or "encoder".
        level: "interface", "numeric", "full" or "gpu"; None: those of all levels that start no processes or trainers
            and need no accelerator.

    >>> [law.id for law in laws("similarity", "numeric")][:2]
    ['diagonal', 'transform']
    """
    among = HERE if level is None else tuple(each for each in ALL if each.level == level)
    return tuple(each for each in among if kind in each.kinds)


def check(subject: Subject, only: Sequence[str] = ()) -> list[Check]:
    """Run the laws of a subject, which stands for all that its component can do: declared deviations must occur.

    Args:
        subject: a component with an encoder and data.
        only: ids of laws, of any level; none: those that `laws(subject.kind)` gives.

    >>> from losskit import losses
    >>> [check.status for check in check(Subject(losses.CoSENTLoss), only=["untouched", "degenerate"])]
    ['passed', 'passed']
    """
    asked = [each for each in ALL if subject.kind in each.kinds and each.id in only] if only else laws(subject.kind)
    return [merged([each.outcome(subject)], deviations(subject)) for each in asked]
