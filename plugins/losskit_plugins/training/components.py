"""What a recipe's expressions name, found and checked without importing any of it.

Only for a name that no entry point gives the hooks are loaded by which plugins generate components.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from losskit.card import FAMILIES, Format
from losskit.errors import RecipeError, did_you_mean
from losskit.hooks import get_or_generate
from losskit.spec import Option, Spec

__all__ = ["Component", "resolve"]

KINDS = {
    "Loss": "loss",
    "LossProtocol": "loss",
    "Encoder": "encoder",
    "Regularizer": "regularizer",
    "Weighting": "weighting",
    "Similarity": "similarity",
}
"""Which kind of component an option's annotation stands for."""


@dataclass(frozen=True)
class Component:
    """A component as a recipe names it, with those that its options name.

    Args:
        spec: what is known of it without importing it.
        path: where the recipe names it.
        inner: the components in its options, by their paths.
    """

    spec: Spec
    path: str
    inner: tuple[Component, ...] = field(default=())

    @cached_property
    def losses(self) -> tuple[Component, ...]:
        """The losses that it wraps."""
        return tuple(each for each in self.inner if each.spec.kind in ("loss", "wrapper"))

    @property
    def formats(self) -> tuple[Format, ...]:
        """The data it trains on: its card's, or of a wrapper what it wraps; empty where only building it tells."""
        own = tuple(self.spec.card.formats) if self.spec.card else ()
        if own or not self.losses:
            return own
        first, *others = (each.formats for each in self.losses)
        return first if all(formats == first for formats in others) else ()

    @property
    def families(self) -> tuple[str, ...]:
        """The encoder families it works with, and all it wraps."""
        own = set(self.spec.card.encoders if self.spec.card else ()) or set(FAMILIES)
        return tuple(
            family for family in FAMILIES if family in own and all(family in each.families for each in self.losses)
        )

    def tree(self) -> Iterator[Component]:
        """It, and all that its options name."""
        yield self
        for each in self.inner:
            yield from each.tree()


def resolve(expression: str | Mapping[str, Any], kind: str, path: str | None = None) -> Component:
    """The components that an expression names; unknown names and options are refused.

    Args:
        expression: a name, or a mapping of `name` and options.
        kind: what it must be; "loss" means wrappers as well.
        path: where it stands, for messages.

    Raises:
        NotFoundError, AmbiguousError: a name that means nothing, or several components.
        PluginError: a component that cannot work here.
        RecipeError: an option that it does not have.

    >>> tree = resolve({"name": "matryoshka", "dims": [8], "loss": "cosent"}, "loss")
    >>> [each.spec.name for each in tree.tree()], tree.formats[0].labels
    (['matryoshka', 'cosent'], 'score')
    """
    path = path or kind
    options = {"name": expression} if isinstance(expression, str) else dict(expression)
    spec = get_or_generate(kind, options.pop("name"))
    if spec.problem is not None:
        spec.load()  # says what is wrong, and imports nothing
    known = {option.name: option for option in spec.options}
    inner: list[Component] = []
    for name, value in options.items():
        if name not in known:
            raise RecipeError(
                f"{path}.{name}",
                expected=f"an option of {spec.name} ({', '.join(known) or 'it has none'})",
                got="an unknown one",
                fix=did_you_mean(name, known) or "remove it",
            )
        inner += _named(value, known[name], f"{path}.{name}")
    return Component(spec, path, tuple(inner))


def _named(value: Any, option: Option, path: str) -> Iterator[Component]:
    words = re.findall(r"\w+", re.sub(r"(Mapping|dict)\[str,", "", option.type))
    kind = next((KINDS[word] for word in words if word in KINDS), None)
    if kind is None:
        return
    if (isinstance(value, str) and "str" not in words) or (isinstance(value, Mapping) and "name" in value):
        yield resolve(value, kind, path)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _named(each, option, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _named(each, option, f"{path}.{index}")
