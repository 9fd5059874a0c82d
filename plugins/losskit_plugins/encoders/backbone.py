"""The transformer: read from a folder, and what encoders ask of one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from losskit.errors import LossError, ModelError, RecipeError
from losskit.features import token_ids
from losskit.output import Output, Tokens
from losskit.protocols import Features

from .folder import require_safetensors
from .reading import reading
from .tokenizer import Tokenizer

__all__ = [
    "accepted_inputs",
    "hidden_size",
    "is_causal",
    "is_pooler",
    "keep_layers",
    "last_hidden_state",
    "read_config",
    "read_transformer",
    "requested_parts",
]


def read_transformer(
    folder: Path,
    auto_class: Any,
    config: PretrainedConfig,
    trust_remote_code: bool,
    may_be_new: Callable[[PreTrainedModel, str], bool],
) -> PreTrainedModel:
    """A transformer with the weights of a folder.

    Args:
        folder: with config.json and safetensors.
        auto_class: of transformers, such as AutoModel.
        config: of the model.
        trust_remote_code: run code that the folder brings.
        may_be_new: whether a weight of that name may be missing from the folder, and so start at random.

    Raises:
        ModelError: the folder holds no such model.
    """
    require_safetensors(folder)
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            str(folder / "adapter_config.json"),
            expected="a whole model",
            got="a PEFT adapter",
            fix="merge it with merge_and_unload() of peft, and save the result",
        )
    model: PreTrainedModel
    with reading(folder, "a transformers model"):
        model, report = auto_class.from_pretrained(
            str(folder),
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    missing = sorted(name for name in report["missing_keys"] if not may_be_new(model, name))
    if missing:
        raise ModelError(
            str(folder),
            expected=f"all weights of {type(model).__name__}",
            got=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
        )
    return model


def read_config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    """The configuration of the transformer in a folder; caches for generation are off.

    Raises:
        ModelError: there is none, or of an architecture that is unknown or no name.
    """
    with reading(folder, "a transformers model"):
        config: PretrainedConfig = AutoConfig.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    named = config.architectures or []
    if not (isinstance(named, list) and all(isinstance(each, str) for each in named)):
        raise ModelError(f"architectures in {folder / 'config.json'}", expected="a list of names", got=repr(named))
    if getattr(config, "use_cache", False):
        config.use_cache = False
    return config


def keep_layers(config: PretrainedConfig, layers: int) -> None:
    """Make it the configuration of a transformer of the first layers, whose weights are then all that is read.

    Raises:
        RecipeError: there are not so many.
        ModelError: the configuration does not say how many there are.
    """
    own = config.get_text_config()
    count = getattr(own, "num_hidden_layers", None)
    if count is None:
        raise ModelError(f"the configuration of {config.model_type}", expected="num_hidden_layers", got="none")
    if type(layers) is not int or not 1 <= layers <= count:
        raise RecipeError("layers", expected=f"1 to the transformer's {count}", got=repr(layers))
    own.num_hidden_layers = layers
    if getattr(own, "layer_types", None) is not None:
        own.layer_types = own.layer_types[:layers]


def is_pooler(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight belongs to the pooler that some transformers end with, and that no embedding passes."""
    return "pooler" in name.split(".")


def hidden_size(config: PretrainedConfig) -> int:
    """The width of a token embedding.

    Raises:
        ModelError: the configuration does not say.
    """
    size = getattr(config.get_text_config(), "hidden_size", None)
    if size is None:
        raise ModelError(f"the configuration of {config.model_type}", expected="hidden_size", got="none")
    return int(size)


def is_causal(config: PretrainedConfig) -> bool:
    """Whether the model was made to continue texts, so that its last token has seen all others."""
    architectures = config.architectures or [""]
    return architectures[0].endswith("ForCausalLM") and getattr(config, "is_causal", True)


def last_hidden_state(made: Any, transformer: PreTrainedModel) -> Tensor:
    """The token embeddings [n, t, d] among what a transformer makes of features.

    Raises:
        ModelError: it makes something else.
    """
    tokens: Tensor | None = getattr(made, "last_hidden_state", None)
    if tokens is None:
        raise ModelError(
            type(transformer).__name__,
            expected="a transformer whose output has last_hidden_state",
            got=f"{', '.join(made)}",
            fix="give the model without its head, as AutoModel loads it",
        )
    return tokens


def accepted_inputs(model: PreTrainedModel, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Which of the tokenizer's tensors the model's forward takes."""
    names = dict.fromkeys((*tokenizer.base.model_input_names, "attention_mask"))
    parameters = inspect.signature(model.forward).parameters
    if "input_ids" not in parameters:  # a wrapper that hands everything on
        return tuple(names)
    return tuple(name for name in names if name in parameters)


def requested_parts(
    features: Features, needs: Sequence[str], padding: Mapping[str, int], known: Sequence[str] = ("input_ids",)
) -> dict[str, Tensor | Tokens | Output]:
    """The parts of a record that a loss asks for.

    Raises:
        LossError: it asks for what there is not.
    """
    for need in needs:
        if need not in known:
            raise LossError("needs of the loss", expected=f"some of {', '.join(known)} of this encoder", got=repr(need))
    return {"input_ids": token_ids(features, padding)} if "input_ids" in needs else {}
