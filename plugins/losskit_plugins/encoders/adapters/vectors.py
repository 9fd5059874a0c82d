"""`VectorView`: objects of sentence-transformers that give a text one vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from losskit.errors import LossError
from losskit.output import Output
from losskit.protocols import Features

from ..backbone import requested_parts
from .view import TextView, loaded

__all__ = ["VectorView"]


class VectorView(TextView):
    """What views of dense and of sparse encoders share."""

    keys: ClassVar[Mapping[str, str]] = {}
    """Under which key the object gives each part that a loss may ask for."""

    @property
    def similarity(self) -> str:
        """What its vectors are compared by."""
        return str(self.model.similarity_fn_name)

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed by calling the object on a copy of the features, which it changes."""
        asked = [need for need in needs if need != "layers" and need not in self.keys]
        parts = requested_parts(features, asked, self.padding)
        made, layers = self._with_layers(features) if "layers" in needs else (self.model(dict(features)), ())
        return Output(made["sentence_embedding"], layers=layers, parts={**parts, **self._parts(made, needs)})

    def _parts(self, made: Mapping[str, Any], needs: Sequence[str]) -> dict[str, Tensor]:
        """The parts among the needs that the object gives; None stands for one that it can do without."""
        wanted = {need: self.keys[need] for need in needs if need in self.keys}
        return {need: made[key] for need, key in wanted.items() if made[key] is not None}

    def _with_layers(self, features: Features) -> tuple[Features, tuple[Tensor, ...]]:
        """What the object makes, and the vectors of each of its layers, the embedding layer first."""
        with self._hidden_states() as hidden:
            made = self.model(dict(features))
        if not hidden:
            raise LossError("layers", expected="a transformer that gives its hidden states", got="none")
        return made, tuple(self._embed({**made, "token_embeddings": tokens}) for tokens in hidden)

    @contextmanager
    def _hidden_states(self) -> Iterator[list[Tensor]]:
        """Collects the hidden states of every layer of the next forward, the embedding layer first."""
        transformer = self.model[0]
        if not isinstance(transformer, loaded("sentence_transformers.base.modules.transformer", "Transformer")):
            raise LossError(
                "layers", expected="a Transformer as the model's first module", got=type(transformer).__name__
            )
        hidden: list[Tensor] = []
        config, before = transformer.config, transformer.config.output_hidden_states
        hook = transformer.register_forward_hook(
            lambda module, args, made: hidden.extend(made.pop("all_layer_embeddings", ()))
        )
        config.output_hidden_states = True
        try:
            yield hidden
        finally:
            config.output_hidden_states = before
            hook.remove()

    def _embed(self, features: Features) -> Tensor:
        """Token embeddings through the modules that follow the transformer."""
        for module in list(self.model)[1:]:
            features = module(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors
