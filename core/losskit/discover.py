"""Entry points to specs: what every installed distribution registers, read without importing any of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .card import API_VERSION, Card, CardError, Format
from .errors import brief, did_you_mean
from .installed import Distribution, Installed, Point
from .policy import BUILTIN, Policy, normalize
from .requirements import Unmet, refuse, unmet
from .source import BASES, Allowed, Ancestor, ClassSource, Sources, UnreadableError
from .spec import Option, Problem, Spec, given_in_code, load_target

__all__ = ["GROUPS", "KEBAB", "LONGEST", "Entry", "Reader", "scan"]

GROUPS = {
    "losskit.losses": "loss",
    "losskit.wrappers": "wrapper",
    "losskit.regularizers": "regularizer",
    "losskit.weightings": "weighting",
    "losskit.similarities": "similarity",
    "losskit.encoders": "encoder",
    "losskit.commands": "command",
    "losskit.hooks": "hooks",
    "losskit.api": "api",
}
"""The entry-point groups and what each holds."""
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What names of components look like."""
LONGEST = 250
"""Characters that a name or a target may have."""
_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_MODULE = rf"{_DOTTED}(?<!\.py)"  # which would be a file of the working folder
_VALUE = re.compile(rf"({_MODULE})\s*(?::\s*({_DOTTED}))?\s*(?:\[.*\])?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point of losskit's groups."""

    kind: str
    name: str
    target: str
    distribution: Distribution
    provider: str
    version: str

    @property
    def builtin(self) -> bool:
        """Whether losskit's own distribution brings it."""
        return normalize(self.provider) == BUILTIN

    def load(self) -> Any:
        """Import what the target names; raises whatever that raises."""
        return load_target(self.target)

    def problem(self, status: str, reason: str, fix: str, file: str | None = None, line: int | None = None) -> Problem:
        """A problem of this entry."""
        return Problem(self.provider, self.version, self.target, status, reason, fix, file or None, line)


def scan(installed: Installed) -> tuple[list[Entry], list[Problem]]:
    """The entries of all distributions in an order of their own, and what could not be read."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for distribution in installed:
        if not distribution.concerns_losskit:
            continue
        name, version, folder = distribution.name, distribution.version, distribution.folder
        place = None if folder is None else str(folder)
        if distribution.flaw:
            fix = f"remove {place or name}, then pip install {name} again if you want it"
            problems.append(Problem(name, version, "METADATA", "broken", distribution.flaw, fix, place))
            continue
        if distribution.rivals:
            reason = f"{' and '.join(distribution.rivals)} are installed over one another"
            fix = f"pip uninstall {name} until none is left, then pip install {name}"
            problems.append(Problem(name, version, "METADATA", "broken", reason, fix, place))
        for point in distribution.points:
            found = _entry(distribution, point)
            if isinstance(found, Entry):
                entries.append(found)
            else:
                problems.append(found)
    return entries, problems


def _entry(distribution: Distribution, point: Point | str) -> Entry | Problem:
    """An entry point as an entry, or why it is none."""
    name, version = distribution.name, distribution.version
    if isinstance(point, str):
        reason = f"its entry points cannot be read, by torch neither: {point} is not name = module:attribute"
        return Problem(name, version, "entry_points.txt", "broken", reason, f"update {name}, or uninstall it")
    if max(len(point.name), len(point.value)) > LONGEST:
        reason = f"an entry point has more than {LONGEST} characters: {_shown(point.name)!r} = {_shown(point.value)!r}"
        return Problem(name, version, "entry_points.txt", "broken", reason, f"update {name}, or uninstall it")
    value = _VALUE.fullmatch(point.value)
    target = ":".join(filter(None, value.groups())) if value else point.value
    entry = Entry(GROUPS.get(point.group, ""), point.name, target, distribution, name, version)
    if not entry.kind:
        fix = did_you_mean(point.group, GROUPS) or f"use one of {', '.join(GROUPS)}"
        return entry.problem("broken", f"there is no entry-point group {point.group}", f"{fix}; or update {name}")
    if entry.kind == "api" and not entry.builtin:
        return entry.problem("broken", "only losskit itself may fill losskit.api", f"update {name}, or block it")
    if entry.kind in ("command", "hooks"):
        wrong = _misnamed(entry) if entry.kind == "command" else ""
        wrong = wrong or ("" if value else f"the target {target!r} is not module:attribute")
        if wrong:
            return entry.problem("broken", wrong, f"update {name}, or report it to its authors")
    return entry


def _misnamed(entry: Entry) -> str:
    """What is wrong with a name."""
    return "" if KEBAB.fullmatch(entry.name) else f"the name {entry.name!r} is not kebab-case"


class Reader:
    """Turns entries into specs."""

    def __init__(self, policy: Policy, sources: Sources, installed: Installed) -> None:
        self._policy, self._sources, self._installed = policy, sources, installed
        self._unmet: dict[str, list[Unmet]] = {}
        self._checked: dict[str, list[Unmet]] = {}

    def spec(self, entry: Entry) -> Spec:
        """What is known of an entry, with the first thing that is wrong with it."""
        spec = Spec(entry.kind, entry.name, entry.target, entry.provider, entry.version, entry.builtin)
        try:
            missing = self._admitted(entry)
            spec = self.described(spec, lambda parent: self._reachable(entry, parent))
            if spec.card is None:
                hint = "give it a literal `card = losskit.Card(...)`"
                raise UnreadableError(f"{spec.class_name} has no card", spec.file or "", spec.line, hint=hint)
            refuse([*missing, *unmet(spec.card.requires, self._installed)], "missing-dependency")
            return spec
        except Exception as error:  # noqa: BLE001 - whatever is odd about one package must not hide the others
            problem = _problem(entry, error)
        return replace(spec, status=problem.status, problem=problem)

    def obstacle(self, entry: Entry) -> Problem | None:
        """Why hooks or a command cannot be loaded, as far as their distribution's requirements show it."""
        try:
            refuse(self._compatible(entry), "missing-dependency")
        except Exception as error:  # noqa: BLE001 - as above
            return _problem(entry, error)
        return None

    def _admitted(self, entry: Entry) -> list[Unmet]:
        """Refuse what need not be read; what the distribution requires in vain."""
        refusal = self._policy.refusal(entry.provider, entry.name)
        if refusal:
            raise UnreadableError(refusal, status="blocked", fix="unblock or allow it there if you trust it")
        misnamed = _misnamed(entry)
        if misnamed:
            hint = "name the entry point in kebab-case, as in contrastive-tension"
            raise UnreadableError(misnamed, fix=f"{hint}; or update {entry.provider}")
        module, _, name = entry.target.partition(":")
        if not re.fullmatch(_MODULE, module) or not re.fullmatch(_DOTTED, name):
            fix = f"write module:Class in the entry point, or update {entry.provider}"
            raise UnreadableError(f"the target {entry.target!r} is not module:Class", fix=fix)
        return self._compatible(entry)

    def _compatible(self, entry: Entry) -> list[Unmet]:
        """Refuse what requires another losskit; what else its distribution requires in vain."""
        missing = self._requirements(entry)
        refuse([item for item in missing if item.name == BUILTIN], "incompatible")
        return missing

    def described(self, spec: Spec, reachable: Allowed = lambda parent: True) -> Spec:
        """A spec filled from the source of its class.

        Args:
            spec: what gives kind, name and target.
            reachable: whether a base in another module may be inherited from.

        Raises:
            UnreadableError: the class, or what it inherits, cannot be read.
        """
        module, _, name = spec.target.rpartition(":")
        if not module or not name:
            raise UnreadableError(f"the target {spec.target!r} is not module:Class")
        found = self._sources.class_at(module, name)
        lineage = self._sources.lineage(found, reachable)
        options = [Option(**{**row, "choices": tuple(row["choices"])}) for row in _options(lineage)]
        return replace(
            spec,
            summary=found.summary,
            file=found.file,
            line=found.line,
            card=self._card(lineage),
            options=tuple(option for option in options if option.name not in given_in_code(spec.kind)),
        )

    def whole(self, target: str) -> str:
        """A target with its class, where it is a file alone: the one class with a card that the file defines.

        Raises:
            UnreadableError: the file cannot be read, or defines none or several.
        """
        if not target.endswith(".py"):
            return target
        names = [name for name, stated in self._sources.record(target)["classes"].items() if stated["card"]]
        if len(names) != 1:
            found = f"classes with a card: {', '.join(names)}" if names else "no class with a card"
            raise UnreadableError(f"the file defines {found}", target, fix=f"write {target}:Class")
        return f"{target}:{names[0]}"

    def _card(self, lineage: list[Ancestor]) -> Card | None:
        for ancestor in lineage:
            if isinstance(ancestor, UnreadableError):
                raise ancestor
            if isinstance(ancestor, ClassSource) and ancestor.card is not None:
                return self._built(ancestor.card, ancestor.file)
        return None

    def _built(self, stated: dict[str, Any], file: str) -> Card:
        if "error" in stated:
            raise UnreadableError(stated["error"], file, stated["line"])
        values = dict(stated["fields"])
        _check_api(values.get("api", API_VERSION), file, stated["line"])
        try:
            if isinstance(values.get("formats"), list):
                values["formats"] = [self._instance(Format, item) for item in values["formats"]]
            card: Card = self._instance(Card, {"call": stated["call"], "fields": values})
        except (CardError, TypeError) as error:
            raise UnreadableError(f"the card is wrong: {error}", file, stated["line"]) from error
        return card

    def _instance(self, cls: type, stated: dict[str, Any]) -> Any:
        name, known = cls.__name__, [item.name for item in fields(cls)]
        if not self._sources.is_losskit(stated["call"], name):
            raise CardError(f"{stated['call']}(...)", expected=f"losskit.{name}(...)")
        for key in stated["fields"]:
            if key not in known:
                raise CardError(f"{name}.{key}", expected=f"one of {', '.join(known)}", fix=did_you_mean(key, known))
        return cls(**stated["fields"])

    def _requirements(self, entry: Entry) -> list[Unmet]:
        if entry.provider not in self._unmet:
            # What losskit itself requires is there, or nothing of this would run.
            requires = () if entry.builtin else entry.distribution.requires or ()
            self._unmet[entry.provider] = [item for text in requires for item in self._unmet_of(text)]
        return self._unmet[entry.provider]

    def _unmet_of(self, text: str) -> list[Unmet]:
        """What is unmet of a requirement, which many distributions may have."""
        if text not in self._checked:
            self._checked[text] = unmet([text], self._installed)
        return self._checked[text]

    def _reachable(self, entry: Entry, parent: ClassSource) -> bool:
        """Whether a class lies in the entry's distribution or in one that it requires."""
        top = re.split(r"[.:]", entry.target)[0]
        if parent.module.partition(".")[0] == top and self._sources.locate(top).loader is not None:
            return True
        names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in entry.distribution.requires]
        required = [self._installed.find(name) for name in names]
        return any(_owns(item, parent) for item in (entry.distribution, *required) if item is not None)


