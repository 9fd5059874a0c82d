"""Options of encoders: checked, and settled between what is asked for and what the model folder says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from losskit.errors import ModelError, RecipeError, did_you_mean

from .layout import Settings

__all__ = ["check_choice", "check_positive", "given", "own_number", "vector_similarity"]

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
"""Of encoders of one vector per text."""


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of the options that an encoder was made with, as plain values; a model that is an object is not.

    >>> given({"model": Path("folder"), "pooling": None, "prompts": {"query": "q: "}})
    {'model': 'folder', 'prompts': {'query': 'q: '}}
    """
    kept = {name: value for name, value in options.items() if not (value is None or isinstance(value, PreTrainedModel))}
    return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value) if isinstance(value, Path) else value


def check_choice(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices; None is what the folder says.

    Raises:
        RecipeError: names the option.
    """
    if value is not None and value not in choices:
        raise RecipeError(
            option, expected=f"one of {', '.join(choices)}", got=repr(value), fix=did_you_mean(str(value), choices)
        )


def check_positive(culprit: str, value: Any, error: type[ModelError] | type[RecipeError] = RecipeError) -> None:
    """Refuse what is no whole number from 1; None is what the folder says, or none.

    Raises:
        RecipeError: names the option; or the error that is given, where a folder says it.
    """
    if value is not None and (type(value) is not int or value < 1):
        raise error(culprit, expected="1 or more", got=repr(value))


def own_number(option: str, chosen: int | None, settings: Settings) -> int | None:
    """A number from 1: the chosen one, else that of the folder, else none.

    Raises:
        RecipeError: the chosen one is no such number.
        ModelError: the folder's is none.
    """
    check_positive(option, chosen)
    found: int | None = settings.own.get(option)
    check_positive(f"{option} of the model", found, ModelError)
    return found if chosen is None else chosen


def vector_similarity(chosen: str | None, settings: Settings, default: str) -> str:
    """What vectors are compared by: the chosen one, else that of the folder, else the default of their family.

    Raises:
        RecipeError: there is none of the chosen name.
        ModelError: there is none of the folder's.
    """
    check_choice("similarity", chosen, SIMILARITIES)
    name: str = chosen or settings.own.get("similarity_fn_name") or default
    if name not in SIMILARITIES:
        expected = f"one of {', '.join(SIMILARITIES)}"
        raise ModelError("similarity_fn_name of the model", expected=expected, got=repr(name))
    return name
