"""Where a trained model comes from: versions, components, data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version
from torch import nn

from losskit import Loss, get
from losskit.policy import BUILTIN, normalize
from losskit.registry import name_of
from losskit.spec import target_of

__all__ = ["callback_origin", "fingerprint", "provenance", "requirements"]


def provenance(loss: nn.Module, encoder: Any) -> dict[str, Any]:
    """What provenance.json holds beside the callbacks and the data: versions, and where encoder and loss come from."""
    packages = ("losskit", "torch", "transformers")
    return {
        "schema": 1,
        "versions": {**{name: version(name) for name in packages}, "python": platform.python_version()},
        "components": _components(loss, encoder),
    }


def fingerprint(file: Path, name: str) -> dict[str, str]:
    """A data file by name and hash.

    Args:
        file: as it lies on disk, compressed or not.
        name: what it is called in the finished run.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"path": name, "sha256": digest}


def callback_origin(distribution: str, version: str, callback: Any) -> dict[str, str]:
    """A callback that a plugin brought: the plugin, its class, and the file of that."""
    module = sys.modules.get(type(callback).__module__)
    file = Path(getattr(module, "__file__", None) or "")
    return {
        "distribution": distribution,
        "version": version,
        "target": target_of(type(callback)),
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
    }


def _components(loss: nn.Module, encoder: Any) -> list[dict[str, str]]:
    """Where the classes of a training come from, the trained encoder's first."""
    losses = [each for _, each in loss.tree()] if isinstance(loss, Loss) else [loss]
    classes: dict[type, str] = {type(encoder): "encoder"} | {type(each): "loss" for each in losses}
    ours = [each for each in losses if isinstance(each, Loss)]
    classes |= {type(each.view(frozen)): "encoder" for each in ours for frozen in each.frozen.values()}
    if encoder.family != "cross-encoder":
        classes |= {type(each.scorer): "similarity" for each in ours}
    specs = [get(kind, name_of(cls)) for cls, kind in classes.items()]
    return [
        # The path of the file says something of the machine and nothing of the component.
        {
            "kind": spec.kind,
            "name": spec.name,
            "target": spec.target,
            **spec.provenance(),
            "file": Path(spec.file or "").name,
        }
        for spec in specs
    ]


def requirements(components: Sequence[Mapping[str, str]], given: Sequence[str]) -> list[str]:
    """What a recipe has to require so that these components are there, beside what it requires anyway.

    >>> requirements([{"distribution": "lk-a", "version": "1.2+local"}], ["lk-b<2"])
    ['lk-b<2', 'lk-a>=1.2']
    """
    named = {normalize(Requirement(text).name) for text in given}
    needed = {normalize(each["distribution"]): each["version"] for each in components}
    return [*given, *(_at_least(name, needed[name]) for name in sorted(needed.keys() - named - {"", BUILTIN}))]


def _at_least(name: str, installed: str) -> str:
    try:
        return f"{name}>={Version(installed).public}"  # no comparison takes a local version
    except InvalidVersion:
        return name
