"""The CSR encoder: dense embeddings coded by a few of many latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from losskit.card import Card
from losskit.errors import ModelError, RecipeError
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .adapters import SparseEncoderView
from .auto_encoder import RECONSTRUCTIONS, SparseAutoEncoder
from .backbone import last_hidden_state, requested_parts
from .dense_parts import DENSE, FolderForm, gather_parts
from .layout import Stage
from .sparse_transformer import SETTINGS, SparseTransformerEncoder
from .transformer_encoder import Module
from .vector_head import VectorHead

__all__ = ["CSREncoder"]

CSR = FolderForm("SparseEncoder", SETTINGS, SparseAutoEncoder.kind)


class CSREncoder(SparseTransformerEncoder):
    """Sparse codes of dense embeddings: a dense encoder, and a sparse auto-encoder that keeps the largest k latents.

    Options that are None are what the model folder says.

    Args:
        model: a folder (of sentence-transformers or transformers), a name of the Hugging Face hub, or a
            transformers model. All but a csr folder get a new auto-encoder.
        hidden_dim: number of latents; of a new auto-encoder 4 d, for embeddings of width d.
        k: how many latents are kept in training; of a new auto-encoder d / 4.
        k_aux: how many dead latents learn what the others leave over; of a new auto-encoder d / 2; 0: none.
        normalize: code embeddings of mean 0 and deviation 1; of a new auto-encoder false.
        dead_threshold: a latent is dead that no text of more training steps than this has used; of a new one 30.
        train_backbone: whether the dense encoder is trained too; a frozen one has no dropout.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        max_length: the most tokens of a text.
        similarity: what the codes are meant to be compared by; "dot" where the folder is silent.
        max_active_dims: how many latents `encode` keeps; as many as a given k, or k where the folder is silent.
        tokenizer: of a transformers model given as `model`; copied.
        trust_remote_code: run code that the model folder brings.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.
        RecipeError: impossible numbers, or others than the folder's weights have.
    """

    card = Card(
        encoders=["sparse"],
        formula="z = top_k(relu(W (x - b) + c)), x = dense(text), decoded as W^T z + b",
        citation="""@misc{wen2025matryoshkarevisitingsparsecoding,
  title = {Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation},
  author = {Wen, Tiansheng and Wang, Yifei and Zeng, Zequn and others},
  year = {2025},
  eprint = {2503.01776},
  archivePrefix = {arXiv}
}""",
        recommends=["csr"],
    )

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        hidden_dim: int | None = None,
        k: int | None = None,
        k_aux: int | None = None,
        normalize: bool | None = None,
        dead_threshold: int | None = None,
        train_backbone: bool = True,
        prompts: Mapping[str, str] | None = None,
        max_length: int | None = None,
        similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None,
        max_active_dims: int | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        sizes = {
            "hidden_dim": hidden_dim,
            "k": k,
            "k_aux": k_aux,
            "normalize": normalize,
            "dead_threshold": dead_threshold,
        }
        options = {
            "model": model,
            **sizes,
            "train_backbone": train_backbone,
            "prompts": prompts,
            "max_length": max_length,
            "similarity": similarity,
            "max_active_dims": max_active_dims,
        }
        parts = gather_parts(model, tokenizer, max_length, None, trust_remote_code, (DENSE, CSR))
        weight = next(parts.transformer.parameters())
        head = VectorHead(parts.before, parts.pooling, parts.after, weight)
        auto_encoder = _auto_encoder(parts.last, head.dimension, sizes).to(weight.device, weight.dtype)
        super().__init__(
            parts.transformer,
            parts.tokenizer,
            parts.settings,
            parts.run,
            auto_encoder.hidden_dim,
            prompts,
            similarity,
            k if max_active_dims is None else max_active_dims,
            options,
        )
        self.head, self.auto_encoder, self.train_backbone = head, auto_encoder, train_backbone
        if self.max_active_dims is None:
            self.max_active_dims = auto_encoder.k
        if not train_backbone:
            for part in (self.transformer, self.head):
                part.requires_grad_(False).eval()

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Code n texts.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: "input_ids"; "backbone", the dense embeddings; "decoded_k" and "decoded_4k", what the k and the 4 k
                largest latents decode to; "decoded_k_pre_bias", that of k without the bias; "decoded_aux", what the
                largest dead latents decode to. [n, d] each.
        """
        return self._coded(features, needs, self.auto_encoder.k)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in that of evaluation."""
        super().train(mode)
        if not self.train_backbone:
            self.transformer.eval()
            self.head.eval()
        return self

    def count_active(self, embeddings: Sequence[Tensor]) -> None:
        """Note which latents are active in the codes of a training step, all columns of it."""
        self.auto_encoder.count_active(embeddings)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """A view of a `SparseEncoder`; None for anything else."""
        return SparseEncoderView.adapt(model)

    def _coded(self, features: Features, needs: Sequence[str], k: int) -> Output:
        parts = requested_parts(features, [need for need in needs if need not in RECONSTRUCTIONS], self.padding)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_backbone):
            tokens = last_hidden_state(self._called(features), self.transformer)
            vectors = self.head(tokens, features)
        codes, reconstructions = self.auto_encoder(vectors, needs, k)
        return Output(codes, parts={**parts, **reconstructions})

    def _inferred(self, features: Features) -> Output:
        assert self.max_active_dims is not None
        return self._coded(features, (), self.max_active_dims)

    def _about_prompt(self, count: int, prompt: str) -> Features:
        return self.head.prompt_features(count, self.tokenizer, prompt)

    def _modules_after(self) -> Sequence[Module]:
        return [*self.head.modules_after(), (self.auto_encoder.kind, self.auto_encoder.write)]


def _auto_encoder(stage: Stage | None, width: int, sizes: Mapping[str, Any]) -> SparseAutoEncoder:
    """That of a folder, or a new one for vectors of a width."""
    if stage is None:
        new = {"hidden_dim": 4 * width, "k": max(1, width // 4), "k_aux": width // 2}
        return SparseAutoEncoder(width, **new | {name: value for name, value in sizes.items() if value is not None})
    config = stage.config()
    for name in ("hidden_dim", "normalize"):
        if sizes[name] is not None and sizes[name] != config.get(name):
            raise RecipeError(name, expected=f"{config.get(name)} of the folder's auto-encoder", got=repr(sizes[name]))
    made = SparseAutoEncoder.read(stage, **sizes)
    if made.input_dim != width:
        expected = f"a {made.kind} of vectors of width {width}, as those before it are"
        raise ModelError(str(stage.folder), expected=expected, got=f"one of width {made.input_dim}")
    return made
