"""What a SPLADE encoder is made of, read from a folder or taken from Python."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from losskit.errors import ModelError

from .backbone import read_config, read_transformer
from .dense_parts import ROLE_PROMPTS
from .folder import locate
from .layout import Settings, Stage, TransformerSettings, read_stages
from .options import check_choice
from .prompts import Prompts
from .sparse_transformer import SETTINGS
from .splade_pooling import POOLINGS, SpladePooling
from .tokenizer import Tokenizer, refuse_tokenizer, require_tokenizer
from .vocabulary_head import ACTIVATIONS

__all__ = ["SpladeParts", "check_pooling", "gather_splade_parts", "read_settings", "read_splade_parts"]

MODEL_TYPE = "SparseEncoder"
RUN = TransformerSettings("fill-mask", output="logits", name="token_embeddings")


@dataclass
class SpladeParts:
    """What a SPLADE encoder is made of, as read from a folder or taken from Python."""

    transformer: PreTrainedModel
    tokenizer: Tokenizer
    pooling: SpladePooling
    settings: Settings
    run: TransformerSettings

    @property
    def dimension(self) -> int:
        """How many terms there are."""
        return int(self.transformer.config.get_text_config().vocab_size)


def gather_splade_parts(
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    trust_remote_code: bool,
) -> SpladeParts:
    """The parts of an encoder.

    Args:
        model: a folder, a name of the hub, or a transformers model.
        tokenizer: of a transformers model, and of nothing else.
        max_length: overrides the tokenizer's.
        trust_remote_code: run code that a folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what the encoder cannot honour.
    """
    if isinstance(model, nn.Module):
        own = Tokenizer(copy.deepcopy(require_tokenizer(tokenizer)), max_length)
        return SpladeParts(model, own, SpladePooling(), Settings(MODEL_TYPE, Prompts(ROLE_PROMPTS)), RUN)
    refuse_tokenizer(tokenizer)
    folder = locate(model, code=trust_remote_code)
    settings = read_settings(folder)
    stages = read_stages(folder, ("Transformer", SpladePooling.kind))
    if stages is not None and len(stages) != 2:
        expected = f"a Transformer and a {SpladePooling.kind}"
        raise ModelError(str(folder / "modules.json"), expected=expected, got=f"{len(stages)} modules")
    return read_splade_parts(folder, stages, settings, max_length, trust_remote_code)


def read_settings(folder: Path) -> Settings:
    """What the folder of a sparse encoder says of the model as a whole."""
    return Settings.read(folder, MODEL_TYPE, SETTINGS, ROLE_PROMPTS)


def read_splade_parts(
    folder: Path, stages: list[Stage] | None, settings: Settings, max_length: int | None, trust_remote_code: bool
) -> SpladeParts:
    """The parts that stand in the folders of two modules, or in a plain transformers folder.

    Args:
        folder: of the model.
        stages: the transformer and the pooling; None: it is a plain folder.
        settings: of the model.
        max_length: overrides the tokenizer's.
        trust_remote_code: run code that the folder brings.

    Raises:
        ModelError: they cannot be read.
    """
    home = folder if stages is None else stages[0].folder
    pooling = SpladePooling() if stages is None else SpladePooling.read(stages[1])
    run = RUN if stages is None else RUN.read(home)
    config = read_config(home, trust_remote_code)
    tokenizer = Tokenizer.read(home, config, run, max_length, trust_remote_code)
    transformer = read_transformer(home, AutoModelForMaskedLM, config, trust_remote_code, lambda model, name: False)
    return SpladeParts(transformer, tokenizer, pooling, settings, run)


def check_pooling(pooling: str | None, activation: str | None) -> None:
    """Refuse a pooling or an activation that there is not.

    Raises:
        RecipeError: names the option.
    """
    check_choice("pooling", pooling, POOLINGS)
    check_choice("activation", activation, tuple(ACTIVATIONS))
