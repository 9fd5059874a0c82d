"""What a static encoder is made of: read from a folder, begun from a transformer's words, or taken from Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from losskit.errors import ModelError, RecipeError, brief

from .dense_parts import ROLE_PROMPTS, Step, gather_parts, place_name
from .folder import locate, read_json, require_safetensors
from .head import read_step
from .layout import Settings, read_stages
from .prompts import Prompts

__all__ = ["KIND", "MODEL_TYPE", "AnyTokenizer", "StaticParts", "gather_static_parts"]

KIND = "StaticEmbedding"
MODEL_TYPE = "SentenceTransformer"

AnyTokenizer = Tokenizer | PreTrainedTokenizerFast


@dataclass
class StaticParts:
    """Parts of a static encoder.

    Args:
        tokenizer: of the texts.
        embedding: a vector for every token [tokens, d].
        steps: what the mean of a text goes through.
        settings: of the model.
    """

    tokenizer: Tokenizer
    embedding: Tensor
    steps: list[Step]
    settings: Settings


def gather_static_parts(
    model: str | Path | Tensor, tokenizer: AnyTokenizer | None, dimension: int | None
) -> StaticParts:
    """The parts of an encoder.

    Args:
        model: a folder, a name of the hub, or the vectors [tokens, d].
        tokenizer: of vectors, and of nothing else.
        dimension: of new vectors for the tokens of a folder; None: the folder's own.

    Raises:
        ModelError: the folder cannot be read, or holds what the encoder cannot honour.
    """
    if isinstance(model, Tensor):
        if tokenizer is None:
            raise RecipeError("tokenizer", expected="the tokenizer of the given vectors", got="none")
        if dimension is not None:
            raise RecipeError("dimension", expected="None with vectors that are given", got=str(dimension))
        parts = StaticParts(_own(tokenizer), model, [], Settings(MODEL_TYPE, Prompts(ROLE_PROMPTS)))
    elif tokenizer is not None:
        got = type(tokenizer).__name__
        raise RecipeError("tokenizer", expected="none, for the model folder has its own", got=got)
    else:
        folder = locate(model)
        parts = _read(folder, dimension) if _is_static(folder) else _begin(folder, dimension)
    if parts.embedding.ndim != 2 or not parts.embedding.is_floating_point():
        got = f"{parts.embedding.dtype} of shape {list(parts.embedding.shape)}"
        raise ModelError("the vectors of the tokens", expected="floating-point numbers [tokens, d]", got=got)
    tokens = parts.tokenizer.get_vocab_size()
    if tokens > len(parts.embedding):
        expected = f"one for each of the tokenizer's {tokens} tokens"
        raise ModelError("the vectors of the tokens", expected=expected, got=str(len(parts.embedding)))
    return parts


def _is_static(folder: Path) -> bool:
    """Whether the first module of the folder is an embedding bag."""
    path = folder / "modules.json"
    modules = read_json(path, list) if path.exists() else []
    return bool(modules) and isinstance(modules[0], dict) and str(modules[0].get("type")).endswith(f".{KIND}")


def _read(folder: Path, dimension: int | None) -> StaticParts:
    settings = Settings.read(folder, MODEL_TYPE, ("similarity_fn_name", "truncate_dim"), ROLE_PROMPTS)
    stages = read_stages(folder, (KIND, "Dense", "Normalize")) or []
    embedding = _read_vectors(stages[0].folder)
    width = embedding.shape[-1] if embedding.ndim else 0
    if dimension not in (None, width):
        expected = f"{width}, of the folder's vectors, or none"
        raise RecipeError("dimension", expected=expected, got=str(dimension))
    steps = [read_step(stage, place_name(tokens=False)) for stage in stages[1:]]
    return StaticParts(_read_tokenizer(stages[0].folder), embedding, steps, settings)


def _begin(folder: Path, dimension: int | None) -> StaticParts:
    """The words of a transformer, or only its tokens."""
    if dimension is not None:
        tokenizer = _without_limit(_read_tokenizer(folder))
        embedding = nn.EmbeddingBag(tokenizer.get_vocab_size(), dimension).weight
        return StaticParts(tokenizer, embedding.data, [], Settings(MODEL_TYPE, Prompts(ROLE_PROMPTS)))
    parts = gather_parts(folder, None, None, None, trust_remote_code=False)
    words: Tensor = parts.transformer.get_input_embeddings().weight
    settings = Settings(MODEL_TYPE, parts.settings.prompts, {}, parts.settings.other)
    return StaticParts(_own(parts.tokenizer.base), words.detach().clone(), [], settings)


def _read_vectors(folder: Path) -> Tensor:
    """The vectors of all tokens, as sentence-transformers or model2vec keeps them."""
    require_safetensors(folder)
    try:
        weights = load_file(folder / "model.safetensors")
        if "embedding.weight" in weights:
            return weights["embedding.weight"]
        embedding = weights["embeddings"]
        if "mapping" in weights:
            embedding = embedding[weights["mapping"].long()]
        if "weights" in weights:
            scaled = embedding.to(torch.promote_types(embedding.dtype, torch.float32)) * weights["weights"][:, None]
            embedding = scaled.to(embedding.dtype)
        return embedding
    except (KeyError, IndexError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(str(folder), expected=f"a {KIND} module", got=brief(error)) from error


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        raise ModelError(str(path), expected="a tokenizer", got="nothing there")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ModelError(str(path), expected="a tokenizer", got=brief(error)) from error
    tokenizer.no_padding()
    return tokenizer


def _own(tokenizer: object) -> Tokenizer:
    """A copy of a tokenizer; of one of transformers its fast core.

    Raises:
        ModelError: it has none.
    """
    core = tokenizer if isinstance(tokenizer, Tokenizer) else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(core, Tokenizer):
        raise ModelError(
            "the tokenizer", expected="a fast one, of the library tokenizers", got=type(tokenizer).__name__
        )
    return _without_limit(Tokenizer.from_str(core.to_str()))


def _without_limit(tokenizer: Tokenizer) -> Tokenizer:
    """It neither cuts nor fills up: there are no positions that could run out."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
