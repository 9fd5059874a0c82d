"""Loads saved models: decides which encoder reads a folder, and lets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import LosskitError, ModelError
from .registry import get, is_target

if TYPE_CHECKING:
    from .protocols import Encoder

__all__ = ["load"]

_CONFIGS = ("config_sentence_transformers.json", "modules.json", "config.json")
_MODEL_TYPES = {
    "SentenceTransformer": "dense",
    "CrossEncoder": "cross-encoder",
    "SparseEncoder": "splade",
    "MultiVectorEncoder": "multi-vector",
}


def load(path: str | Path) -> Encoder:
    """Load the encoder saved in a model folder; `.encode(texts)` serves any of them.

    The recipe saved beside the model says which encoder reads it, else its configuration does: `model_type` of
    sentence-transformers, or `losskit_encoder`, the name of an encoder with a format of its own. Else the architecture
    does: a sequence classifier is a cross-encoder, anything else a dense encoder.

    Args:
        path: a folder in the format of sentence-transformers or transformers, or with such a name in its config.json.

    Raises:
        ModelError: no such folder, or one that holds no model.
        PluginError: the encoder's plugin cannot be loaded.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(str(path), expected="a model folder", got="no folder of that name")
    if not any((folder / name).is_file() for name in _CONFIGS):
        raise ModelError(str(path), expected=f"a model folder, with one of {', '.join(_CONFIGS)}", got="none of these")
    loader: Any = get("encoder", _from_recipe(folder) or _from_config(folder)).load()
    encoder: Encoder = loader.load(folder)
    return encoder


def _from_recipe(folder: Path) -> str | None:
    """The encoder that the recipe names, if it is registered; code that a recipe names is never run."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        return None
    import yaml

    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(str(file), expected="YAML", got=str(error).replace("\n", " ")) from error
    encoder = recipe.get("encoder") if isinstance(recipe, dict) else None
    name = encoder.get("name") if isinstance(encoder, dict) else encoder
    if not isinstance(name, str) or is_target(name):
        return None
    try:
        return get("encoder", name).qualified
    except LosskitError:
        return None


def _from_config(folder: Path) -> str:
    settings = _json(folder / _CONFIGS[0])
    model_type = settings.get("model_type")
    if model_type is not None:
        if model_type not in _MODEL_TYPES:
            known = ", ".join(_MODEL_TYPES)
            raise ModelError(f"model_type in {folder / _CONFIGS[0]}", expected=f"one of {known}", got=repr(model_type))
        return _MODEL_TYPES[model_type]
    config = _json(folder / "config.json")
    named = config.get("losskit_encoder")
    if named is not None:
        if not isinstance(named, str) or is_target(named):
            where = f"losskit_encoder in {folder / 'config.json'}"
            raise ModelError(where, expected="the name of a registered encoder", got=repr(named))
        return named
    architectures = config.get("architectures") or []
    # A folder with modules.json pools embeddings, whatever its transformer was trained as.
    classifies = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    return "cross-encoder" if classifies and not (folder / "modules.json").is_file() else "dense"


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(str(file), expected="JSON", got=str(error)) from error
    if not isinstance(settings, dict):
        raise ModelError(str(file), expected="a JSON object", got=type(settings).__name__)
    return settings
