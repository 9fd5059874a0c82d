"""The transformer and its tokenizer: read from a folder, or taken from Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from losskit.errors import DataError, LossError, ModelError, RecipeError
from losskit.features import token_ids
from losskit.output import Output, Tokens
from losskit.protocols import Features

from .folder import require_safetensors
from .layout import TransformerSettings

__all__ = [
    "Tokenizer",
    "accepted_inputs",
    "hidden_size",
    "is_causal",
    "is_pooler",
    "keep_layers",
    "last_hidden_state",
    "quiet",
    "read_config",
    "read_transformer",
    "refuse_tokenizer",
    "requested_parts",
    "require_tokenizer",
]

NO_LIMIT = 10**6
"""Tokenizers without a limit say so by a number beyond any text."""


class Tokenizer:
    """A transformers tokenizer as the encoders use it.

    Args:
        base: the tokenizer, which is changed.
        max_length: the most tokens of a text, prompt and special tokens included; None: as it has it.
    """

    def __init__(self, base: PreTrainedTokenizerBase, max_length: int | None = None) -> None:
        self.base = base
        if max_length is not None:
            self.check_length("max_length", max_length)
            self.base.model_max_length = max_length
        if self.base.pad_token is None:
            if self.base.eos_token is None:
                raise ModelError("the tokenizer", expected="a padding token", got="none", fix="set its pad_token")
            self.base.pad_token = self.base.eos_token

    @classmethod
    def read(
        cls,
        folder: Path,
        config: PretrainedConfig,
        settings: TransformerSettings,
        max_length: int | None,
        trust_remote_code: bool,
    ) -> Tokenizer:
        """The tokenizer of a model folder.

        Args:
            folder: that holds it.
            config: of the transformer, which limits the length where nobody says it.
            settings: of the transformer.
            max_length: overrides the folder's.
            trust_remote_code: run code that the folder brings.

        Raises:
            ModelError: there is none, or it is broken.
        """
        with reading(folder, "a tokenizer"):
            base = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
        if len(base) <= len(base.all_special_ids):  # what transformers makes of a folder without one
            raise ModelError(str(folder), expected="a tokenizer", got="none, or one without a vocabulary")
        limit = max_length if max_length is not None else settings.max_seq_length
        positions = getattr(config, "max_position_embeddings", None)
        if limit is None and positions is not None and positions != -1:
            limit = min(base.model_max_length, positions)
        tokenizer = cls(base, limit)
        if settings.lower_case:
            tokenizer.lower_case(folder)
        return tokenizer

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text; None: as many as it has."""
        limit = int(self.base.model_max_length)
        return limit if limit < NO_LIMIT else None

    @property
    def padding(self) -> Mapping[str, int]:
        """What stands at padding, by feature; 0 elsewhere."""
        return {"input_ids": self.base.pad_token_id, "token_type_ids": self.base.pad_token_type_id}

    def check_length(self, option: str, length: int) -> None:
        """Refuse a length to which texts cannot be cut.

        Raises:
            RecipeError: names the option.
        """
        least = max(1, self.base.num_special_tokens_to_add())
        if type(length) is not int or length < least:
            expected = f"{least} or more" + (", as so many tokens stand around a text" if least > 1 else "")
            raise RecipeError(option, expected=expected, got=repr(length))

    def lower_case(self, folder: Path) -> None:
        """Lower-case texts first.

        Raises:
            ModelError: this kind of tokenizer cannot.
        """
        if not self.base.is_fast:
            raise ModelError(f"do_lower_case in {folder}", expected="a fast tokenizer", got=type(self.base).__name__)
        backend = self.base.backend_tokenizer
        before = backend.normalizer
        steps = [] if before is None else [before]
        if isinstance(before, NormalizerSequence):
            steps = [before[index] for index in range(len(before))]
        if not any(isinstance(step, Lowercase) for step in steps):
            backend.normalizer = NormalizerSequence([Lowercase(), *steps])

    def __call__(
        self,
        texts: Sequence[str],
        others: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        full: bool = False,
        special: bool = True,
    ) -> dict[str, Tensor]:
        """Texts, or pairs of texts, to padded and truncated tensors [n, t].

        Args:
            texts: n of them.
            others: the second of each pair; None: there are no pairs.
            max_length: the most tokens; None: as the tokenizer has it.
            full: pad to as many instead of to the longest.
            special: put the tokens around it that the tokenizer puts around texts.

        Texts without any token are padding: no transformer takes features without a position.

        Raises:
            DataError: there are none, for no transformer takes an empty batch.
        """
        if not texts:
            raise DataError("a column of a batch", expected="at least one text", got="none")
        tokens: dict[str, Tensor] = dict(
            self.base(
                list(texts),
                None if others is None else list(others),
                padding="max_length" if full else True,
                truncation="longest_first",
                max_length=max_length,
                add_special_tokens=special,
                return_attention_mask=True,
                return_tensors="pt",
            )
        )
        if tokens["input_ids"].shape[1]:
            return tokens
        return {name: torch.full((len(texts), 1), self.padding.get(name, 0)) for name in tokens}

    def prompt_length(self, prompt: str) -> int:
        """How many tokens a prompt puts before the text, special ones before it included."""
        if not prompt:
            return 0
        ids = self([prompt])["input_ids"][0].tolist()
        return len(ids) - (ids[-1] in self.base.all_special_ids)

    def save(self, folder: Path) -> None:
        """Write it as transformers does."""
        # transformers writes what a tokenizer was made with, and would forget sides that were set since.
        self.base.init_kwargs |= {"padding_side": self.base.padding_side, "truncation_side": self.base.truncation_side}
        self.base.save_pretrained(folder)

    def get_vocab(self) -> dict[str, int]:
        """The id of every token."""
        vocabulary: dict[str, int] = self.base.get_vocab()
        return vocabulary

    def decode(self, features: Features) -> list[str]:
        """The texts of token ids, as far as they can be had back."""
        return self.base.batch_decode(features["input_ids"], skip_special_tokens=True)


def require_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The tokenizer that a model given from Python needs beside it.

    Raises:
        RecipeError: there is none.
    """
    if tokenizer is None:
        raise RecipeError("tokenizer", expected="the tokenizer of the given model", got="none")
    return tokenizer


def refuse_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> None:
    """A model folder has its own tokenizer.

    Raises:
        RecipeError: another one is given.
    """
    if tokenizer is not None:
        got = type(tokenizer).__name__
        raise RecipeError("tokenizer", expected="none, for the model folder has its own", got=got)


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


@contextmanager
def reading(folder: Path, wanted: str) -> Iterator[None]:
    """Turn what transformers raises over a folder into one line.

    Raises:
        ModelError: for the errors that a folder can cause.
    """
    try:
        with quiet():
            yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(str(folder), expected=wanted, got=line) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the progress bars and reports of transformers off the terminal."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
