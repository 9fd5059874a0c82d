"""What a dense encoder is made of, read from a folder or taken from Python."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from losskit.errors import ModelError, RecipeError

from .backbone import hidden_size, is_causal, is_pooler, keep_layers, read_config, read_transformer
from .folder import locate, read_json
from .head import Normalization, Projection, read_step
from .layout import Settings, Stage, TransformerSettings, read_stages
from .pooling import Pooling
from .prompts import Prompts
from .tokenizer import Tokenizer, refuse_tokenizer, require_tokenizer

__all__ = ["DENSE", "DenseParts", "FolderForm", "Step", "auto_class", "gather_parts", "place_name"]

ROLE_PROMPTS = {"query": "", "document": ""}
KINDS = ("Transformer", "Pooling", "Normalize", "Dense")
RUN = TransformerSettings("feature-extraction", output="last_hidden_state", name="token_embeddings")

Step = Normalization | Projection


@dataclass(frozen=True)
class FolderForm:
    """What folders of a type of model hold.

    Args:
        model_type: as they call it.
        own: names of their further keys.
        last: the kind of the module that stands at the end, after those of a dense encoder; "": none.
    """

    model_type: str
    own: Sequence[str]
    last: str = ""


DENSE = FolderForm("SentenceTransformer", ("similarity_fn_name", "truncate_dim"))


@dataclass
class DenseParts:
    """What a dense encoder is made of, as read from a folder or taken from Python.

    `last` is the module of another kind that its folder has at the end, if its form has one.
    """

    transformer: PreTrainedModel
    tokenizer: Tokenizer
    before: list[Step]
    pooling: Pooling
    after: list[Step]
    settings: Settings
    run: TransformerSettings
    last: Stage | None = None


def gather_parts(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    layers: int | None,
    trust_remote_code: bool,
    forms: Sequence[FolderForm] = (DENSE,),
) -> DenseParts:
    """The parts of an encoder.

    Args:
        model: a folder, a name of the hub, or a transformers model.
        tokenizer: of a transformers model, and of nothing else.
        max_length: overrides the tokenizer's.
        layers: how many of a folder's transformer layers to keep; None: all.
        trust_remote_code: run code that a folder brings.
        forms: of folders that it can be read from; the first one if a folder is of another type.

    Raises:
        ModelError: the folder cannot be read, or holds what the encoder cannot honour.
    """
    if not isinstance(model, nn.Module):
        refuse_tokenizer(tokenizer)
        return _read_parts(locate(model, code=trust_remote_code), max_length, layers, trust_remote_code, forms)
    if layers is not None:
        raise RecipeError("layers", expected="None with a model that is given as an object", got=repr(layers))
    own = Tokenizer(copy.deepcopy(require_tokenizer(tokenizer)), max_length)
    pooling = _default_pooling(model.config)
    return DenseParts(model, own, [], pooling, [], Settings("SentenceTransformer", Prompts(ROLE_PROMPTS)), RUN)


def _read_parts(
    folder: Path, max_length: int | None, layers: int | None, trust_remote_code: bool, forms: Sequence[FolderForm]
) -> DenseParts:
    form = _form_of(folder, forms)
    settings = Settings.read(folder, form.model_type, form.own, ROLE_PROMPTS)
    stages = read_stages(folder, (*KINDS, form.last) if form.last else KINDS)
    last = _taken_off(stages, form, folder)
    home = folder if stages is None else stages[0].folder
    config = read_config(home, trust_remote_code)
    if layers is not None:
        keep_layers(config, layers)
    before, pooling, after = _read_steps(folder, stages) or ([], _default_pooling(config), [])
    run = RUN if stages is None else RUN.read(home)
    tokenizer = Tokenizer.read(home, config, run, max_length, trust_remote_code)
    transformer = read_transformer(home, auto_class(config), config, trust_remote_code, may_be_new=is_pooler)
    return DenseParts(transformer, tokenizer, before, pooling, after, settings, run, last)


def _form_of(folder: Path, forms: Sequence[FolderForm]) -> FolderForm:
    """The one whose type of model the folder names."""
    path = folder / "config_sentence_transformers.json"
    named = read_json(path, dict).get("model_type") if path.exists() else None
    return next((form for form in forms if form.model_type == (named or DENSE.model_type)), forms[0])


def _taken_off(stages: list[Stage] | None, form: FolderForm, folder: Path) -> Stage | None:
    """The module at the end that the form asks for, which then is none of the stages any more."""
    if stages is None or not form.last:
        return None
    kinds = [stage.kind for stage in stages]
    if kinds[-1] != form.last or kinds.count(form.last) > 1:
        raise ModelError(str(folder / "modules.json"), expected=f"one {form.last}, at the end", got=", ".join(kinds))
    return stages.pop()


def _read_steps(folder: Path, stages: Sequence[Stage] | None) -> tuple[list[Step], Pooling, list[Step]] | None:
    """What modules.json puts before pooling, the pooling, and what comes after it."""
    if stages is None:
        return None
    at = [index for index, stage in enumerate(stages) if stage.kind == "Pooling"]
    if len(at) != 1:
        raise ModelError(str(folder / "modules.json"), expected="one Pooling", got=str(len(at)))
    before = [read_step(stage, place_name(tokens=True)) for stage in stages[1 : at[0]]]
    after = [read_step(stage, place_name(tokens=False)) for stage in stages[at[0] + 1 :]]
    return before, Pooling.read(stages[at[0]]), after


def place_name(tokens: bool) -> str:
    """What sentence-transformers calls that on which a step works: token embeddings, or the pooled vector."""
    return "token_embeddings" if tokens else "sentence_embedding"


def _default_pooling(config: PretrainedConfig) -> Pooling:
    return Pooling(hidden_size(config), ["last-token" if is_causal(config) else "mean"])


def auto_class(config: PretrainedConfig) -> Any:
    """The class of transformers that loads the part which encodes.

    Raises:
        ModelError: an encoder-decoder whose encoder transformers cannot load alone.
    """
    if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return AutoModelForTextEncoding
    if config.is_encoder_decoder:
        raise ModelError(
            f"model type {config.model_type}", expected="an encoder or a decoder", got="an encoder-decoder of both"
        )
    return AutoModel
