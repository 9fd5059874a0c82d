"""Entry points to specs: what every installed distribution registers, read without importing any of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from .card import API_VERSION, Card, CardError, Format
from .errors import brief, did_you_mean
from .policy import BUILTIN, Policy, normalize
from .source import BASES, Allowed, Ancestor, ClassSource, Sources, UnreadableError
from .spec import Option, Problem, Spec, given_in_code, load_target

__all__ = ["GROUPS", "KEBAB", "Entry", "Reader", "Unmet", "scan", "unmet"]

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry point of losskit's groups."""

    kind: str
    name: str
    target: str
    distribution: metadata.Distribution
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


def scan() -> tuple[list[Entry], list[Problem]]:
    """The entries of all distributions in an order of their own, and what could not be read."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for name, distribution in _distributions():
        if not name:
            reason = "something with entry points for losskit has no metadata"
            problems.append(Problem("", "", "entry_points.txt", "broken", reason, "remove or reinstall it"))
            continue
        version = _header(distribution, "Version")
        try:
            points = {(point.group, point.name, point.value) for point in distribution.entry_points}
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one distribution stays with it
            reason = f"its entry points cannot be read: {brief(error)}"
            problems.append(Problem(name, version, "entry_points.txt", "broken", reason, f"reinstall {name}"))
            continue
        for group, point, value in sorted(points):
            if not group.startswith("losskit."):
                continue
            target = value.partition("[")[0].replace(" ", "")
            entry = Entry(GROUPS.get(group, ""), point, target, distribution, name, version)
            if not entry.kind:
                fix = did_you_mean(group, GROUPS) or f"use one of {', '.join(GROUPS)}"
                problems.append(entry.problem("broken", f"there is no entry-point group {group}", fix))
            elif entry.kind == "api" and not entry.builtin:
                reason = "only losskit itself may fill losskit.api"
                problems.append(entry.problem("broken", reason, "remove the entry point"))
            else:
                entries.append(entry)
    return entries, problems


def _distributions() -> list[tuple[str, metadata.Distribution]]:
    """Those with entry points of ours, by name; of several with one name the one that Python imports."""
    found: dict[str, tuple[str, metadata.Distribution]] = {}
    for distribution in metadata.distributions():
        try:
            mentioned = "losskit." in (distribution.read_text("entry_points.txt") or "")
            name = _header(distribution, "Name") if mentioned else ""
        except (OSError, UnicodeDecodeError):
            continue
        if mentioned:
            found.setdefault(normalize(name), (name, (name and _installed(name)) or distribution))
    return [found[name] for name in sorted(found)]


def _header(distribution: metadata.Distribution, name: str) -> str:
    """A field of the metadata; nothing where it is missing."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return HeaderParser().parsestr(text).get(name, "")


