"""`TransformerEncoder`: what all encoders around a transformer and its tokenizer share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from losskit.card import Card
from losskit.features import move
from losskit.output import Output
from losskit.protocols import Features

from .backbone import accepted_inputs
from .folder import replacing
from .inference import check_texts, evaluating, in_batches
from .layout import Settings, Stage, TransformerSettings, write_stages
from .options import given
from .prompts import Prompts
from .reading import quiet
from .tokenizer import Tokenizer

__all__ = ["TransformerEncoder", "stacked"]

Module = tuple[str, Callable[[Stage], None]]
"""The kind of a module after the transformer, a key of `layout.TYPES`, and what writes its files."""


class TransformerEncoder(nn.Module):
    """Features, inference and the folder of an encoder; a subclass says what `forward` makes of features.

    Args:
        transformer: run by `forward`.
        tokenizer: of its texts.
        settings: of the folder that it comes from.
        run: how the transformer is run, as folders say it.
        prompts: added to those of the folder.
        options: what the encoder was made with, by name, as it was given.
    """

    card: ClassVar[Card]
    family: ClassVar[str]

    def __init__(
        self,
        transformer: PreTrainedModel,
        tokenizer: Tokenizer,
        settings: Settings,
        run: TransformerSettings,
        prompts: Mapping[str, str] | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.prompts = Prompts({**settings.prompts.texts, **(prompts or {})}, settings.prompts.default)
        self._settings, self._run = settings, run
        self._inputs = accepted_inputs(transformer, tokenizer)
        self._options = given(options or {})

    @abstractmethod
    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode n items."""

    def _inferred(self, features: Features) -> Output:
        """The record that `encode` reads, in evaluation mode and without gradients."""
        record: Output = self(features)
        return record

    @abstractmethod
    def _results(self, record: Output) -> Sequence[Any]:
        """What `encode` makes of the record of a batch: one result per item, on the CPU."""

    @abstractmethod
    def _collected(self, results: Sequence[Any]) -> Any:
        """What `encode` gives for the results of all items, in their order."""

    @abstractmethod
    def _own_settings(self) -> tuple[str, Mapping[str, Any]]:
        """The type of model that its folder holds, and the further keys of that type."""

    def _modules_after(self) -> Sequence[Module]:
        """What stands after the transformer in its folder."""
        return ()

    def _write_modules(self, folder: Path) -> None:
        """Write everything that `forward` runs into the model's folder."""
        after = self._modules_after()
        first, *others = write_stages(folder, ["Transformer", *(kind for kind, _ in after)])
        self._write_transformer(first)
        for (_, write), stage in zip(after, others, strict=True):
            write(stage)

    def _write_transformer(self, stage: Stage) -> None:
        """Write the transformer with its tokenizer and how it is run."""
        self.transformer.save_pretrained(stage.folder)
        self.tokenizer.save(stage.folder)
        self._run.write(stage.folder)

    def _about_prompt(self, count: int, prompt: str) -> Features:
        """Features of so many items that tell of their prompt."""
        return {}

    def _checked(self, texts: Sequence[Any]) -> list[Any]:
        """The items as a list.

        Raises:
            DataError: something is no item.
        """
        return check_texts(texts)

    def _tokens(self, items: Sequence[Any], prompt: str) -> dict[str, Tensor]:
        """Items, each after the prompt, to tensors [n, t]."""
        return self.tokenizer([prompt + text for text in items])

    @property
    def max_length(self) -> int | None:
        """The most tokens of an item."""
        return self.tokenizer.max_length

    @property
    def padding(self) -> Mapping[str, int]:
        """What stands at padding, by feature."""
        return self.tokenizer.padding

    def preprocess(self, texts: Sequence[Any], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts, or pairs, each after its prompt.

        Args:
            texts: n of them.
            role: "text", "query", "document", or the name of one of the prompts.
            prompt: instead of the role's; "" means none.

        Returns:
            Tensors [n, t], and what else the encoder reads of a prompt.
        """
        items, prompt = self._checked(texts), self.prompts.resolve(role, prompt)
        tokens = self._tokens(items, prompt)
        found = {name: tokens[name] for name in self._inputs if name in tokens}
        return found | self._about_prompt(len(items), prompt)

    def encode(
        self,
        texts: Sequence[Any],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Any:
        """The results of n texts, or pairs, without gradients and dropout.

        Args:
            texts: n of them.
            role: "text", "query", "document", or the name of one of the prompts.
            prompt: instead of the role's; "" means none.
            batch_size: the most items of a forward.
            progress: show a bar on stderr.

        Returns:
            Of a dense encoder [n, d], of a sparse one a sparse [n, d], of a multi-vector one n arrays [tokens, d], of
            a cross-encoder [n] or [n, classes].
        """
        items = self._checked(texts)
        prompt = self.prompts.resolve(role, prompt)
        device = next(self.parameters()).device

        def run(batch: list[Any]) -> Sequence[Any]:
            return self._results(self._inferred(move(self.preprocess(batch, role=role, prompt=prompt), device)))

        with evaluating(self):
            results = in_batches(items, run, length=_length, batch_size=batch_size, progress=progress)
        return self._collected(results)

    def decode(self, features: Features) -> list[str]:
        """The texts of features, a pair's in one, as far as their tokens tell."""
        return self.tokenizer.decode(features)

    def get_config_dict(self) -> dict[str, Any] | None:
        """The options that it was made with; None where its transformer was given as an object."""
        return dict(self._options) if "model" in self._options else None

    def save(self, path: str | Path) -> None:
        """Write a model folder that sentence-transformers opens; what is no part of a model there stays.

        Raises:
            ModelError: it cannot be written; then nothing has changed.
        """
        model_type, own = self._own_settings()
        with replacing(path) as folder, quiet():
            self._write_modules(folder)
            Settings(model_type, self.prompts, own, self._settings.other).write(folder)

    @classmethod
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> Self:
        """Read a model folder.

        Raises:
            ModelError: it cannot be read, or holds what this encoder cannot honour.
        """
        return cls(path, trust_remote_code=trust_remote_code)  # type: ignore[arg-type,call-arg]

    def _called(self, features: Features, **options: Any) -> Any:
        """What the transformer makes of features."""
        inputs = {name: features[name] for name in self._inputs if name in features}
        return self.transformer(**inputs, **options, return_dict=True)


def stacked(results: Sequence[Tensor], width: tuple[int, ...]) -> Any:
    """The results of n items, each of one shape, as an array [n, *width]."""
    return torch.stack(list(results)).numpy() if results else torch.zeros(0, *width).numpy()


def _length(item: Any) -> int:
    return len(item) if isinstance(item, str) else sum(map(len, item))
