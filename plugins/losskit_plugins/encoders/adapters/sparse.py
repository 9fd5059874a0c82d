"""`SparseEncoder` objects as sparse encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from scipy.sparse import csr_array
from torch import Tensor

from losskit.errors import LossError
from losskit.modes import in_evaluation
from losskit.output import Output
from losskit.protocols import Encoder, Features

from ..auto_encoder import count_active
from ..inference import check_texts
from .vectors import VectorView
from .view import loaded

__all__ = ["SparseEncoderView"]


class SparseEncoderView(VectorView):
    """A `SparseEncoder` object seen as a sparse encoder: terms, terms without inference for queries, or codes.

    An auto-encoder counts in every forward of a training how many of them ago each latent was last active. Seen as
    this, it does so in `count_active` alone, once per step; so replaying a forward changes nothing.
    """

    class_name = "SparseEncoder"
    family = "sparse"
    keys: ClassVar[Mapping[str, str]] = {
        "backbone": "sentence_embedding_backbone",
        "decoded_k": "decoded_embedding_k",
        "decoded_4k": "decoded_embedding_4k",
        "decoded_aux": "decoded_embedding_aux",
        "decoded_k_pre_bias": "decoded_embedding_k_pre_bias",
    }

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.auto_encoder = self._module("sparse_auto_encoder", "SparseAutoEncoder")

    @classmethod
    def of(cls, model: Any) -> Encoder:
        """A view.

        Raises:
            LossError: an auto-encoder with fewer latents than its forward takes in training, four times k.
        """
        view = cls(model)
        code = view.auto_encoder
        if code is not None and 4 * code.k > code.hidden_dim:
            raise LossError(
                "k of the SparseAutoEncoder", expected=f"at most a quarter of its {code.hidden_dim} latents",
                got=str(code.k), fix="lower k, or raise hidden_dim",
            )  # fmt: skip
        return view

    @property
    def dimension(self) -> int | None:
        """How many terms or latents there are."""
        if self._module("splade_pooling", "SpladePooling") is None or self.transformer is None:
            width: int | None = self.model.get_embedding_dimension()
            return width
        # The object itself says how wide its transformer is, until it has encoded something.
        return int(self.transformer.config.get_text_config().vocab_size)

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed by calling the object on a copy of the features, which it changes; its counts stay as they are.

        Raises:
            LossError: reconstructions, or layers, that its modules do not give.
        """
        self._check(needs)
        with in_evaluation(self.auto_encoder):
            return super().__call__(features, needs)

    def count_active(self, embeddings: Sequence[Tensor]) -> None:
        """Count a step of a training which gave these codes, each [n, latents]."""
        count_active(self.auto_encoder.stats_last_nonzero, embeddings)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> csr_array:
        """Sparse vectors [n, d] of n texts, as the object's own encode gives them."""
        texts = check_texts(texts)
        if not texts:
            return csr_array((0, self.dimension or 0), dtype="float32")
        with torch.inference_mode():  # sparse tensors made in this mode cannot be read outside it
            found = self._encoded(texts, role, prompt, batch_size, progress, save_to_cpu=True).coalesce()
            places = tuple(found.indices().numpy())
            return csr_array((found.values().float().numpy(), places), shape=tuple(found.shape))

    def _module(self, file: str, name: str) -> Any:
        kind = loaded(f"sentence_transformers.sparse_encoder.modules.{file}", name)
        return next((module for module in self.model.modules() if isinstance(module, kind)), None)

    def _check(self, needs: Sequence[str]) -> None:
        needed = next((need for need in needs if need == "layers" or need in self.keys), None)
        if needed is not None and self.auto_encoder is None:
            raise LossError(
                f"{needed} of the SparseEncoder", expected="a SparseAutoEncoder among its modules",
                got=", ".join(type(module).__name__ for module in self.model),
            )  # fmt: skip
