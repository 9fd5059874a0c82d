"""Executions: frozen values that say how records come about. They hold no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..errors import RecipeError, did_you_mean

__all__ = ["Direct", "Execution", "GradCache", "from_config", "to_config"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What both executions have in common.

    Args:
        gather: score against the columns of all processes, with gradient.
        merge: encode columns whose padded widths are within a tenth of each other in one forward.
        rows: tuples per chunk of the loss stage, whose intermediate results are recomputed in the backward;
            None: all at once.
    """

    name: ClassVar[str]

    gather: bool = False
    merge: bool = True
    rows: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("gather", "merge"):
                if not isinstance(value, bool):
                    raise RecipeError(f"execution.{item.name}", expected="true or false", got=repr(value))
            elif value is not None and (type(value) is not int or value < 1):
                raise RecipeError(f"execution.{item.name}", expected="a positive integer", got=repr(value))


@dataclass(frozen=True, kw_only=True)
class Direct(Execution):
    """One autograd graph over all forwards.

    Args:
        tokens: encode all columns' rows, sorted by length and trimmed, in forwards of at most so many padded
            tokens; None: as they come.
    """

    name: ClassVar[str] = "direct"

    tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class GradCache(Execution):
    """Forwards without gradients, the loss on their records, then each mini-batch again with gradients.

    Needs memory for the activations of one mini-batch, and two forwards for each (Gao et al. 2021,
    "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup").

    Args:
        mini_batch_size: items per forward.
        mini_batch_tokens: instead, rows sorted by length in forwards of at most so many padded tokens.
    """

    name: ClassVar[str] = "grad-cache"

    mini_batch_size: int = 32
    mini_batch_tokens: int | None = None


_BY_NAME: dict[str, type[Execution]] = {Direct.name: Direct, GradCache.name: GradCache}


def from_config(config: str | Mapping[str, Any] | Execution) -> Execution:
    """An execution from a recipe: a name, or a mapping with `name`.

    >>> from_config({"name": "grad-cache", "mini_batch_size": 8})
    GradCache(gather=False, merge=True, rows=None, mini_batch_size=8, mini_batch_tokens=None)

    Raises:
        RecipeError: an unknown name or option, or a wrong value.
    """
    if isinstance(config, Execution):
        return config
    options = {"name": config} if isinstance(config, str) else dict(config)
    name = options.pop("name", None)
    if name not in _BY_NAME:
        raise RecipeError("execution.name", expected=" or ".join(_BY_NAME), got=repr(name))
    known = [item.name for item in fields(_BY_NAME[name])]
    for option in options:
        if option not in known:
            raise RecipeError(
                f"execution.{option}",
                expected=f"an option of {name} ({', '.join(known)})",
                fix=did_you_mean(option, known),
            )
    return _BY_NAME[name](**options)


def to_config(execution: Execution) -> dict[str, Any]:
    """The mapping that `from_config` reads back."""
    return {"name": execution.name} | {item.name: getattr(execution, item.name) for item in fields(execution)}
