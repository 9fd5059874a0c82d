"""What is validated: a component, and what its card leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import registry
from ..card import FAMILIES, INPUTS, LABELS, Format, split_input
from ..errors import NotFoundError, RecipeError, check_choice, did_you_mean
from ..hooks import get_or_generate
from ..policy import Policy
from ..spec import Spec
from .report import Level

__all__ = ["Job", "Target", "all_targets", "resolve"]


@dataclass(frozen=True)
class Target:
    """A component to validate.

    Args:
        reference: as it was named.
        spec: what is known of it without importing it.
        kind: of the component; None: seen once it is imported.
        options: of its constructor, beyond its defaults.
        formats: the data it is tried on; none: those of its card.
        encoders: the families it is tried on; none: those of its card, else dense.
    """

    reference: str
    spec: Spec
    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    formats: Sequence[Format] = ()
    encoders: Sequence[str] = ()

    @property
    def deviations(self) -> Mapping[str, str]:
        """What its card declares, as far as it is read without importing it."""
        return self.spec.card.deviations if self.spec.card is not None else {}

    @property
    def registered(self) -> bool:
        """Whether a distribution registers it."""
        return bool(self.spec.provider)


@dataclass(frozen=True)
class Job:
    """One level of one target.

    Args:
        target: what is checked.
        level: whose checks.
        seed: of encoders and data.
        policy: which plugins may be used.
        only: ids of checks; none: all.
        done: ids of checks that have been made, or cannot be.
    """

    target: Target
    level: Level
    seed: int
    policy: Policy
    only: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()


def resolve(
    reference: str,
    *,
    kind: str | None = None,
    options: Mapping[str, Any] | None = None,
    inputs: Sequence[str] = (),
    labels: str = "",
    encoder: str = "",
) -> Target:
    """The target that a reference names.

    Args:
        reference: a name, `kind:name`, `distribution/name`, class name, `module:Class` or `path/file.py:Class`.
        kind: what it must be; None: whatever it is.
        options: of its constructor.
        inputs: the columns of the data; a name that is none of losskit's stands for "text".
        labels: of the data; needs inputs.
        encoder: a family; all of the card's without it.

    Raises:
        NotFoundError, AmbiguousError: the reference names nothing that may be used, or several components.
        RecipeError: inputs, labels or encoder that there are not, or an option that the component does not have.

    >>> resolve("cosent").kind, resolve("angle", kind="similarity").spec.class_name
    ('loss', 'AngleSimilarity')
    """
    spec = get_or_generate(kind, reference)
    if spec.status == "blocked" and spec.problem is not None:
        problem = spec.problem
        raise NotFoundError(f"{spec.kind} {spec.qualified!r}", got=f"blocked: {problem.reason}", fix=problem.fix)
    families = (spec.card.encoders if spec.card is not None else ()) or FAMILIES
    check_choice("--encoder", encoder or None, families)
    _check_options(spec, options or {})
    return Target(
        reference,
        spec,
        spec.kind if spec.provider or kind or reference.partition(":")[0] == spec.kind else None,
        dict(options or {}),
        _formats(inputs, labels),
        (encoder,) if encoder else (),
    )


def _formats(inputs: Sequence[str], labels: str) -> tuple[Format, ...]:
    check_choice("--labels", labels or None, LABELS)
    if not inputs:
        if labels:
            raise RecipeError("--labels", expected="--inputs beside it", got="none", fix="--inputs anchor,positive")
        return ()
    return (Format([_known(name) for name in inputs], labels or "none"),)


def _known(name: str) -> str:
    base, suffix = split_input(name)
    if not base:
        raise RecipeError("--inputs", expected="names such as anchor,positive", got=repr(name))
    return (base if base in INPUTS else "text") + suffix


def _check_options(spec: Spec, options: Mapping[str, Any]) -> None:
    known = [option.name for option in spec.options]
    for name in options if spec.status == "ok" else ():
        if name not in known:
            expected = f"an option of {spec.name} ({', '.join(known) or 'it has none'})"
            raise RecipeError(name, expected=expected, got="an unknown one", fix=did_you_mean(name, known))


def all_targets(kind: str | None = None) -> list[Target]:
    """Every installed component, or those of a kind, that the policy allows, in the order of `losskit list`."""
    usable = [spec for spec in registry.find(kind) if spec.status != "blocked"]
    return [Target(f"{spec.kind}:{spec.qualified}", spec, spec.kind) for spec in usable]