class Reader:
    """Turns entries into specs."""

    def __init__(self, policy: Policy, sources: Sources) -> None:
        self._policy, self._sources = policy, sources
        self._unmet: dict[str, list[Unmet]] = {}

    def spec(self, entry: Entry) -> Spec:
        """What is known of an entry, with the first thing that is wrong with it."""
        spec = Spec(entry.kind, entry.name, entry.target, entry.provider, entry.version, entry.builtin)
        try:
            missing = self._admitted(entry)
            spec = self.described(spec, lambda parent: self._reachable(entry, parent))
            if spec.card is None:
                raise UnreadableError(f"{spec.class_name} has no card", spec.file or "", spec.line)
            _refuse([*missing, *unmet(spec.card.requires)], "missing-dependency")
            return spec
        except Exception as error:  # noqa: BLE001 - whatever is odd about one package must not hide the others
            problem = _problem(entry, error)
        return replace(spec, status=problem.status, problem=problem)

    def obstacle(self, entry: Entry) -> Problem | None:
        """Why hooks or a command cannot be loaded, as far as their distribution's requirements show it."""
        try:
            _refuse(self._compatible(entry), "missing-dependency")
        except Exception as error:  # noqa: BLE001 - as above
            return _problem(entry, error)
        return None

    def _admitted(self, entry: Entry) -> list[Unmet]:
        """Refuse what need not be read; what the distribution requires in vain."""
        refusal = self._policy.refusal(entry.provider, entry.name)
        if refusal:
            raise UnreadableError(refusal, status="blocked", fix="unblock or allow it there if you trust it")
        if not KEBAB.fullmatch(entry.name):
            raise UnreadableError(f"the name {entry.name!r} is not kebab-case")
        return self._compatible(entry)

    def _compatible(self, entry: Entry) -> list[Unmet]:
        """Refuse what requires another losskit; what else its distribution requires in vain."""
        missing = self._requirements(entry)
        _refuse([item for item in missing if item.name == BUILTIN], "incompatible")
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
            self._unmet[entry.provider] = unmet(requires)
        return self._unmet[entry.provider]

    def _reachable(self, entry: Entry, parent: ClassSource) -> bool:
        """Whether a class lies in the entry's distribution or in one that it requires."""
        top = re.split(r"[.:]", entry.target)[0]
        if parent.module.partition(".")[0] == top and self._sources.locate(top).loader is not None:
            return True
        required = [_installed(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in entry.distribution.requires or ()]
        return any(_owns(item, parent) for item in (entry.distribution, *required) if item is not None)


def _problem(entry: Entry, error: Exception) -> Problem:
    """What was raised while an entry was read, as its problem."""
    flaw = error if isinstance(error, UnreadableError) else UnreadableError(f"reading it raises {brief(error)}")
    fix = flaw.fix or f"mend {entry.target}, or update {entry.provider}"
    return entry.problem(flaw.status, flaw.reason, fix, flaw.file, flaw.line)


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
    ours = [int(part) for part in API_VERSION.split(".")]
    if not isinstance(api, str) or not re.fullmatch(r"\d+(\.\d+)*", api):
        raise UnreadableError(f"the card's api is {api!r}, not a version", file, line)
    theirs = [int(part) for part in api.split(".")]
    if theirs[0] != ours[0] or theirs > ours:
        reason = f"it is written for interface {api}, this losskit has {API_VERSION}"
        fix = "update losskit" if theirs > ours else "update the plugin"
        raise UnreadableError(reason, file, line, status="incompatible", fix=fix)


class Unmet(NamedTuple):
    """A requirement that the installed distributions do not meet."""

    name: str
    requirement: str
    installed: str

    @property
    def reason(self) -> str:
        """What is wrong, in words."""
        return f"it needs {self.requirement}, {self.installed or 'nothing'} is installed"


def unmet(requirements: Sequence[str]) -> list[Unmet]:
    """The requirements (PEP 508, without extras) that the installed distributions do not meet."""
    if not requirements:
        return []
    from packaging.requirements import Requirement

    found = []
    for text in requirements:
        try:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            distribution = _installed(requirement.name)
            # Reading a version parses all of the metadata, so it is done only where it matters.
            version = _header(distribution, "Version") if distribution and requirement.specifier else ""
            fits = not requirement.specifier or (version and requirement.specifier.contains(version, prereleases=True))
        except ValueError as error:
            raise UnreadableError(f"the requirement {text!r} cannot be read: {brief(error)}") from error
        if distribution is None or not fits:
            wanted = f"{requirement.name}{requirement.specifier}"
            found.append(Unmet(normalize(requirement.name), wanted, version))
    return found


def _refuse(missing: Sequence[Unmet], status: str) -> None:
    if missing:
        reason = "; ".join(item.reason for item in missing)
        fix = "pip install " + " ".join(f"'{item.requirement}'" for item in missing)
        raise UnreadableError(reason, status=status, fix=fix)


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _owns(distribution: metadata.Distribution, found: ClassSource) -> bool:
    """Whether a distribution brought the file of a class."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    file = Path(found.file)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlsplit(origin["url"]).path)) in file.parents
    if distribution.files is None:
        return found.module.partition(".")[0] == normalize(distribution.name).replace("-", "_")
    return any(Path(str(distribution.locate_file(item))) == file for item in distribution.files)
