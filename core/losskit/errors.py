"""Everything losskit raises on purpose.

    LosskitError                      exit code 2 on the command line unless said otherwise
    |-- DataError                     a file, column, label or value of the user's data   (also ValueError)
    |-- RecipeError                   a recipe, an override or an option                  (also ValueError)
    |-- NotFoundError                 no component of that name                           (also LookupError)
    |-- AmbiguousError                a name that several distributions or kinds provide
    |-- LossError                     a loss was built or called wrongly                  (also ValueError)
    |-- ModelError                    a saved model that cannot be read or written
    `-- PluginError                   a component that was needed failed to load; exit code 3

A message names the culprit, what was expected, what was got, and the fix, in one line.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

__all__ = [
    "AmbiguousError",
    "DataError",
    "LossError",
    "LosskitError",
    "ModelError",
    "NotFoundError",
    "PluginError",
    "RecipeError",
    "brief",
    "check_choice",
    "check_number",
    "did_you_mean",
    "is_interrupt",
]


LONGEST = 1_000
"""How many characters of a stranger's exception are told."""


class LosskitError(Exception):
    """Base of all errors that losskit raises on purpose.

    Args:
        culprit: what is wrong, by the name the user knows it by.
        expected: what would have been right.
        got: what was there instead.
        fix: what to do about it.

    >>> print(DataError("column 'score'", expected="numbers", got="'high' in row 3", fix="map another column"))
    column 'score': expected numbers, got 'high' in row 3. Fix: map another column
    """

    exit_code = 2

    def __init__(self, culprit: str, *, expected: str = "", got: str = "", fix: str = "") -> None:
        self.culprit, self.expected, self.got, self.fix = culprit, expected, got, fix
        found = ", ".join(filter(None, (expected and f"expected {expected}", got and f"got {got}")))
        message = f"{culprit}: {found}" if found else culprit
        super().__init__(f"{message}. Fix: {fix}" if fix else message)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle their positional arguments only; worker processes must hand these on whole.
        return _rebuild, (type(self), self.culprit, self.expected, self.got, self.fix)


def _rebuild(cls: type[LosskitError], culprit: str, expected: str, got: str, fix: str) -> LosskitError:
    return cls(culprit, expected=expected, got=got, fix=fix)


class DataError(LosskitError, ValueError):
    """The user's data: a missing file, a wrong column, label or value."""


class RecipeError(LosskitError, ValueError):
    """A recipe, an override or an option that cannot be right."""


class NotFoundError(LosskitError, LookupError):
    """No component answers to this reference."""


class AmbiguousError(LosskitError):
    """Several distributions, or several kinds, answer to this reference."""


class LossError(LosskitError, ValueError):
    """A loss was built or called in a way it cannot serve."""


class ModelError(LosskitError):
    """A saved model that cannot be read, or written."""


class PluginError(LosskitError):
    """A component that was needed failed to load."""

    exit_code = 3


def check_choice(option: str, value: str | None, known: Sequence[str]) -> None:
    """Refuse the value of an option that is none of the known ones; None says nothing.

    Raises:
        RecipeError: names the option, and the nearest of them.

    >>> check_choice("kind", "los", ("loss", "encoder"))
    Traceback (most recent call last):
    losskit.errors.RecipeError: kind: expected one of loss, encoder, got 'los'. Fix: did you mean 'loss'?
    """
    if value is not None and value not in known:
        fix = did_you_mean(value, known)
        raise RecipeError(option, expected=f"one of {', '.join(known)}", got=repr(value), fix=fix)


def check_number(
    option: str,
    value: Any,
    expected: Literal["a finite number", "a positive number", "0 or more"] = "a finite number",
    *,
    fix: str = "",
) -> None:
    """Refuse an option of a loss that is no finite number, or too low a one.

    Args:
        option: as `{type(self).__name__}.scale`.
        value: what was given.
        expected: what it may be; finite in any case.
        fix: as in `LosskitError`.

    Raises:
        LossError: says what it is.

    >>> check_number("AnglELoss.scale", float("inf"), "a positive number")
    Traceback (most recent call last):
    losskit.errors.LossError: AnglELoss.scale: expected a positive number, got inf
    """
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if not finite or (value <= 0 if expected == "a positive number" else value < 0 and expected == "0 or more"):
        raise LossError(option, expected=expected, got=repr(value), fix=fix)


def brief(error: BaseException) -> str:
    """An exception in one line, without the C++ frames that torch appends.

    >>> brief(ValueError("first\\n  second")), brief(KeyboardInterrupt())
    ('ValueError: first second', 'KeyboardInterrupt')
    >>> brief(TypeError("no size\\nException raised from unpack at numbers.h:79 (most recent call first):"))
    'TypeError: no size'
    >>> len(brief(ValueError("x" * 10**6)))
    1012
    """
    try:
        message, _, _ = str(error).partition("\nException raised from ")
    except (Exception, SystemExit):  # noqa: BLE001 - those of strangers may not even have a text
        message = "its text cannot be read"
    words = " ".join(message[: 2 * LONGEST].split())
    words = words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    return ": ".join(filter(None, (type(error).__name__, words)))


def is_interrupt(error: BaseException) -> bool:
    """Whether the user interrupted: any other exception out of a stranger's code is that code's own.

    >>> is_interrupt(SystemExit(1))
    False
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    import dis

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Code may raise one itself; what a signal raises comes from no such statement.
    return trace is None or trace.tb_frame.f_code.co_code[trace.tb_lasti] != dis.opmap["RAISE_VARARGS"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest known names as a phrase for an error message, or nothing.

    >>> did_you_mean("cosnt", ["cosent", "list-net"])
    "did you mean 'cosent'?"
    >>> did_you_mean("xyz", ["cosent"])
    ''
    """
    close = difflib.get_close_matches(name, sorted(set(known)), n=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
