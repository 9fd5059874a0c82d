"""Every built-in loss under every built-in wrapper and every execution: the list that tests and documentation read.

Losses and wrappers come from the registry, so a new one is in the list at once. It needs a line in `SETTINGS` if it
has required options, in `MODELS` if the toy encoder is not enough for it, and in `REFUSED` for every wrapper that does
not go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import losskit
from losskit import Direct, Execution, GradCache, Loss
from losskit.clock import Clock
from losskit.testing import Batch, ToyEncoder, random_batch
from losskit.testing.batches import CLASSES

__all__ = ["COMBINATIONS", "EXECUTIONS", "LOSSES", "WRAPPERS", "Combination", "combination"]

WIDTH = 8
EXECUTIONS: Mapping[str, Execution] = {
    "direct": Direct(),
    "direct, by tokens": Direct(tokens=24),
    "direct, in slices of rows": Direct(rows=2),
    "grad-cache": GradCache(mini_batch_size=4),
    "grad-cache, by tokens": GradCache(mini_batch_tokens=24),
    "gather": Direct(gather=True),
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "adaptive-layer": {"layers_per_step": -1},
    "gist": {"guide": ToyEncoder("dense", 5, seed=1)},
    "matryoshka": {"dims": [WIDTH, 5, 2]},
    "matryoshka-2d": {"dims": [WIDTH, 5, 2], "layers_per_step": -1, "dims_per_step": 2},
    "softmax": {"num_labels": 3},
    "splade": {"document_regularizer_weight": 0.5, "query_regularizer_weight": 0.3, "joint_regularizer_weight": 0.2},
    "weighted-sum": {"weights": {"only": 0.5}},
}
OWN_WIDTH = "its parameters have the width of the encoder's embeddings, so these cannot be cut"
NO_EMBEDDINGS = "it classifies pairs by a cross-encoder, which has no embeddings"
NO_FAMILY = "no family of encoders suits both"
RECONSTRUCTS = "it has the terms that the wrapper adds"
SINGLE = "the encoder reads single texts for it, of which none are queries"
REFUSED: Mapping[tuple[str, str], str] = {
    ("batch-all-triplet", "splade"): SINGLE,
    ("batch-hard-soft-margin-triplet", "splade"): SINGLE,
    ("batch-hard-triplet", "splade"): SINGLE,
    ("batch-semi-hard-triplet", "splade"): SINGLE,
    ("contrastive-tension", "splade"): SINGLE,
    ("contrastive-tension-in-batch-negatives", "splade"): SINGLE,
    ("cross-entropy", "adaptive-layer"): NO_EMBEDDINGS,
    ("cross-entropy", "csr"): NO_FAMILY,
    ("cross-entropy", "matryoshka"): NO_EMBEDDINGS,
    ("cross-entropy", "matryoshka-2d"): NO_EMBEDDINGS,
    ("cross-entropy", "splade"): NO_FAMILY,
    ("csr-reconstruction", "adaptive-layer"): NO_FAMILY,
    ("csr-reconstruction", "csr"): RECONSTRUCTS,
    ("csr-reconstruction", "matryoshka-2d"): NO_FAMILY,
    ("denoising-auto-encoder", "csr"): NO_FAMILY,
    ("denoising-auto-encoder", "matryoshka"): OWN_WIDTH,
    ("denoising-auto-encoder", "matryoshka-2d"): OWN_WIDTH,
    ("denoising-auto-encoder", "splade"): NO_FAMILY,
    ("softmax", "matryoshka"): OWN_WIDTH,
    ("softmax", "matryoshka-2d"): OWN_WIDTH,
}
ERRORS: Mapping[str, str] = {
    NO_EMBEDDINGS: "model: expected an encoder that is dense",
    NO_FAMILY: "model: expected an encoder that is ",
    RECONSTRUCTS: "which reconstructs too",
    SINGLE: "use_document_regularizer_only: expected True around a loss of single texts",
    OWN_WIDTH: "whose parameters or state have the encoder's width",
}
"""What the error says, for each reason."""


def tiny_bert() -> nn.Module:
    """A dense encoder around a transformer of two layers, in float64 and without dropout."""
    words = {"[PAD]": 0, "[UNK]": 1, **{f"word{number}": 2 + number for number in range(40)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder = losskit.get("encoder", "dense").load()
    made: nn.Module = encoder(BertModel(config, add_pooling_layer=False), pooling="mean", tokenizer=fast).double()
    return made


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "cross-entropy": lambda: ToyEncoder("cross-encoder", WIDTH, outputs=CLASSES),
    "denoising-auto-encoder": tiny_bert,
}


def names(kind: str) -> list[str]:
    """The built-in components of a kind."""
    return [spec.name for spec in losskit.find(kind, provider="losskit") if spec.kind == kind]


@dataclass(frozen=True)
class Combination:
    """A loss, alone or under a wrapper.

    Args:
        loss: its name.
        wrapper: its name; empty: none.
        refused: why building it raises; empty: it works.
    """

    loss: str
    wrapper: str = ""
    refused: str = ""

    def __str__(self) -> str:
        return f"{self.loss} under {self.wrapper}" if self.wrapper else self.loss

    @property
    def expression(self) -> dict[str, Any]:
        """What builds it."""
        inner = {"name": self.loss, **SETTINGS.get(self.loss, {})}
        if not self.wrapper:
            return inner
        options = {"name": self.wrapper, **SETTINGS.get(self.wrapper, {})}
        takes = {option.name for option in losskit.get("wrapper", self.wrapper).options}
        return options | ({"losses": {"only": inner}} if "losses" in takes else {"loss": inner})

    @property
    def family(self) -> str:
        """Of the encoder that it is tried on: dense if that is possible, the loss's own if nothing suits both."""
        name = self.wrapper or self.loss
        cards = [losskit.get("loss", self.loss).card, losskit.get("loss", name).card]
        shared = [family for family in cards[0].encoders if family in cards[1].encoders]
        return min(shared or cards[0].encoders, key=lambda family: family != "dense")

    @property
    def executions(self) -> Mapping[str, Execution]:
        """Those that it takes: a cross-encoder's pairs are formed before they are scored, so nothing is gathered."""
        pairs = self.family == "cross-encoder"
        return {name: execution for name, execution in EXECUTIONS.items() if not (pairs and execution.gather)}

    def build(self, execution: Execution | None = None) -> Loss:
        """It, on an encoder and with parameters of its own that are the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MODELS.get(self.loss, lambda: ToyEncoder(self.family, WIDTH))()
            loss: Loss = losskit.build(self.expression, model, execution=execution)
        loss.set_clock(Clock(step=1, progress=0.5))
        return loss

    def batches(self, loss: Loss, rows: int = 6) -> list[Batch]:
        """Data that it takes: under a wrapper of the first format, else of each, with 0, 1 and 3 negatives."""
        forms = loss.formats[:1] if self.wrapper else loss.formats
        made = []
        for form in forms:
            counts = {"*": (0, 1, 3), "+": (1, 2, 3)}.get(form.inputs[-1][-1], (1,))
            for count in counts[-2:-1] if self.wrapper and len(counts) > 1 else counts:
                made.append(random_batch(form, rows=rows, negatives=count, dimension=WIDTH))
        return made


def combination(loss: str, wrapper: str = "") -> Combination:
    """A row of the list."""
    return Combination(loss, wrapper, REFUSED.get((loss, wrapper), ""))


LOSSES = names("loss")
WRAPPERS = names("wrapper")
COMBINATIONS = [combination(loss, wrapper) for loss in LOSSES for wrapper in ("", *WRAPPERS)]
