"""Numbers that change in the course of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from losskit.errors import LossError, check_number, did_you_mean

__all__ = ["SCHEDULES", "check_schedule", "scheduled"]

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda passed: 1.0,
    "linear": lambda passed: passed,
    "quadratic": lambda passed: passed**2,
    "cosine": lambda passed: (1 - math.cos(math.pi * passed)) / 2,
}
"""How much of the way is gone, by the share of the warm-up that has passed."""
DEFAULTS = {"schedule": "linear", "from": 0.0, "to": 1.0, "delay": 0.0}


def scheduled(schedule: Mapping[str, Any], progress: float) -> float:
    """The number that a schedule gives at a moment of the training.

    It is `from` before `delay`, then goes to `to` in the course of `warmup`, and stays there: linearly, as the
    square of the time passed, as half a cosine wave, or at once ("constant").

    Args:
        schedule: `schedule` (a name of `SCHEDULES`, "linear"), `from` (0), `to` (1), and as shares of the training
            `delay` (0) and `warmup` (all that is left after the delay).
        progress: how far the training is, in [0, 1].

    >>> [scheduled({"schedule": "quadratic", "to": 8.0, "warmup": 0.5}, time) for time in (0, 0.25, 0.5, 1)]
    [0.0, 2.0, 8.0, 8.0]
    >>> [scheduled({"schedule": "constant", "delay": 0.5}, time) for time in (0, 0.5)]
    [0.0, 1.0]
    """
    own = DEFAULTS | dict(schedule)
    waited = progress - own["delay"]
    if waited < 0:
        return float(own["from"])
    warmup = own.get("warmup", 1 - own["delay"])
    if waited >= warmup:
        return float(own["to"])
    return float(own["from"] + (own["to"] - own["from"]) * SCHEDULES[own["schedule"]](waited / warmup))


def check_schedule(culprit: str, schedule: Mapping[str, Any]) -> None:
    """Refuse a schedule that `scheduled` cannot follow.

    Raises:
        LossError: an unknown key or name, something that is no number, or shares that are none.
    """
    known = (*DEFAULTS, "warmup")
    for key in schedule:
        if key not in known:
            raise LossError(
                f"{culprit}.{key}", expected=f"a key of a schedule ({', '.join(known)})",
                fix=did_you_mean(str(key), known),
            )  # fmt: skip
    own = DEFAULTS | dict(schedule)
    if own["schedule"] not in list(SCHEDULES):  # which asks for no hash
        raise LossError(
            f"{culprit}.schedule", expected=f"one of {', '.join(SCHEDULES)}", got=repr(own["schedule"]),
            fix=did_you_mean(str(own["schedule"]), SCHEDULES),
        )  # fmt: skip
    for key in ("from", "to"):
        check_number(f"{culprit}.{key}", own[key])
    for key in ("delay", "warmup"):
        check_number(f"{culprit}.{key}", own.get(key, 0.0))
        if not 0 <= own.get(key, 0.0) <= 1:
            raise LossError(f"{culprit}.{key}", expected="a share of the training, in [0, 1]", got=repr(own[key]))
    if own["delay"] + own.get("warmup", 0.0) > 1:
        got = f"{own['delay']} and {own['warmup']}"
        raise LossError(culprit, expected="delay and warmup of at most 1 together", got=got)