def _problem(entry: Entry, error: Exception) -> Problem:
    """What was raised while an entry was read, as its problem."""
    flaw = error if isinstance(error, UnreadableError) else UnreadableError(f"reading it raises {brief(error)}")
    fix = flaw.fix or (flaw.absent and _stale(entry.distribution)) or ""
    fix = fix or f"mend {entry.target}{flaw.hint and ': '}{flaw.hint}, or update {entry.provider}"
    return entry.problem(flaw.status, flaw.reason, fix, flaw.file, flaw.line)


def _stale(distribution: Distribution) -> str:
    """What may help where a target is not where an editable installation says; nothing for any other."""
    try:
        source = distribution.source
    except ValueError:
        return ""
    if source is None:
        return ""
    if source.is_dir():
        return f"pip install -e {source} again if that has moved since, or mend the entry point there"
    name = distribution.name
    return f"{source}, which {name} was installed from, is gone: pip install {name} again, or uninstall it"


def _shown(target: str) -> str:
    return target if len(target) <= LONGEST else f"{target[:LONGEST]}..."


def _options(lineage: list[Ancestor]) -> list[dict[str, Any]]:
    for ancestor in lineage:
        if isinstance(ancestor, UnreadableError):
            raise ancestor
        stated = BASES[ancestor] if isinstance(ancestor, str) else ancestor.options
        if stated is not None:
            return stated
    return []


