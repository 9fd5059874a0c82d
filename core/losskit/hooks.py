"""Behaviour of plugins: pluggy hooks, loaded only by what calls them, each plugin for itself.

A module named in the entry-point group `losskit.hooks` implements what it wants of the specifications below:

    import losskit

    @losskit.hookimpl
    def losskit_train_callbacks(recipe):
        return [MyCallback()]

Hooks are called with keyword arguments, of which an implementation takes those it wants; more may be added.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pluggy

from .card import KINDS
from .discover import LONGEST, Entry
from .errors import NotFoundError, brief, is_interrupt
from .registry import Registry, current, get, space
from .spec import Problem, Spec

__all__ = ["Hooks", "generate", "get_or_generate", "hookimpl"]

logger = logging.getLogger("losskit")

hookimpl = pluggy.HookimplMarker("losskit")
_hookspec = pluggy.HookspecMarker("losskit")


class Specifications:
    """The hooks there are."""

    @_hookspec
    def losskit_checks(self) -> Iterable[Any]:
        """Further checks for `losskit validate`."""
        raise NotImplementedError

    @_hookspec
    def losskit_train_callbacks(self, recipe: Any) -> Iterable[Any]:
        """Callbacks for the trainer of `losskit train`, given the filled-in recipe."""
        raise NotImplementedError

    @_hookspec
    def losskit_components(self) -> Iterable[tuple[str, str, str]]:
        """Generated components as (kind, name, "module:Class")."""
        raise NotImplementedError


_SIGNATURES = {
    name: [each for each in inspect.signature(hook).parameters if each != "self"]
    for name, hook in vars(Specifications).items()
    if name.startswith("losskit_")
}
"""The hooks there are and the arguments that each is given."""
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Hooks:
    """The hook modules that the policy allows, each loaded and called for itself.

    Args:
        registry: where they are registered; None: the current one.
        entries: only these of them.

    Attributes:
        problems: modules that did not load, hooks that nobody asks for, calls that raised.
    """

    def __init__(self, registry: Registry | None = None, entries: Sequence[Entry] | None = None) -> None:
        self.problems: list[Problem] = []
        self._entries: dict[str, Entry] = {}
        self._manager = pluggy.PluginManager("losskit")
        self._manager.add_hookspecs(Specifications)
        registry = registry or current()
        for entry in registry.entries("hooks") if entries is None else entries:
            obstacle = registry.obstacle(entry)
            if obstacle is None:
                self._register(entry)
            else:
                self.problems.append(obstacle)

    def call(self, hook: str, **arguments: Any) -> list[tuple[Entry, Any]]:
        """Every item of the lists that the implementations of a hook return, with the entry it is from."""
        found: list[tuple[Entry, Any]] = []
        plugins = {name: plugin for name, plugin in self._manager.list_name_plugin() if plugin is not None}
        for name in sorted(self._entries.keys() & plugins.keys()):
            others = [plugin for other, plugin in plugins.items() if other != name]
            caller = self._manager.subset_hook_caller(hook, remove_plugins=others)
            try:
                items = [item for result in caller(**arguments) for item in result]
            except BaseException as error:
                if is_interrupt(error):
                    raise
                self._note(self._entries[name], f"{hook} raises {brief(error)}")
                continue
            found.extend((self._entries[name], item) for item in items)
        return found

    def components(self) -> list[Entry]:
        """The entries of generated components."""
        found = []
        for entry, item in self.call("losskit_components"):
            # What is exactly these types runs no code of the plugin's own as it is looked at.
            plain = type(item) in (tuple, list) and all(type(part) is str for part in item)
            parts: tuple[str, ...] = tuple(item) if plain else ()
            if len(parts) == 3 and parts[0] in KINDS and max(map(len, parts)) <= LONGEST:
                found.append(replace(entry, kind=parts[0], name=parts[1], target=parts[2]))
            else:
                got = repr(parts) if parts else f"an object of type {type(item).__name__}"
                self._note(entry, f'losskit_components gives {got:.{LONGEST}}, not (kind, name, "module:Class")')
        return found

    def _register(self, entry: Entry) -> None:
        name = f"{entry.provider}/{entry.name}={entry.target}"
        try:
            plugin = entry.load()
            misfits, twin = self._misfits(plugin), self._manager.get_name(plugin)
            if not (misfits or twin):
                self._manager.register(plugin, name=name)
        except BaseException as error:
            if is_interrupt(error):
                raise
            # Registering may fail half-way and leave its first hooks behind.
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._note(entry, f"loading it raises {brief(error)}")
            return
        if twin:
            other = self._entries[twin]
            self._note(entry, f"{entry.name!r} names what {other.provider} has as {other.name!r} already")
            return
        for misfit in misfits:
            self._note_misfit(entry, misfit)
        if misfits:
            return
        self._entries[name] = entry
        for caller in self._manager.get_hookcallers(plugin) or ():
            if not caller.has_spec():
                calls = ", ".join(sorted(_SIGNATURES))
                self._note_misfit(entry, f"it implements {caller.name}, this losskit calls {calls}")

    def _misfits(self, plugin: Any) -> list[str]:
        """The arguments that a plugin's hooks want and that nobody gives them, in words."""
        found = []
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            hook = (options and options.get("specname")) or name
            if options is None or hook not in _SIGNATURES:
                continue
            parameters = inspect.signature(getattr(plugin, name)).parameters.values()
            wanted = [each.name for each in parameters if each.default is each.empty and each.kind not in _VARIADIC]
            unknown = [each for each in wanted if each not in _SIGNATURES[hook]]
            if unknown:
                given = ", ".join(_SIGNATURES[hook]) or "none"
                found.append(f"{hook} wants {', '.join(unknown)}, this losskit gives {given}")
        return found

    def _note_misfit(self, entry: Entry, reason: str) -> None:
        """Hooks and their arguments grow, so that what is not there is most likely of a later losskit."""
        fix = f"update losskit or, if that is the newest, {entry.provider}; or block {entry.provider}"
        self.problems.append(entry.problem("incompatible", reason, fix))

    def _note(self, entry: Entry, reason: str) -> None:
        self.problems.append(entry.problem("broken", reason, f"update {entry.provider}, or block it"))


def generate() -> list[Problem]:
    """Add what plugins generate to the components, once; what is wrong with it.

    What an entry point names keeps its name, so that nothing depends on whether hooks were loaded before.
    """
    registry = current()
    if registry.generated:
        return []
    registry.generated = True
    hooks = Hooks(registry)
    owners = {(space(spec.kind), spec.name): spec.provider for spec in registry.specs}
    found, problems = [], []
    for entry in hooks.components():
        owner = owners.get((space(entry.kind), entry.name))
        if owner is None:
            found.append(entry)
        else:
            fix = f"update {entry.provider}, or block it"
            problems.append(entry.problem("broken", f"{owner} has a {entry.kind} {entry.name!r} already", fix))
    registry.add(found)
    return [*hooks.problems, *problems]


def get_or_generate(kind: str | None, reference: str) -> Spec:
    """As `registry.get`, for what will be loaded: a name that no entry point gives may be one that a plugin generates.

    Raises:
        NotFoundError, AmbiguousError: as there.
    """
    try:
        return get(kind, reference)
    except NotFoundError:
        if current().generated or not current().entries("hooks"):
            raise
    for problem in generate():
        logger.warning("%s", problem)
    return get(kind, reference)
