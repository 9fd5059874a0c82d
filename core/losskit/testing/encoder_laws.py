"""Laws of encoders: what they say of themselves, and their records."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..card import FAMILIES
from ..errors import LosskitError, NotFoundError
from ..output import Output, Tokens
from ..protocols import Encoder, Features
from ..registry import get
from ..validation.findings import Violation
from .encoding import ROLES, made, ready, record, rows
from .law import law
from .subject import Subject
from .toys import ToyEncoder

__all__ = ["encoder_adapt", "encoder_protocol", "encoder_records"]

UNIT = 1e-3
"""How far the length of a normalised vector may be from 1: what bfloat16 would leave of it is 4e-3."""


@law(None, "encoder", level="interface", cause="an attribute or a class method that the protocol names is missing")
def encoder_protocol(subject: Subject) -> None:
    """It has what the protocol names, and says of itself what can be."""
    encoder = made(subject)
    absent = object()
    members = (*_SAYS, "preprocess", "encode", "save", "load", "adapt")
    missing = [name for name in members if getattr(encoder, name, absent) is absent]
    if missing or not isinstance(encoder, Encoder):
        raise Violation("it is no Encoder", ", ".join(members), f"no {', '.join(missing or ['__call__'])}")
    for name, (allowed, right) in _SAYS.items():
        said = getattr(encoder, name)
        if not right(said):
            raise Violation(f"its {name} is none", allowed, repr(said))
    if subject.card is not None and encoder.family not in (subject.card.encoders or FAMILIES):
        raise Violation("its family is not on its card", " or ".join(subject.card.encoders), encoder.family)
    _require_similarity(encoder)
    for name in ("load", "adapt"):
        if not inspect.ismethod(inspect.getattr_static(type(encoder), name).__get__(None, type(encoder))):
            raise Violation(f"{name} is called on the class", "a classmethod", "a method of objects")
    cuts = {name: getattr(encoder, name, None) is not None for name in ("take", "join")}
    if len(set(cuts.values())) > 1:
        raise Violation("features are cut and joined by one encoder", "take and join, or neither", f"{cuts}")


def _require_similarity(encoder: Encoder) -> None:
    if encoder.family == "cross-encoder" and not encoder.similarity:
        return
    try:
        get("similarity", encoder.similarity)
    except NotFoundError as error:
        raise Violation("its similarity is none", "the name of a registered one", repr(encoder.similarity)) from error


_SAYS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "family": (f"one of {', '.join(FAMILIES)}", lambda said: said in FAMILIES),
    "similarity": ("a name", lambda said: isinstance(said, str)),
    "dimension": ("a whole number from 1, or None", lambda said: said is None or (type(said) is int and said > 0)),
    "normalized": ("True or False", lambda said: isinstance(said, bool)),
}


@law(None, "encoder", cause="a shape, mask or width other than the family's")
def encoder_records(subject: Subject) -> None:
    """Records have the shape of the family, the width and length that it says, and tell texts apart."""
    encoder, items = ready(subject)
    for role in ROLES:
        features = encoder.preprocess(items, role=role)
        if not isinstance(features, dict) or not any(isinstance(value, Tensor) for value in features.values()):
            raise Violation("preprocess gives no features", "a dict with tensors", type(features).__name__)
        with torch.no_grad():
            _require_record(encoder, encoder(features), len(items))
            _require_parts(encoder, features, len(items))
    found = rows(record(encoder, items))
    if all(each.shape == found[0].shape and torch.equal(each, found[0]) for each in found):
        raise Violation("all items have the same record", f"{len(items)} that differ", "one")


def _require_record(encoder: Encoder, found: Any, items: int) -> None:
    if not isinstance(found, Output) or found.embedding is None:
        raise Violation("a call gives no record", "an Output with an embedding", type(found).__name__)
    embedding, shape = found.embedding, list(found.embedding.shape)
    expected, axes = _SHAPES[encoder.family]
    if embedding.ndim not in axes or shape[0] != items or not embedding.is_floating_point():
        raise Violation("the embedding", f"floating, {expected}, n = {items}", f"{embedding.dtype}, {shape}")
    if encoder.family != "cross-encoder" and encoder.dimension not in (None, shape[-1]):
        raise Violation("the width of the embedding is not its dimension", encoder.dimension, shape[-1])
    mask = found.mask
    if encoder.family == "multi-vector":
        if mask is None or mask.dtype != torch.bool or list(mask.shape) != shape[:2]:
            got = "none" if mask is None else f"{mask.dtype}, {list(mask.shape)}"
            raise Violation("the mask of tokens", f"torch.bool, {shape[:2]}", got)
    elif mask is not None:
        raise Violation("the mask", "none, for nothing has tokens", list(mask.shape))
    for place, row in enumerate(rows(found), start=1):
        if not row.isfinite().all():
            raise Violation(f"the record of item {place} is not finite", "finite numbers", "NaN or infinity")
        norms = row.norm(dim=-1)
        if encoder.normalized and ((norms - 1).abs() > UNIT)[norms > 0].any():
            raise Violation(f"normalized, but the record of item {place} is not", "length 1", f"{float(norms.max()):g}")


_SHAPES = {
    "dense": ("[n, d]", (2,)),
    "sparse": ("[n, d]", (2,)),
    "multi-vector": ("[n, t, d]", (3,)),
    "cross-encoder": ("[n] or [n, classes]", (1, 2)),
}


def _require_parts(encoder: Encoder, features: Features, items: int) -> None:
    """What a loss asks for has its form where it is given; a loss itself refuses to do without."""
    for need in ("layers", "input_ids"):
        try:
            found = encoder(features, (need,))
        except LosskitError:
            continue
        shapes = [list(layer.shape) for layer in found.layers]
        if any(len(shape) != 2 or shape[0] != items for shape in shapes):
            raise Violation("the layers", f"[{items}, d] each", shapes)
        ids = found.parts.get("input_ids")
        if ids is not None and not (isinstance(ids, Tokens) and len(ids.values) == len(ids.mask) == items):
            raise Violation("the part input_ids", f"Tokens [{items}, t]", type(ids).__name__)


@law(None, "encoder", level="interface", cause="adapt looks for attributes instead of the class that it adopts")
def encoder_adapt(subject: Subject) -> None:
    """`adapt` gives None for what is no model of its kind, and raises nothing."""
    adapt = type(made(subject)).adapt
    foreign = (object(), None, nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), ToyEncoder("dense", seed=0))
    for model in foreign:
        found = adapt(model)
        if found is not None:
            raise Violation(f"adapt of a foreign {type(model).__name__}", "None", type(found).__name__)


LAWS = (encoder_protocol, encoder_adapt, encoder_records)
