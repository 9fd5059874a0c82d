"""Finds components by what their cards say, and resolves references to exactly one of them.

A reference is a name, `kind:name`, `distribution/name` or the class's name; from Python and the command line
also `module:Class`, `path/file.py:Class`, and `path/file.py` for the one class with a card that the file defines.
Losses and wrappers share one namespace.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from .cache import Cache
from .card import FAMILIES, INPUTS, KINDS, LABELS, Format, split_input
from .discover import LONGEST, Entry, Reader, scan
from .errors import AmbiguousError, NotFoundError, PluginError, check_choice, did_you_mean
from .installed import Installed
from .policy import BUILTIN, Policy, normalize
from .source import Sources, UnreadableError
from .spec import STATUSES, Option, Problem, Spec, target_of

__all__ = [
    "Option",
    "Problem",
    "Registry",
    "Spec",
    "current",
    "find",
    "get",
    "is_target",
    "lookup",
    "name_of",
    "problems",
    "reference_to",
    "refresh",
    "same_name",
    "space",
]


class Registry:
    """What the installed distributions register, under one policy; nothing of theirs is imported."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._cache = Cache()
        self.installed = Installed()
        self._reader = Reader(policy, Sources(self._cache), self.installed)
        self._lock = threading.RLock()
        self._specs: tuple[Spec, ...] | None = None
        self.generated = False
        """Whether what plugins generate is among the components."""

    @cached_property
    def scanned(self) -> tuple[list[Entry], list[Problem]]:
        """All entry points of losskit's groups, and what could not be read of them."""
        return scan(self.installed)

    def entries(self, kind: str) -> list[Entry]:
        """The entry points of one kind that the policy allows."""
        found = [entry for entry in self.scanned[0] if entry.kind == kind]
        return [entry for entry in found if not self.policy.refusal(entry.provider, entry.name)]

    def obstacle(self, entry: Entry) -> Problem | None:
        """What keeps hooks or a command from being loaded, as far as that shows without importing."""
        return self._reader.obstacle(entry)

    @property
    def specs(self) -> tuple[Spec, ...]:
        """All components, by kind and name, what losskit brings before what others do."""
        with self._lock:
            if self._specs is None:
                self._specs = self.settled([self._reader.spec(item) for item in self.scanned[0] if item.kind in KINDS])
                self._cache.save()
            return self._specs

    def add(self, entries: Sequence[Entry]) -> None:
        """Add generated components."""
        with self._lock:
            self._specs = self.settled([*self.specs, *map(self._reader.spec, entries)])

    def settled(self, specs: Sequence[Spec]) -> tuple[Spec, ...]:
        """Specs in order, those marked whose bare name does not decide between them."""
        claims = defaultdict(list)
        for spec in specs:
            claims[space(spec.kind), spec.name].append(spec)
        marked = [self._marked(spec, claims[space(spec.kind), spec.name]) for spec in specs]
        return tuple(sorted(marked, key=lambda s: (KINDS.index(s.kind), s.name, not s.builtin, s.provider, s.target)))

    def given(self, kind: str, target: str) -> Spec:
        """The spec of a class that is given by its target, registered or not."""
        spec = Spec(kind, target, target)
        try:
            return self._reader.described(replace(spec, target=self._reader.whole(target)))
        except UnreadableError as flaw:
            if flaw.line is None:
                fix = flaw.fix or flaw.hint or "write module:Class or path/file.py:Class"
                raise NotFoundError(f"{kind} {target!r}", got=flaw.reason, fix=fix) from flaw
            fix = flaw.fix or f"mend {flaw.file}"
            problem = Problem("", "", target, flaw.status, flaw.reason, fix, flaw.file, flaw.line)
            return replace(spec, status=flaw.status, problem=problem, file=flaw.file, line=flaw.line)

    def decide(self, claims: Sequence[Spec], name: str) -> Spec | None:
        """Which of several claims to a name stands: the pinned, else the built-in, else the only one."""
        usable = [spec for spec in claims if spec.status != "blocked"] or list(claims)
        pins = [pin for pin in (self.policy.pin(spec.kind, name) for spec in usable) if pin is not None]
        if pins:
            usable = [spec for spec in usable if normalize(spec.provider) == pins[0][0]]
        elif any(spec.builtin for spec in usable):
            usable = [spec for spec in usable if spec.builtin]
        return usable[0] if len(usable) == 1 else None

    def _marked(self, spec: Spec, claims: Sequence[Spec]) -> Spec:
        if spec.status != "ok" or self.decide(claims, spec.name) is not None:
            return spec
        others = [other for other in claims if other is not spec]
        reason = f"the name is also claimed by {', '.join(f'{other.provider}=={other.version}' for other in others)}"
        fix = _choose([spec], spec.name)
        twin = next((other for other in others if other.qualified == spec.qualified), None)
        if twin is not None:
            reason = f"{spec.provider} gives the name to {twin.kind} {twin.target} too"
            fix = _choose([spec, twin], spec.name)
        pin = self.policy.pin(spec.kind, spec.name)
        if pin is not None and (twin is None or normalize(twin.provider) != pin[0]):
            known = any(normalize(other.provider) == pin[0] for other in others)
            reason = f"{pin[1]} pins the name to {pin[0]}, which {'is blocked' if known else 'does not provide it'}"
        where = (spec.provider, spec.version, spec.target)
        problem = Problem(*where, "ambiguous", reason, fix, spec.file, spec.line)
        return replace(spec, status="ambiguous", problem=problem)