def _check_api(api: object, file: str, line: int) -> None:
    """Refuse a card of another major version of the interface, or of a newer minor one."""
    ours = _numbers(API_VERSION)
    if not isinstance(api, str) or not re.fullmatch(r"\d+(\.\d+)*", api):
        raise UnreadableError(f"the card's api is {api!r}, not a version", file, line)
    theirs = _numbers(api)
    if theirs[0] != ours[0] or theirs > ours:
        reason = f"it is written for interface {api}, this losskit has {API_VERSION}"
        fix = "update losskit" if theirs > ours else "update the plugin"
        raise UnreadableError(reason, file, line, status="incompatible", fix=fix)


def _numbers(version: str) -> list[int]:
    """The numbers of a version, without zeros at its end.

    >>> _numbers("1.0"), _numbers("1.10"), _numbers("0")
    ([1], [1, 10], [0])
    """
    first, *others = (int(part) for part in version.split("."))
    while others and not others[-1]:
        others.pop()
    return [first, *others]


def _owns(distribution: Distribution, found: ClassSource) -> bool:
    """Whether a distribution brought the file of a class."""
    file = Path(found.file)
    try:
        source = distribution.source
    except ValueError as error:
        reason = f"whether it brings {found.module} cannot be told: direct_url.json: {brief(error)}"
        raise UnreadableError(reason, fix=f"pip install --force-reinstall {distribution.name}") from error
    if source is not None:
        return source in file.parents
    if distribution.files is None:
        return found.module.partition(".")[0] == normalize(distribution.name).replace("-", "_")
    return file in distribution.files
