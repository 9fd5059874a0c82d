"""Tokenizers of transformers, as the encoders use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from losskit.errors import DataError, ModelError, RecipeError
from losskit.protocols import Features

from .layout import TransformerSettings
from .reading import reading

__all__ = ["Tokenizer", "refuse_tokenizer", "require_tokenizer"]

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