_current: Registry | None = None
_lock = threading.RLock()


def current() -> Registry:
    """The registry of this process, made on first use."""
    global _current
    with _lock:
        if _current is None:
            _current = Registry(Policy.read())
        return _current


def refresh(policy: Policy | None = None) -> None:
    """Look afresh, after installing a plugin or under another policy; None reads the configuration again.

    What is imported stays as it is: after a plugin was upgraded, only another process runs its new code.
    """
    global _current
    with _lock:
        importlib.invalidate_caches()
        _current = Registry(policy or Policy.read())


def find(
    kind: str | None = None,
    *,
    encoder: str | None = None,
    inputs: Sequence[str] | None = None,
    labels: str | None = None,
    provider: str | None = None,
    status: str | None = None,
    search: str | None = None,
) -> list[Spec]:
    """Components that fit all that is asked, importing none.

    Args:
        kind: "loss", "wrapper", "regularizer", "weighting", "similarity" or "encoder".
        encoder: a family that it works with.
        inputs: the columns of the data in order, such as `["anchor", "positive"]`.
        labels: the labels of the data, as in `Format.labels`.
        provider: a distribution.
        status: "ok", "missing-dependency", "incompatible", "blocked", "ambiguous" or "broken".
        search: part of a name, class name, alias or summary; `*` and `?` are wildcards.

    Raises:
        RecipeError: a value that none of these can have.

    >>> [spec.name for spec in find(kind="similarity", search="cos*")]
    ['cosine']
    """
    check_choice("kind", kind, KINDS)
    check_choice("encoder", encoder, FAMILIES)
    check_choice("labels", labels, LABELS)
    check_choice("status", status, STATUSES)
    for column in inputs or ():
        check_choice("inputs", split_input(column)[0], INPUTS)
    return [
        spec
        for spec in current().specs
        if (kind is None or spec.kind == kind)
        and (provider is None or normalize(spec.provider) == normalize(provider))
        and (status is None or spec.status == status)
        and (search is None or _mentions(spec, search.lower()))
        and (encoder is None or _works_with(spec, encoder))
        and ((inputs is None and labels is None) or _takes(spec, inputs, labels))
    ]


def get(kind: str | None, reference: str) -> Spec:
    """The one component that a reference names.

    Args:
        kind: what it must be; "loss" means wrappers as well; None: whatever the reference says.
        reference: a name, `kind:name`, `distribution/name`, class name, `module:Class` or `path/file.py[:Class]`.

    Raises:
        NotFoundError: nothing answers to it.
        AmbiguousError: several do, and neither a pin nor a built-in decides.

    >>> get("similarity", "cosine").class_name
    'CosineSimilarity'
    """
    claims = lookup(reference, kind)
    if not claims[0].provider:
        return claims[0]
    if len({space(spec.kind) for spec in claims}) > 1:
        choices = ", ".join(f"{spec.kind}:{spec.name}" for spec in claims)
        raise AmbiguousError(f"{reference!r} is of several kinds: {choices}", fix="write one of these")
    name = reference.partition(":")[2] or reference
    rivals = [spec for spec in current().specs if spec.name == name and space(spec.kind) == space(claims[0].kind)]
    decided = current().decide(rivals or claims, name)
    if decided is None or decided not in claims:
        providers = ", ".join(f"{spec.provider}=={spec.version}" for spec in rivals or claims)
        pin = current().policy.pin(claims[0].kind, name)
        pinned = f", and pinned to {pin[0]} by {pin[1]}" if pin else ""
        usable = [spec for spec in claims if spec.status != "blocked"] or claims
        culprit = f"{claims[0].kind} {reference!r} is provided by {providers}{pinned}"
        raise AmbiguousError(culprit, fix=_choose(usable, name))
    return decided


def lookup(reference: str, kind: str | None = None) -> list[Spec]:
    """All components that a reference may name; never empty.

    Raises:
        NotFoundError: nothing answers to it.
    """
    check_choice("kind", kind, KINDS)
    head, _, rest = reference.partition(":")
    if head in KINDS and rest:
        if kind is not None and space(kind) != space(head):
            raise NotFoundError(f"{reference!r}", expected=f"a {kind}", got=f"a {head}")
        kind, reference = head, rest
    if is_target(reference):
        return [current().given(kind or "loss", reference)]
    known = [spec for spec in current().specs if kind is None or spec.kind == kind or space(spec.kind) == kind]
    distribution, _, name = reference.rpartition("/")
    if distribution:
        found = [s for s in known if s.name == name and normalize(s.provider) == normalize(distribution)]
    else:
        found = (
            [spec for spec in known if spec.name == reference]
            or [spec for spec in known if spec.card is not None and reference in spec.card.aliases]
            or [spec for spec in known if spec.class_name == reference]
        )
    if not found:
        raise NotFoundError(f"no {kind or 'component'} is named {reference!r:.{LONGEST}}", fix=_hint(reference, known))
    return found


