"""`losskit doctor`: the environment, the plugins and their problems."""

from __future__ import annotations

import platform
import sys
from collections import Counter, defaultdict
from importlib import metadata
from typing import Annotated, Any

import typer

import losskit
from losskit.policy import BUILTIN, Policy
from losskit.registry import Problem, current, problems
from losskit.requirements import unmet

from .app import COMMANDS
from .output import say, write, write_json, write_table

__all__ = ["doctor"]

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "sentence-transformers",
    "pluggy",
    "pydantic",
)


def doctor(
    load: Annotated[bool, typer.Option("--load", help="Import every component, in processes of their own")] = False,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that importing one component may take")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,
) -> None:
    """Check the environment and the plugins; exit with 1 if anything is wrong."""
    found = [*_environment_problems(), *problems(), *_uncallable()]
    if load:
        from .loading import import_all

        found.extend(import_all(time_limit))
    environment, distributions, policy = _environment(), _distributions(), _policy(current().policy)
    if as_json:
        write_json(
            {
                "environment": environment,
                "policy": policy,
                "distributions": distributions,
                "problems": [problem.to_dict() for problem in found],
            }
        )
    else:
        write_table(["environment", ""], [[name, value or "not installed"] for name, value in environment.items()])
        write()
        write_table(["plugins", "version", "components", "hooks", "commands", "status"], map(_row, distributions))
        write()
        for name, value in policy.items():
            write(f"{name}: {value or 'nothing'}" if value is not None else f"{name}: everything")
        for problem in found:
            write()
            write(problem)
    findings = sum(problem.status != "blocked" for problem in found)
    say(f"problems found: {findings}")
    if findings:
        raise typer.Exit(1)


def _environment() -> dict[str, str]:
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "losskit": losskit.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        **versions,
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _environment_problems() -> list[Problem]:
    """What losskit itself requires and does not find."""
    return [
        Problem(
            BUILTIN,
            losskit.__version__,
            item.requirement,
            "missing-dependency",
            item.reason,
            f"pip install '{item.requirement}'",
        )
        for item in unmet(metadata.requires(BUILTIN) or [], current().installed)
    ]


def _uncallable() -> list[Problem]:
    """Commands of plugins whose name losskit has, or another plugin."""
    found = []
    entries = current().entries("command")
    for entry in entries:
        others = [f"{each.provider}=={each.version}" for each in entries if each.name == entry.name and each != entry]
        if entry.name in COMMANDS:
            reason = f"losskit has a command {entry.name!r} itself"
            found.append(entry.problem("broken", reason, f"update {entry.provider}, or block it"))
        elif others:
            reason = f"the command {entry.name!r} is also provided by {', '.join(others)}"
            found.append(entry.problem("ambiguous", reason, "block all but one"))
    return found


def _distributions() -> list[dict[str, Any]]:
    """What each distribution brings, and how its components fare."""
    registry = current()
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for spec in registry.specs:
        statuses[spec.provider][spec.status] += 1
    found: dict[str, dict[str, Any]] = {}
    for entry in registry.scanned[0]:
        name = entry.provider
        if name not in found:
            counts = dict.fromkeys(("components", "hooks", "commands"), 0)
            found[name] = {"distribution": name, "version": entry.version, **counts, "statuses": statuses[name]}
        part = {"hooks": "hooks", "command": "commands", "api": None}.get(entry.kind, "components")
        if part is not None:
            found[name][part] += 1
    return list(found.values())


def _row(brought: dict[str, Any]) -> list[str]:
    *values, statuses = brought.values()
    return [*map(str, values), ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))]


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "allowed": None if policy.allow is None else sorted(policy.allow),
        "blocked": sorted(policy.block),
        "pinned": {name: distribution for name, (distribution, _) in sorted(policy.pins.items())},
    }
