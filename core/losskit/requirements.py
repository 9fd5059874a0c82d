"""What is required and not installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import brief
from .installed import Distribution, Installed
from .policy import normalize
from .source import UnreadableError

__all__ = ["Unmet", "refuse", "unmet"]

_VERSIONS = re.compile(r"[\w.*+!<>=~, -]*", re.ASCII)
"""`===` takes any text, but what is told is pasted into shells."""


class Unmet(NamedTuple):
    """A requirement that the installed distributions do not meet."""

    name: str
    requirement: str
    installed: str

    @property
    def reason(self) -> str:
        """What is wrong, in words."""
        return f"it needs {self.requirement}, {self.installed or 'nothing'} is installed"


def unmet(requirements: Sequence[str], installed: Installed) -> list[Unmet]:
    """The requirements (PEP 508, without extras) that the installed distributions do not meet."""
    if not requirements:
        return []
    from packaging.requirements import Requirement

    found = []
    for text in requirements:
        try:
            requirement = Requirement(text)
            if not _VERSIONS.fullmatch(str(requirement.specifier)):
                raise ValueError("what follows the name is no list of versions")
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except ValueError as error:
            raise UnreadableError(f"the requirement {text!r:.250} cannot be read: {brief(error)}") from error
        distribution = installed.find(requirement.name) if applies else None
        if applies and not (distribution and _fits(requirement.specifier, distribution)):
            wanted = f"{requirement.name}{requirement.specifier}"
            version = distribution and (distribution.version or "a version that cannot be read")
            found.append(Unmet(normalize(requirement.name), wanted, version or ""))
    return found


def _fits(specifier: Any, distribution: Distribution) -> bool:
    try:
        # Reading a version means reading metadata, so it is done only where it matters.
        return not specifier or bool(specifier.contains(distribution.version, prereleases=True))
    except ValueError:
        return False


def refuse(missing: Sequence[Unmet], status: str) -> None:
    """Raise what is unmet, if anything is, as the status of what requires it."""
    if missing:
        reason = "; ".join(item.reason for item in missing)
        fix = "pip install " + " ".join(f"'{item.requirement}'" for item in missing)
        raise UnreadableError(reason, status=status, fix=fix)
