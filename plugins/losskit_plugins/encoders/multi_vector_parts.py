"""What a multi-vector encoder is made of: read from its folder, or begun from a transformer or a dense encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from losskit.errors import ModelError, RecipeError

from .backbone import hidden_size, is_pooler, read_config, read_transformer
from .dense_parts import ROLE_PROMPTS, RUN, Step, auto_class, gather_parts, place_name
from .folder import locate, read_json
from .head import Normalization, Projection, read_step
from .layout import Settings, TransformerSettings, read_stages
from .scoring_mask import ScoringMask
from .tokenizer import Tokenizer, refuse_tokenizer

__all__ = ["MODEL_TYPE", "MultiVectorParts", "gather_multi_vector_parts"]

MODEL_TYPE = "MultiVectorEncoder"
NEW_WIDTH = 128
SETTINGS = replace(RUN, own=dict.fromkeys(("query_length", "document_length", "query_expansion")))
PYLATE_KEYS = (
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "skiplist_words",
)
"""What the folders of PyLate say at another place; not to know it would give other embeddings."""


@dataclass
class MultiVectorParts:
    """Parts of a multi-vector encoder.

    Args:
        transformer: that makes the tokens.
        tokenizer: of the texts.
        steps: what every token goes through after it.
        mask: which tokens count.
        mask_at: after how many of the steps a folder has the mask.
        settings: of the model.
        run: settings of the transformer, with lengths and expansion.
    """

    transformer: PreTrainedModel
    tokenizer: Tokenizer
    steps: list[Step]
    mask: ScoringMask
    mask_at: int
    settings: Settings
    run: TransformerSettings


def gather_multi_vector_parts(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    dimension: int | None,
    max_length: int | None,
    words: list[str] | None,
    trust_remote_code: bool,
) -> MultiVectorParts:
    """The parts of an encoder.

    Args:
        model: a folder, a name of the hub, or a transformers model.
        tokenizer: of a transformers model, and of nothing else.
        dimension: of the vectors; None: of the folder's projection, else 128.
        max_length: overrides the tokenizer's.
        words: the skip list; None: the folder's.
        trust_remote_code: run code that a folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what the encoder cannot honour.
    """
    if isinstance(model, nn.Module):
        return _begin(model, tokenizer, dimension, max_length, words, trust_remote_code)
    folder = locate(model, code=trust_remote_code)
    path = folder / "config_sentence_transformers.json"
    content = read_json(path, dict) if path.exists() else {}
    for key in PYLATE_KEYS:
        if key in content:
            _refuse_foreign(f"{key!r} in {path}", "PyLate")
    if content.get("model_type", "SentenceTransformer") == "SentenceTransformer":
        return _begin(folder, tokenizer, dimension, max_length, words, trust_remote_code)
    refuse_tokenizer(tokenizer)
    return _read(folder, dimension, max_length, words, trust_remote_code)


def _read(
    folder: Path, dimension: int | None, max_length: int | None, words: list[str] | None, trust_remote_code: bool
) -> MultiVectorParts:
    settings = Settings.read(folder, MODEL_TYPE, ("similarity_fn_name",), ROLE_PROMPTS)
    stages = read_stages(folder, ("Transformer", "Dense", ScoringMask.kind, "Normalize")) or []
    at = [index for index, stage in enumerate(stages[1:]) if stage.kind == ScoringMask.kind]
    if len(at) != 1:
        raise ModelError(str(folder / "modules.json"), expected=f"one {ScoringMask.kind}", got=str(len(at)))
    home = stages[0].folder
    config = read_config(home, trust_remote_code)
    _refuse_architecture(config)
    run = SETTINGS.read(home)
    tokenizer = Tokenizer.read(home, config, run, max_length, trust_remote_code)
    mask = ScoringMask.read(stages[1 + at[0]], tokenizer, words)
    steps = [read_step(stage, place_name(tokens=True)) for stage in stages[1:] if stage.kind != ScoringMask.kind]
    transformer = read_transformer(home, auto_class(config), config, trust_remote_code, may_be_new=is_pooler)
    _require_width(dimension, steps)
    return MultiVectorParts(transformer, tokenizer, steps, mask, at[0], settings, run)


def _begin(
    model: Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    dimension: int | None,
    max_length: int | None,
    words: list[str] | None,
    trust_remote_code: bool,
) -> MultiVectorParts:
    """A transformer, or a dense encoder without its pooling, under its own projection or a new one."""
    parts = gather_parts(model, tokenizer, max_length, None, trust_remote_code)
    config = parts.transformer.config
    _refuse_architecture(config)
    steps: list[Step] = [step for step in (*parts.before, *parts.after) if isinstance(step, Projection)]
    if steps:
        _require_width(dimension, steps)
    else:
        steps = [Projection(hidden_size(config), dimension or NEW_WIDTH, bias=False, activation=nn.Identity())]
    settings = Settings(MODEL_TYPE, parts.settings.prompts, {}, parts.settings.other)
    mask = ScoringMask(parts.tokenizer, words or ())
    run = replace(parts.run, own=SETTINGS.own)
    at = len(steps)
    return MultiVectorParts(parts.transformer, parts.tokenizer, [*steps, Normalization()], mask, at, settings, run)


def _require_width(dimension: int | None, steps: list[Step]) -> None:
    """A model with a projection has its width already.

    Raises:
        RecipeError: another one is asked for.
    """
    widths = [step.out_features for step in steps if isinstance(step, Projection)]
    if dimension is not None and widths and dimension != widths[-1]:
        raise RecipeError("dimension", expected=f"{widths[-1]}, of the model's projection, or none", got=str(dimension))


def _refuse_architecture(config: PretrainedConfig) -> None:
    """Models whose projection stands among the transformer's weights, where it would not be read.

    Raises:
        ModelError: it is one.
    """
    for name in config.architectures or ():
        if name == "HF_ColBERT" or name.endswith("ForRetrieval"):
            _refuse_foreign(f"architecture {name}", "ColBERT or of transformers")


def _refuse_foreign(culprit: str, origin: str) -> None:
    raise ModelError(
        culprit,
        expected="a multi-vector model as sentence-transformers 6.2 writes it",
        got=f"one of {origin}",
        fix="open it with MultiVectorEncoder of sentence-transformers, and save it",
    )
