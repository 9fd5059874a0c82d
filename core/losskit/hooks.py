"""Behaviour of plugins: pluggy hooks, loaded only by what calls them, each plugin for itself.

A module named in the entry-point group `losskit.hooks` implements what it wants of the specifications below:

    import losskit

    @losskit.hookimpl
    def losskit_train_callbacks(recipe):
        return [MyCallback()]

Hooks are called with keyword arguments, of which an implementation takes those it wants; more may be added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pluggy

from .card import KINDS
from .discover import Entry
from .errors import brief
from .registry import Registry, current
from .spec import Problem

__all__ = ["Hooks", "hookimpl"]

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


class Hooks:
    """The hook modules that the policy allows, each loaded and called for itself.

    Attributes:
        problems: modules that did not load, hooks that nobody asks for, calls that raised.
    """

    def __init__(self, registry: Registry | None = None) -> None:
        self.problems: list[Problem] = []
        self._entries: dict[str, Entry] = {}
        self._manager = pluggy.PluginManager("losskit")
        self._manager.add_hookspecs(Specifications)
        for entry in (registry or current()).entries("hooks"):
            self._register(f"{entry.provider}/{entry.name}", entry)

    def call(self, hook: str, **arguments: Any) -> list[tuple[Entry, Any]]:
        """Every item of the lists that the implementations of a hook return, with the entry it is from."""
        found: list[tuple[Entry, Any]] = []
        plugins = {name: plugin for name, plugin in self._manager.list_name_plugin() if plugin is not None}
        for name in sorted(self._entries.keys() & plugins.keys()):
            others = [plugin for other, plugin in plugins.items() if other != name]
            caller = self._manager.subset_hook_caller(hook, remove_plugins=others)
            try:
                items = [item for result in caller(**arguments) for item in result]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it does stays with it
                self._note(self._entries[name], f"{hook} raises {brief(error)}")
                continue
            found.extend((self._entries[name], item) for item in items)
        return found

    def components(self) -> list[Entry]:
        """The entries of generated components."""
        found = []
        for entry, item in self.call("losskit_components"):
            match item:
                case (str(kind), str(name), str(target)) if kind in KINDS:
                    found.append(replace(entry, kind=kind, name=name, target=target))
                case _:
                    self._note(entry, f'losskit_components gives {item!r}, not (kind, name, "module:Class")')
        return found

    def _register(self, name: str, entry: Entry) -> None:
        try:
            plugin = entry.load()
            self._manager.register(plugin, name=name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it does stays with it
            # Registering may fail half-way and leave its first hooks behind.
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            self._note(entry, f"loading it raises {brief(error)}")
            return
        self._entries[name] = entry
        for caller in self._manager.get_hookcallers(plugin) or ():
            if not caller.has_spec():
                self._note(entry, f"it implements {caller.name}, which this losskit does not call", "incompatible")

    def _note(self, entry: Entry, reason: str, status: str = "broken") -> None:
        fix = f"update losskit or {entry.provider}, or block {entry.provider}"
        self.problems.append(entry.problem(status, reason, fix))
