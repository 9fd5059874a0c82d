"""`View`: what all views of sentence-transformers objects share, and `TextView`: those that embed texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from losskit.errors import LossError, PluginError
from losskit.protocols import Encoder, Features

from ..folder import replacing
from ..inference import check_texts, evaluating
from ..prompts import Prompts

__all__ = ["TextView", "View", "loaded", "task_of"]

LIBRARY = "sentence_transformers"


def loaded(module: str, name: str) -> type[Any] | tuple[()]:
    """A class of sentence-transformers, or a type that nothing is an instance of where it is not loaded."""
    found: type[Any] | tuple[()] = getattr(sys.modules.get(module), name, ())
    return found


class View:
    """What all views share: the object itself, its tokenizer, and its folder format."""

    class_name = ""
    family = ""

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of such an object; None for anything else."""
        if not isinstance(model, loaded(LIBRARY, cls.class_name)):
            return None
        return cls.of(model)

    @classmethod
    def of(cls, model: Any) -> Encoder:
        """The view of an object of the right class."""
        return cls(model)  # type: ignore[return-value]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a model folder with sentence-transformers.

        Raises:
            PluginError: that library is not installed.
        """
        try:
            import sentence_transformers
        except ImportError as error:
            raise PluginError(
                LIBRARY, expected="to be installed", got=str(error), fix="pip install losskit[sentence-transformers]"
            ) from error
        return cls(getattr(sentence_transformers, cls.class_name)(str(path)))

    def save(self, path: str | Path) -> None:
        """Write a model folder as the object itself does; what is no part of a model there stays."""
        with replacing(path) as folder:
            self.model.save_pretrained(str(folder), create_model_card=False)

    @property
    def tokenizer(self) -> Any:
        """The object's own."""
        return self.model.tokenizer

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text."""
        limit: int | None = self.model.max_seq_length
        return limit

    @property
    def padding(self) -> Mapping[str, int]:
        """What stands at padding, by feature; a first module of someone's own need not have a tokenizer."""
        tokenizer = getattr(self.model, "tokenizer", None)
        ids = {
            "input_ids": getattr(tokenizer, "pad_token_id", None),
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None),
        }
        return {name: value for name, value in ids.items() if value is not None}

    def decode(self, features: Features) -> list[str]:
        """The texts of features, as far as their tokens tell.

        Raises:
            LossError: tokens whose texts nobody can tell apart.
        """
        ids = features["input_ids"]
        if "cu_seq_lens_q" in features:  # all texts in one row, without padding
            bounds = features["cu_seq_lens_q"].tolist()
            ids = [ids[0, start:end] for start, end in pairwise(bounds)]
        elif ids.ndim != 2:
            raise LossError(
                "features of one row of tokens",
                expected="input_ids [n, t], to give their texts back",
                got=f"shape {list(ids.shape)}",
                fix="train with losskit.train, whose batches carry texts",
            )
        texts: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts

    def _prompt(self, role: str, prompt: str | None) -> str:
        return Prompts(self.model.prompts, self.model.default_prompt_name).resolve(role, prompt)


class TextView(View):
    """What views of objects that embed texts share."""

    @property
    def transformer(self) -> Any:
        """The model of transformers inside; None where there is none."""
        return self.model.transformers_model

    @property
    def normalized(self) -> bool:
        """Whether its last module scales vectors to unit length."""
        return isinstance(self.model[-1], loaded("sentence_transformers.base.modules.normalize", "Normalize"))

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts as the object does, with the prompt of their role."""
        return dict(self.model.preprocess(check_texts(texts), prompt=self._prompt(role, prompt), **task_of(role)))

    def _encoded(
        self, texts: list[str], role: str, prompt: str | None, batch_size: int, progress: bool, **options: Any
    ) -> Any:
        """What the object's own encode gives."""
        methods = {"query": self.model.encode_query, "document": self.model.encode_document}
        with evaluating(self.model):
            return methods.get(role, self.model.encode)(
                texts,
                prompt=self._prompt(role, prompt),
                batch_size=batch_size,
                show_progress_bar=progress,
                **options,
            )


def task_of(role: str) -> dict[str, str]:
    """The task of that library that a role is, if it is one."""
    return {"task": role} if role in ("query", "document") else {}
