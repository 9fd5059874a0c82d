"""Laws of round trips of encoders: through a folder, pickle and the options that make them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from .. import saved
from ..building import build
from ..protocols import Encoder
from ..registry import name_of
from ..spec import target_of
from ..validation.findings import NotApplicable, Violation
from .encoding import at_rest, ready, require_rows, rows_encoded
from .law import law
from .subject import Subject

__all__ = ["encoder_config", "encoder_pickled", "encoder_saved"]

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files begin that torch.save and pickle write."""
SAYS = ("family", "similarity", "dimension", "normalized")


@law(9, "encoder", cause="something that encode reads is not written to the folder")
def encoder_saved(subject: Subject) -> None:
    """A saved encoder is loaded as it was; weights are safetensors only, and a folder without them is refused."""
    encoder, items = ready(subject)
    cls: Any = type(encoder)
    with TemporaryDirectory(prefix="losskit-saved-") as name:
        folder = Path(name)
        encoder.save(folder / "model")
        _require_safetensors(folder / "model")
        again = cls.load(folder / "model")
        _require_alike("loaded", encoder, again, items)
        if name_of(cls) != target_of(cls):  # registered
            _require_alike("loaded by losskit.load", encoder, saved.load(folder / "model"), items)
        (folder / "empty").mkdir()
        _require_refused(cls, folder / "empty", "an empty folder")
        for file in folder.rglob("*.safetensors"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        _require_refused(cls, folder / "model", "a folder whose weights are cut short")


def _require_safetensors(folder: Path) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        raise Violation("save writes nothing", "a model folder", "no files")
    for file in files:
        with file.open("rb") as opened:
            if opened.read(4).startswith(PICKLES):
                raise Violation(f"save writes a pickle, {file.relative_to(folder)}", "safetensors", "a pickle")


def _require_refused(cls: Any, folder: Path, what: str) -> None:
    try:
        cls.load(folder)
    except Exception:  # noqa: BLE001 - any error refuses it
        return
    raise Violation(f"load of {what}", "an error", "an encoder")


@law(9, "encoder", cause="a function, lock or open file among its attributes")
def encoder_pickled(subject: Subject) -> None:
    """A pickled encoder, as worker processes get it, is the same."""
    encoder, items = ready(subject)
    _require_alike("unpickled", encoder, pickle.loads(pickle.dumps(encoder)), items)


@law(9, "encoder", level="interface", cause="get_config_dict leaves an option out, or gives it another name")
def encoder_config(subject: Subject) -> None:
    """`losskit.build` makes the same encoder from `get_config_dict`, also after a way through JSON."""
    encoder, items = ready(subject)
    own = getattr(encoder, "get_config_dict", None)
    config = None if own is None else own()
    if config is None:
        raise NotApplicable("it gives no options that build it again")
    written = json.loads(json.dumps({"name": name_of(type(encoder)), **config}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        again = build(written, kind="encoder")
    other = again.get_config_dict() or {}
    changed = [name for name in {**config, **other} if config.get(name) != other.get(name)]
    if changed:
        expected, got = ({name: each.get(name) for name in changed} for each in (config, other))
        raise Violation("the configuration of the encoder that it builds", expected, got)
    if isinstance(encoder, nn.Module):
        again.load_state_dict(encoder.state_dict())
    _require_alike("built from its configuration", encoder, again, items)


def _require_alike(what: str, encoder: Encoder, again: Encoder, items: list[Any]) -> None:
    if type(again) is not type(encoder):
        raise Violation(f"{what}: another class", type(encoder).__name__, type(again).__name__)
    for name in SAYS:
        if getattr(again, name) != getattr(encoder, name):
            raise Violation(f"{what}: {name} differs", getattr(encoder, name), getattr(again, name))
    for role in ("query", "document"):
        expected, got = (rows_encoded(each.encode(items, role=role)) for each in (encoder, at_rest(again)))
        require_rows(f"{what}: encode with role={role!r}", expected, got)


LAWS = (encoder_saved, encoder_pickled, encoder_config)
