"""The scoring mask: which tokens of a text count when it is compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from losskit.errors import ModelError

from .folder import write_json
from .layout import Stage, refuse_unknown
from .tokenizer import Tokenizer

__all__ = ["ScoringMask"]

logger = logging.getLogger("losskit")

NAMES = ("skiplist_words", "skiplist_tasks", "keep_only_token_ids")


class ScoringMask:
    """Says which tokens count: all but those of the skip list.

    Args:
        tokenizer: whose ids the words have.
        skiplist_words: tokens that do not count; a word that is no token is left out, and said.
        skiplist_tasks: the roles whose texts they are skipped in; a text of no role counts as a document.
        keep_only_token_ids: the only ones that count in texts that are no queries; None: any.
    """

    kind = "MultiVectorMask"

    def __init__(
        self,
        tokenizer: Tokenizer,
        skiplist_words: Sequence[str] = (),
        skiplist_tasks: Sequence[str] = ("document",),
        keep_only_token_ids: Sequence[int] | None = None,
    ) -> None:
        self.skiplist_words = list(skiplist_words)
        self.skiplist_tasks = list(skiplist_tasks)
        self.keep_only_token_ids = None if keep_only_token_ids is None else list(keep_only_token_ids)
        vocabulary = tokenizer.get_vocab() if self.skiplist_words else {}
        self._skipped = [vocabulary[word] for word in self.skiplist_words if word in vocabulary]
        missing = [word for word in self.skiplist_words if word not in vocabulary]
        if missing:
            logger.warning("skiplist_words: %s are no tokens of the tokenizer, and skip nothing", missing)

    def __call__(self, ids: Tensor, present: Tensor, role: str) -> Tensor:
        """Which tokens of n texts count.

        Args:
            ids: token ids [n, t].
            present: [n, t], True at tokens of the texts and at those that expand queries.
            role: of the texts.
        """
        if self._skipped and ("query" if role == "query" else "document") in self.skiplist_tasks:
            present = present & ~torch.isin(ids, ids.new_tensor(self._skipped))
        if self.keep_only_token_ids and role != "query":
            present = present & torch.isin(ids, ids.new_tensor(self.keep_only_token_ids))
        return present

    @classmethod
    def read(cls, stage: Stage, tokenizer: Tokenizer, words: Sequence[str] | None) -> Self:
        """The mask that a model folder describes.

        Args:
            stage: where.
            tokenizer: of the model.
            words: instead of the folder's skip list; None: as it is.

        Raises:
            ModelError: it is described wrongly.
        """
        config, culprit = stage.config(), str(stage.folder / "config.json")
        refuse_unknown(config, NAMES, culprit)
        tasks = config.get("skiplist_tasks")
        config["skiplist_tasks"] = ["document"] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
        config["skiplist_words"] = config.get("skiplist_words") or []
        for name, item in zip(NAMES, (str, str, int), strict=True):
            _check_list(config.get(name), item, f"{name!r} in {culprit}")
        return cls(tokenizer, **{**config, **({} if words is None else {"skiplist_words": words})})

    def write(self, stage: Stage) -> None:
        """Describe it in a model folder."""
        write_json(stage.folder / "config.json", {name: getattr(self, name) for name in NAMES}, indent=4)


def _check_list(value: Any, item: type, culprit: str) -> None:
    if value is not None and not (isinstance(value, list) and all(type(each) is item for each in value)):
        raise ModelError(culprit, expected=f"a list of {item.__name__}", got=repr(value))
