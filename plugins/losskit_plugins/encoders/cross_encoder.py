"""The cross-encoder: a transformer that reads a query and a document together."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.errors import ModelError, RecipeError
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import CrossEncoderView
from .backbone import is_pooler, read_config, read_transformer, requested_parts
from .folder import locate
from .head import activation_from, name_of_activation
from .inference import check_pairs
from .layout import Settings, TransformerSettings, read_stages
from .tokenizer import Tokenizer, refuse_tokenizer, require_tokenizer
from .transformer_encoder import TransformerEncoder, stacked

__all__ = ["CrossEncoder"]

ACTIVATIONS = {"identity": nn.Identity, "sigmoid": nn.Sigmoid}
RUN = TransformerSettings("sequence-classification", output="logits", name="scores")


@dataclass
class _Parts:
    """What a cross-encoder is made of, as read from a folder or taken from Python."""

    transformer: PreTrainedModel
    tokenizer: Tokenizer
    settings: Settings
    run: TransformerSettings
    activation: nn.Module | None


class CrossEncoder(TransformerEncoder):
    """One score, or one per class, for a query and a document read together.

    Options that are None are what the model folder says.

    Args:
        model: a folder (of sentence-transformers or transformers), a name of the Hugging Face hub, or a
            transformers model for sequence classification.
        num_labels: how many numbers it gives per pair; a folder without a classifier means 1, and gets a new one.
        max_length: the most tokens of a pair.
        prompts: put before the query, by name; added to the folder's.
        activation: what `encode` applies to the raw scores; for one label "sigmoid", else "identity".
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.
    """

    card = Card(
        encoders=["cross-encoder"],
        formula="classifier(transformer(query, document))",
        citation="""@article{nogueira-2019-passage,
    title = "Passage Re-ranking with {BERT}",
    author = "Nogueira, Rodrigo and Cho, Kyunghyun",
    journal = "arXiv preprint arXiv:1901.04085",
    year = "2019",
    url = "https://arxiv.org/abs/1901.04085",
}""",
    )
    family = "cross-encoder"
    similarity = ""
    dimension = None
    normalized = False

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        num_labels: int | None = None,
        max_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        activation: Literal["identity", "sigmoid"] | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        options = {
            "model": model,
            "num_labels": num_labels,
            "max_length": max_length,
            "prompts": prompts,
            "activation": activation,
        }
        parts = _parts(model, num_labels, max_length, tokenizer, trust_remote_code)
        super().__init__(parts.transformer, parts.tokenizer, parts.settings, parts.run, prompts, options)
        self.activation = _activation(activation, parts.activation, self.num_labels)
        if self.transformer.config.pad_token_id is None:  # causal models find the last token by it
            self.transformer.config.pad_token_id = self.tokenizer.base.pad_token_id

    @property
    def num_labels(self) -> int:
        """How many numbers it gives per pair."""
        return self.transformer.config.num_labels or 1

    @property
    def classes(self) -> tuple[str, ...]:
        """What its outputs are called, in their order; empty where nobody has said."""
        names = tuple(self.transformer.config.id2label.values())
        return () if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else names

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        if len(names) != self.num_labels:
            raise ModelError(
                "the classes of the cross-encoder",
                expected=f"a name for each of its {self.num_labels} outputs",
                got=", ".join(names),
                fix="give the encoder num_labels as many as there are classes",
            )
        config = self.transformer.config
        config.id2label, config.label2id = dict(enumerate(names)), {name: place for place, name in enumerate(names)}

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Raw scores, [n] or [n, classes].

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "input_ids".
        """
        parts = requested_parts(features, needs, self.padding)
        logits: Tensor = self._called(features).logits
        return Output(logits.squeeze(-1) if self.num_labels == 1 else logits, parts=parts)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a sentence-transformers `CrossEncoder`; None for anything else."""
        return CrossEncoderView.adapt(model)

    def _checked(self, texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return check_pairs(texts)

    def _tokens(self, items: Sequence[tuple[str, str]], prompt: str) -> dict[str, Tensor]:
        """Pairs, each query after the prompt."""
        return self.tokenizer([prompt + query for query, _ in items], [document for _, document in items])

    def _results(self, record: Output) -> Sequence[Tensor]:
        """Scores after the activation."""
        assert record.embedding is not None
        scores: Tensor = self.activation(record.embedding.float())
        return scores.cpu().unbind()

    def _collected(self, results: Sequence[Tensor]) -> NDArray[np.float32]:
        """[n], or [n, classes]."""
        return stacked(results, () if self.num_labels == 1 else (self.num_labels,))

    def _own_settings(self) -> tuple[str, Mapping[str, Any]]:
        return "CrossEncoder", {"activation_fn": name_of_activation(self.activation)}


def _parts(
    model: str | Path | PreTrainedModel,
    num_labels: int | None,
    max_length: int | None,
    tokenizer: PreTrainedTokenizerBase | None,
    trust_remote_code: bool,
) -> _Parts:
    if not isinstance(model, nn.Module):
        refuse_tokenizer(tokenizer)
        return _read_parts(locate(model, code=trust_remote_code), num_labels, max_length, trust_remote_code)
    if num_labels not in (None, model.config.num_labels):
        raise RecipeError("num_labels", expected=f"the model's {model.config.num_labels}", got=str(num_labels))
    own = Tokenizer(copy.deepcopy(require_tokenizer(tokenizer)), max_length)
    return _Parts(model, own, Settings("CrossEncoder"), RUN, None)


def _read_parts(folder: Path, num_labels: int | None, max_length: int | None, trust_remote_code: bool) -> _Parts:
    settings = Settings.read(folder, "CrossEncoder", ("activation_fn", "keep_in_fp32_modules"), {})
    if settings.own["keep_in_fp32_modules"]:
        raise ModelError(
            f"'keep_in_fp32_modules' in {folder / 'config_sentence_transformers.json'}",
            expected="none",
            got=repr(settings.own["keep_in_fp32_modules"]),
            fix="open it with sentence-transformers and give that object to losskit as the model",
        )
    stages = read_stages(folder, ("Transformer",))
    home = folder if stages is None else stages[0].folder
    config = read_config(home, trust_remote_code)
    _set_labels(config, num_labels, folder)
    activation = _saved_activation(settings, config, folder)
    run = RUN if stages is None else RUN.read(home)
    tokenizer = Tokenizer.read(home, config, run, max_length, trust_remote_code)
    transformer = _read_classifier(home, config, trust_remote_code)
    return _Parts(transformer, tokenizer, settings, run, activation)


def _is_classifier(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _set_labels(config: PretrainedConfig, num_labels: int | None, folder: Path) -> None:
    """Settle how many labels there are; a trained classifier has its own number."""
    if num_labels is not None and num_labels < 1:
        raise RecipeError("num_labels", expected="1 or more", got=str(num_labels))
    if not _is_classifier(config):
        config.num_labels = num_labels or 1
    elif num_labels not in (None, config.num_labels):
        raise ModelError(
            str(folder),
            expected=f"a classifier with {num_labels} labels",
            got=f"one with {config.num_labels}",
            fix="leave num_labels out, or start from a model without a classifier",
        )


def _read_classifier(folder: Path, config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """The transformer; where the folder has no classifier, one starts at random."""
    fresh = not _is_classifier(config)

    def may_be_new(model: PreTrainedModel, name: str) -> bool:
        return fresh and (not name.startswith(f"{model.base_model_prefix}.") or is_pooler(model, name))

    return read_transformer(folder, AutoModelForSequenceClassification, config, trust_remote_code, may_be_new)


def _saved_activation(settings: Settings, config: PretrainedConfig, folder: Path) -> nn.Module | None:
    """What the folder applies to scores: said with the model, or by folders before 5.4 in config.json."""
    older = getattr(config, "sentence_transformers", None) or {}
    name = (
        settings.own["activation_fn"]
        or older.get("activation_fn")
        or getattr(config, "sbert_ce_default_activation_function", None)
    )
    return None if name is None else activation_from(name, str(folder))


def _activation(chosen: str | None, saved: nn.Module | None, num_labels: int) -> nn.Module:
    if chosen is not None:
        if chosen not in ACTIVATIONS:
            raise RecipeError("activation", expected=f"one of {', '.join(ACTIVATIONS)}", got=repr(chosen))
        return ACTIVATIONS[chosen]()
    return saved or (nn.Sigmoid() if num_labels == 1 else nn.Identity())