def is_target(reference: str) -> bool:
    """Whether a reference gives code (`module:Class`, `path/file.py:Class`, `path/file.py`), not something registered.

    >>> is_target("my_package.losses:MyLoss"), is_target("my_loss.py"), is_target("loss:cosent")
    (True, True, False)
    """
    head, colon, last = reference.rpartition(":")
    return last.endswith(".py") or (bool(colon) and head not in KINDS)


def name_of(cls: type) -> str:
    """The reference under which a class is registered, else its target.

    Its name; `distribution/name` where the bare name means another component.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    for spec in current().specs:
        if spec.target == target_of(cls) or (spec.class_name == cls.__qualname__ and file and spec.file == file):
            return reference_to(spec)
    return target_of(cls)


def reference_to(spec: Spec) -> str:
    """A registered component's name; `distribution/name` where the bare name means another one, or several."""
    claims = [other for other in current().specs if same_name(spec, other)]
    return spec.name if current().decide(claims, spec.name) is spec else spec.qualified


def problems() -> list[Problem]:
    """Everything that is wrong with what is installed, as far as it shows without importing."""
    registry = current()
    behaviour = [registry.obstacle(entry) for kind in ("hooks", "command") for entry in registry.entries(kind)]
    found = [*(spec.problem for spec in registry.specs), *behaviour]
    return [*registry.scanned[1], *(problem for problem in found if problem is not None)]


def api(name: str) -> Any:
    """What losskit's own distribution provides under this name in the group `losskit.api`."""
    for entry in current().scanned[0]:
        if entry.kind == "api" and entry.name == name:
            return entry.load()
    raise PluginError(f"losskit.{name} is not registered by the distribution losskit", fix=f"reinstall {BUILTIN}")


def space(kind: str) -> str:
    """The kinds that share a namespace, by one of them."""
    return "loss" if kind == "wrapper" else kind


def same_name(one: Spec, other: Spec) -> bool:
    """Whether one bare name means both."""
    return one.name == other.name and space(one.kind) == space(other.kind)


def _choose(claims: Sequence[Spec], name: str) -> str:
    """What to do where several components claim a name."""
    names = " or ".join(spec.qualified for spec in claims)
    pin = f'{name} = "{claims[0].provider}"'
    if len({spec.qualified for spec in claims}) < len(claims):
        return f"update {claims[0].provider}, or report it to its authors"
    return f"write {names}, or pin the name in pyproject.toml under [tool.losskit.pins]: {pin}"


def _mentions(spec: Spec, pattern: str) -> bool:
    texts = [*spec.names, spec.class_name, spec.summary]
    return any(fnmatchcase(text.lower(), f"*{pattern}*") for text in texts)


def _works_with(spec: Spec, family: str) -> bool:
    return spec.card is not None and (not spec.card.encoders or family in spec.card.encoders)


def _takes(spec: Spec, inputs: Sequence[str] | None, labels: str | None) -> bool:
    formats = spec.card.formats if spec.card else ()
    return any((inputs is None or _fits(item, inputs)) and labels in (None, item.labels) for item in formats)


def _fits(form: Format, inputs: Sequence[str]) -> bool:
    """Whether columns of these names, in this order, are such data."""
    parts = []
    for column in form.inputs:
        base, suffix = split_input(column)
        parts.append(f"(?:{base} ){suffix}")
    return re.fullmatch("".join(parts), "".join(f"{split_input(column)[0]} " for column in inputs)) is not None


def _hint(reference: str, known: Sequence[Spec]) -> str:
    """What to write instead of a name that nothing answers to.

    Other libraries have a class for each loss with gradient caching, and for each kind of encoder; here one does.
    """
    prefixes, rest = re.fullmatch(rf"((?:{'|'.join(_PREFIXES)})*)(.*)", reference, re.DOTALL).groups()  # type: ignore[union-attr]
    match = next((spec for spec in known if prefixes and rest in (spec.class_name, spec.name)), None)
    if match is None:
        names = {name for spec in known for name in (spec.name, spec.class_name)}
        return did_you_mean(reference, names) or "losskit list shows what there is"
    settings = " with execution {name: grad-cache, mini_batch_size: 32}" if "cached" in prefixes.lower() else ""
    reasons = dict.fromkeys(_PREFIXES[prefix] for prefix in re.findall("|".join(_PREFIXES), prefixes))
    return "; ".join([f"write {match.name}{settings}", *reasons])


_PREFIXES = {
    **dict.fromkeys(("Cached", "cached-"), "every loss can be cached"),
    **dict.fromkeys(
        ("Sparse", "sparse-", "MultiVector", "multi-vector-"), "a loss works with every encoder that its card names"
    ),
}
