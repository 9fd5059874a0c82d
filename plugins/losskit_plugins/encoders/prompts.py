"""Prompts: what is put before a text, by its role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from losskit.errors import RecipeError

__all__ = ["Prompts"]

ROLES = ("text", "query", "document")


@dataclass(frozen=True)
class Prompts:
    """Prompts by name, and which of them is used where no other is asked for.

    Args:
        texts: prompts by name; "query" and "document" are those of these roles.
        default: name of the prompt of plain texts; None: they have none.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def resolve(self, role: str, prompt: str | None) -> str:
        """The prompt of a text: the given one, else that of its role, else the default.

        Args:
            role: "text", "query", "document" or the name of a prompt.
            prompt: overrides; "" means none.

        >>> prompts = Prompts({"query": "query: ", "title": "title: "}, default="title")
        >>> prompts.resolve("query", None), prompts.resolve("text", None), prompts.resolve("query", "")
        ('query: ', 'title: ', '')
        """
        if prompt is not None:
            return prompt
        if role in self.texts:
            return self.texts[role]
        if role not in ROLES:
            known = ", ".join(dict.fromkeys((*ROLES, *self.texts)))
            raise RecipeError("role", expected=f"one of {known}", got=repr(role))
        return "" if self.default is None else self.texts[self.default]
