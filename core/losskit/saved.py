"""Loads saved models: decides which encoder reads a folder, and lets it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LosskitError, ModelError, RecipeError, brief
from .origin import origin_of_encoder
from .registry import get, is_target

if TYPE_CHECKING:
    from .protocols import Encoder

__all__ = ["load"]

logger = logging.getLogger("losskit")

_CONFIGS = ("config_sentence_transformers.json", "modules.json", "config.json")
_MODEL_TYPES = {
    "SentenceTransformer": "dense",
    "CrossEncoder": "cross-encoder",
    "SparseEncoder": "splade",
    "MultiVectorEncoder": "multi-vector",
}
_MODULES = {
    ("SentenceTransformer", "StaticEmbedding"): "static",
    ("SparseEncoder", "SparseAutoEncoder"): "csr",
    ("SparseEncoder", "Router"): "inference-free-splade",
}
"""Which encoder reads a type of model that has a module of that kind, where it is not the one above."""


def load(path: str | Path) -> Encoder:
    """Load the encoder saved in a model folder; `.encode(texts)` serves any of them.

    An encoder of a plugin is the one that provenance.json names; a warning says where another version of it is
    installed, or its source has changed. Else the recipe saved beside the model says which encoder reads it, else its
    configuration does: `model_type` of sentence-transformers with the modules that it lists, or `losskit_encoder`, the
    name of an encoder with a format of its own. Else the architecture does: a sequence classifier is a cross-encoder,
    anything else a dense encoder.

    Args:
        path: a folder in the format of sentence-transformers or transformers, or with such a name in its config.json.

    Raises:
        ModelError: no such folder, or one that holds no model.
        PluginError: the encoder's plugin is not installed, or cannot be loaded.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(str(path), expected="a model folder", got="no folder of that name")
    if not any((folder / name).is_file() for name in _CONFIGS):
        raise ModelError(str(path), expected=f"a model folder, with one of {', '.join(_CONFIGS)}", got="none of these")
    origin = origin_of_encoder(folder)
    spec = origin.spec() if origin else get("encoder", _from_recipe(folder) or _from_config(folder))
    loader: Any = spec.load()
    encoder: Encoder = loader.load(folder)
    return encoder


def _from_recipe(folder: Path) -> str | None:
    """The encoder that the recipe names, if it is registered; code that a recipe names is never run."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        return None
    from .yaml12 import parse_yaml

    try:
        recipe = parse_yaml(file.read_text(encoding="utf-8"), file.name)
    except (RecipeError, UnicodeDecodeError) as error:
        raise ModelError(str(file), expected="YAML", got=brief(error)) from error
    encoder = recipe.get("encoder") if isinstance(recipe, dict) else None
    name = encoder.get("name") if isinstance(encoder, dict) else encoder
    if not isinstance(name, str) or is_target(name):
        return None
    try:
        return get("encoder", name).qualified
    except LosskitError as error:
        logger.warning("The model's configuration decides which encoder reads it, not its recipe %s: %s", file, error)
        return None


def _from_config(folder: Path) -> str:
    modules = _json(folder / _CONFIGS[1], list)
    # Folders with modules.json of before there were other types do not name theirs.
    model_type = _json(folder / _CONFIGS[0], dict).get("model_type", "SentenceTransformer" if modules else None)
    if model_type is not None:
        if not isinstance(model_type, str) or model_type not in _MODEL_TYPES:
            known = ", ".join(_MODEL_TYPES)
            raise ModelError(f"model_type in {folder / _CONFIGS[0]}", expected=f"one of {known}", got=repr(model_type))
        kinds = [str(each.get("type")).rpartition(".")[2] for each in modules if isinstance(each, dict)]
        return next(filter(None, (_MODULES.get((model_type, kind)) for kind in kinds)), _MODEL_TYPES[model_type])
    config = _json(folder / "config.json", dict)
    named = config.get("losskit_encoder")
    if named is not None:
        if not isinstance(named, str) or is_target(named):
            where = f"losskit_encoder in {folder / 'config.json'}"
            raise ModelError(where, expected="the name of a registered encoder", got=repr(named))
        return named
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        raise ModelError(f"architectures in {folder / 'config.json'}", expected="a list", got=repr(architectures))
    # A folder with modules.json pools embeddings, whatever its transformer was trained as.
    classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    return "cross-encoder" if classifies and not (folder / "modules.json").is_file() else "dense"


def _json(file: Path, kind: type[Any]) -> Any:
    """What a file holds; of a missing one nothing of the kind."""
    if not file.is_file():
        return kind()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(str(file), expected="JSON", got=brief(error)) from error
    if not isinstance(content, kind):
        expected = "a JSON object" if kind is dict else "a JSON list"
        raise ModelError(str(file), expected=expected, got=type(content).__name__)
    return content
