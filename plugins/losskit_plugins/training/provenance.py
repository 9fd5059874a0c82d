"""Where a trained model comes from: versions, components, data."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from losskit import Loss, get
from losskit.registry import name_of

__all__ = ["fingerprint", "provenance"]


def provenance(
    loss: nn.Module,
    encoder: Any,
    data: Mapping[str, Sequence[Mapping[str, str]]],
    rows: Mapping[str, int],
) -> dict[str, Any]:
    """What provenance.json holds.

    Args:
        loss: as it was trained.
        encoder: as it was trained.
        data: per part ("train", "eval") its files, as `fingerprint` describes them.
        rows: how many were read of a part.
    """
    packages = ("losskit", "torch", "transformers")
    return {
        "schema": 1,
        "versions": {**{name: version(name) for name in packages}, "python": platform.python_version()},
        "components": _components(loss, encoder),
        "data": {part: {"rows": rows[part], "files": list(files)} for part, files in data.items()},
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


def _components(loss: nn.Module, encoder: Any) -> list[dict[str, str]]:
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
