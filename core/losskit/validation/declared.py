"""Checks of what a component declares: its entry point, its card and its citation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..card import FAMILIES, Card
from ..discover import KEBAB
from ..errors import did_you_mean
from ..policy import normalize
from ..registry import current, same_name, space
from ..source import Ancestor, ClassSource, UnreadableError
from ..spec import Spec
from .bibtex import BibtexError, entries
from .findings import NotApplicable, Violation
from .ids import CHECKS
from .reading import lineage, located

__all__ = ["card", "citation", "entry_point"]


def entry_point(spec: Spec) -> Iterator[Violation]:
    """The name is kebab-case and this component's alone, and the target is a class that can be used."""
    if spec.provider and not KEBAB.fullmatch(spec.name):
        yield Violation(f"the name {spec.name!r} is not kebab-case", "lower-case words and hyphens", spec.name)
        return
    try:
        stated = located(spec)
    except UnreadableError as problem:
        reason = f"the target {spec.target} leads to no class: {problem.reason}"
        yield Violation(reason, "a class", "none", file=problem.file or None, line=problem.line)
        return
    if spec.problem is not None and spec.status not in ("broken", "ambiguous"):
        reason = f"it cannot be used: {spec.problem.reason}"
        yield Violation(reason, "status ok", f"status {spec.status}", file=stated.file, line=stated.line)
    if spec.provider:
        yield from _collisions(spec)


def _collisions(spec: Spec) -> Iterator[Violation]:
    """Names and aliases that other components have; losskit's own were there first."""
    others = [
        other
        for other in current().specs
        if other.status != "blocked" and other.target != spec.target and space(other.kind) == space(spec.kind)
    ]
    foreign = [other for other in others if normalize(other.provider) != normalize(spec.provider)]
    for other in () if spec.builtin else foreign:
        if same_name(spec, other):
            provider = f"{other.provider}=={other.version}"
            yield Violation(f"{provider} has a {other.kind} of this name too", "a name of its own", spec.name)
    for alias in spec.names[1:]:
        for other in others:
            if alias in other.names and not (spec.builtin and other in foreign):
                message = f"the alias {alias!r} already means the {other.kind} {other.qualified}"
                yield Violation(message, "an alias of its own", alias)


def card(spec: Spec) -> Iterator[Violation]:
    """The card is there, literal, and says what listing, matching and validation read."""
    if spec.card is None and spec.problem is None:
        raise NotApplicable("a class that is not registered needs no card")
    ancestors = lineage(spec)  # a class that cannot be found is its entry point's affair
    if spec.card is None:
        if spec.problem is None or spec.status != "broken":
            raise NotApplicable("it cannot be used, so its card was not read")
        problem = spec.problem
        yield Violation(problem.reason, "a literal card", "none that can be read", file=problem.file, line=problem.line)
        return
    stated = next(each for each in ancestors if isinstance(each, ClassSource) and each.card is not None)
    for message, expected, got in _flaws(spec.card, _kind(spec, ancestors)):
        yield Violation(message, expected, got, file=stated.file, line=(stated.card or {})["line"])


def _kind(spec: Spec, ancestors: Sequence[Ancestor]) -> str:
    """What kind a component is; "" for a class of a file or module that only shows it once it is imported."""
    if spec.kind == "wrapper" or "losskit.Wrapper" in ancestors:
        return "wrapper"
    known = (
        spec.provider or spec.kind != "loss" or any(each in ancestors for each in ("losskit.Loss", "losskit.ScoreLoss"))
    )
    return spec.kind if known else ""


_Flaw = tuple[str, str, str]


def _flaws(card: Card, kind: str) -> Iterator[_Flaw]:
    """What a card that can be read leaves out or gets wrong: message, expected and got."""
    if kind in ("loss", "wrapper") and not card.formula.strip():
        yield "the card has no formula", "the loss in one line", "nothing"
    if kind == "loss" and not card.formats:
        yield "the card has no formats", "the columns and labels that it trains on", "none"
    if kind in ("loss", "encoder", "similarity") and not card.encoders:
        yield "the card names no encoders", f"some of {', '.join(FAMILIES)}", "none"
    if kind == "loss" and "cross-encoder" in card.encoders and any(each.outputs is None for each in card.formats):
        yield "a format does not say what a cross-encoder must put out", "outputs=1 or outputs='classes'", "None"
    if kind not in ("loss", "") and card.formats:
        yield f"a {kind} has no formats of its own", "no formats", str(len(card.formats))
    yield from _wrong_columns(card)
    yield from _wrong_deviations(card)


def _wrong_columns(card: Card) -> Iterator[_Flaw]:
    """Columns that `reads` names and no format has."""
    most = [each.arity[1] for each in card.formats]
    columns = None if None in most else max((each for each in most if each is not None), default=None)
    for encoder, read in (card.reads or {}).items():
        beyond = [each for each in read or () if columns is not None and not -columns <= each < columns]
        if beyond:
            yield f"reads names columns for {encoder!r} that no format has", f"below {columns}", str(beyond)


def _wrong_deviations(card: Card) -> Iterator[_Flaw]:
    """Deviations from no check; those that other packages bring have a `/` in their ids."""
    for check, reason in card.deviations.items():
        if check not in CHECKS and "/" not in check:
            hint = did_you_mean(check, CHECKS) or "losskit validate names its checks"
            yield f"the card declares a deviation from {check!r}, which is no check", hint, repr(check)
        elif not str(reason).strip():
            yield f"the card gives no reason for the deviation from {check!r}", "a sentence", "nothing"


def citation(spec: Spec) -> Iterator[Violation]:
    """What the card cites is BibTeX."""
    if spec.card is None or not spec.card.citation.strip():
        raise NotApplicable("it cites nothing")
    try:
        entries(spec.card.citation)
    except BibtexError as error:
        yield Violation(
            f"the citation is no BibTeX: {error}", error.expected, error.got, file=spec.file, line=spec.line
        )
