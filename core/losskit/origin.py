"""What a model was trained with, as provenance.json in its folder records it, held against what is installed."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .card import KINDS
from .discover import KEBAB
from .errors import LosskitError, ModelError, NotFoundError, PluginError, brief
from .hooks import get_or_generate
from .installed import NAME, VERSION
from .policy import BUILTIN, normalize
from .registry import current, get
from .spec import Spec

__all__ = ["PROVENANCE", "Origin", "origin_of_encoder", "read_origins"]

logger = logging.getLogger("losskit")

PROVENANCE = "provenance.json"

_SHAPES = {
    "kind": re.compile("|".join(KINDS)),
    "name": KEBAB,
    "distribution": NAME,
    "version": re.compile(f"({VERSION.pattern})?"),
    "sha256": re.compile("([0-9a-f]{64})?"),
}
"""What the fields look like: they come with a model, from anybody, and end in messages."""


@dataclass(frozen=True)
class Origin:
    """A plugin's component that a model was trained with.

    Args:
        folder: the model's.
        kind: of the component.
        name: that it was registered under.
        distribution: the one that provided it.
        version: the distribution's.
        sha256: of the file that its class stood in.
    """

    folder: Path
    kind: str
    name: str
    distribution: str
    version: str
    sha256: str

    def spec(self) -> Spec:
        """That component as it is installed; a warning says what is not as it was.

        Raises:
            PluginError: it is not installed.
        """
        try:
            found = get_or_generate(self.kind, f"{self.distribution}/{self.name}")
        except NotFoundError:
            raise PluginError(
                str(self), expected=f"{self.distribution} to be installed", got=self._instead(),
                fix=f"pip install '{'=='.join(filter(None, (self.distribution, self.version)))}'",
            ) from None  # fmt: skip
        now = found.provenance()
        if now["version"] != self.version:
            logger.warning("%s; installed is %s %s", self, self.distribution, now["version"])
        elif found.file and now["sha256"] != self.sha256:
            logger.warning(
                "%s; %s has changed since, from SHA-256 %.12s to %.12s", self, found.file, self.sha256, now["sha256"]
            )
        return found

    def __str__(self) -> str:
        provider = f"{self.distribution} {self.version}".rstrip()
        return f"{self.folder} was trained with the {self.kind} {self.name!r} of {provider}"

    def _instead(self) -> str:
        """What there is in its place."""
        installed = current().installed.find(self.distribution)
        if installed is not None:
            return f"{installed.version}, which has no {self.name!r}"
        try:
            other = get(self.kind, self.name)
        except LosskitError:
            return "no distribution of that name"
        return f"no distribution of that name, and another {self.name!r} of {other.provider}"


def read_origins(folder: Path) -> list[Origin]:
    """The components of other distributions than losskit that a model was trained with.

    None where the folder has no provenance.json.

    Raises:
        ModelError: a provenance.json that cannot be what losskit wrote.
    """
    return [origin for origin in _read(folder) if origin is not None]


def origin_of_encoder(folder: Path) -> Origin | None:
    """The encoder that was trained, if it is of another distribution than losskit.

    Raises:
        ModelError: as for `read_origins`.
    """
    origin = next(iter(_read(folder)), None)
    if origin is not None and origin.kind != "encoder":
        raise ModelError(str(folder / PROVENANCE), expected="the trained encoder first", got=f"a {origin.kind}")
    return origin


def _read(folder: Path) -> list[Origin | None]:
    """All components, the trained encoder first; None for what no other distribution provides."""
    file = folder / PROVENANCE
    if not file.is_file():
        return []
    try:
        return [_origin(folder, record) for record in json.loads(file.read_text(encoding="utf-8"))["components"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(str(file), expected="what losskit writes of a training", got=brief(error)) from error


def _origin(folder: Path, record: Mapping[str, Any]) -> Origin | None:
    if normalize(record["distribution"]) in ("", BUILTIN):
        return None
    for field, shape in _SHAPES.items():
        if not shape.fullmatch(record[field]):
            raise ValueError(f"{field} {record[field]!r:.60}")
    return Origin(folder, **{field: record[field] for field in _SHAPES})
