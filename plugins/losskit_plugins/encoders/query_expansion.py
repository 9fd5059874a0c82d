"""Query expansion: queries that are filled up with mask tokens, which are compared like those of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

from losskit.errors import LosskitError, ModelError, did_you_mean

from .tokenizer import Tokenizer

__all__ = ["QueryExpansion"]

Strategy = Literal["fixed", "min"]


@dataclass(frozen=True)
class QueryExpansion:
    """How queries are filled up.

    Args:
        strategy: "fixed": every query has `length` tokens, longer ones are cut; "min": at least so many.
        attend: whether the tokens of the text attend to those that are filled in; the other way round they always do.
        token: that is filled in; None: the tokenizer's mask token, or the one that ends a text where it has none.
        length: a number of tokens, special ones and the prompt's included.
    """

    strategy: Strategy = "fixed"
    attend: bool = False
    token: str | None = None
    length: int = 32

    @classmethod
    def read(cls, config: Any, culprit: str, error: type[LosskitError]) -> Self | None:
        """What a recipe or a model folder says.

        Args:
            config: options by name; True for the defaults, False or None for no expansion.
            culprit: where it stands.
            error: raised where it is wrong.
        """
        if config is None or isinstance(config, bool):
            return cls() if config else None
        known = [field.name for field in fields(cls)]
        if not isinstance(config, Mapping):
            raise error(culprit, expected=f"a mapping with {', '.join(known)}", got=repr(config))
        for name in config:
            if name not in known:
                expected = f"one of {', '.join(known)}"
                raise error(f"{culprit}.{name}", expected=expected, got="an unknown one", fix=did_you_mean(name, known))
        expansion = cls(**config)
        for name, right, expected in (
            ("strategy", expansion.strategy in get_args(Strategy), f"one of {', '.join(get_args(Strategy))}"),
            ("attend", isinstance(expansion.attend, bool), "true or false"),
            ("token", isinstance(expansion.token, str | None), "a token of the tokenizer"),
            ("length", type(expansion.length) is int and expansion.length > 0, "a positive number of tokens"),
        ):
            if not right:
                raise error(f"{culprit}.{name}", expected=expected, got=repr(config[name]))
        return expansion

    def config(self) -> dict[str, Any]:
        """As `read` takes it, and model folders have it."""
        return asdict(self)

    def token_id(self, tokenizer: Tokenizer) -> int:
        """The id of what is filled in.

        Raises:
            ModelError: the tokenizer has no such token.
        """
        base = tokenizer.base
        token = self.token or base.mask_token or base.eos_token
        number: int | None = None if token is None else base.convert_tokens_to_ids(token)
        if number is None or (number == base.unk_token_id and token != base.unk_token):
            expected = "a token of the tokenizer" if token else "a tokenizer with a mask token, or one that ends a text"
            raise ModelError(
                "query_expansion.token", expected=expected, got=repr(token), fix="name one of the vocabulary's tokens"
            )
        return number

    def __call__(
        self, tokenizer: Tokenizer, texts: Sequence[str], limit: int | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Tokens of n queries, and which of them are filled in.

        Args:
            tokenizer: of the texts.
            texts: n of them, with their prompt.
            limit: the most tokens of a query of strategy "min"; None: as the tokenizer has it.

        Returns:
            Tensors [n, t] by feature, and a mask [n, t].
        """
        if self.strategy == "fixed":
            tokens = tokenizer(texts, max_length=self.length, full=True)
        else:
            tokens = tokenizer(texts, max_length=limit and max(limit, self.length))
        missing = max(0, self.length - tokens["input_ids"].shape[1])
        tokens = {name: torch.nn.functional.pad(values, (0, missing)) for name, values in tokens.items()}
        attended = tokens["attention_mask"]
        filled = (attended == 0) & (torch.arange(attended.shape[1]) < self.length)
        tokens["input_ids"] = tokens["input_ids"].masked_fill(filled, self.token_id(tokenizer))
        if self.attend:
            tokens["attention_mask"] = attended.masked_fill(filled, 1)
        return tokens, filled
