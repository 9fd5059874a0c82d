"""The denoising auto-encoder (TSDAE)."""

from __future__ import annotations

from typing import Any

from torch import nn

from losskit_plugins.losses import denoising_auto_encoder

from ...base import Incumbent

__all__ = ["DenoisingAutoEncoderLoss"]


class DenoisingAutoEncoderLoss(Incumbent, denoising_auto_encoder.DenoisingAutoEncoderLoss):
    """`losskit.losses.DenoisingAutoEncoderLoss` under the incumbent's constructor; `decoder` is the module."""

    configuration = ("decoder_name_or_path", "need_retokenization")
    need_retokenization = False

    def __init__(self, model: Any, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True) -> None:
        super().__init__(model, None if tie_encoder_decoder else decoder_name_or_path, tie_encoder_decoder)

    @property
    def decoder(self) -> nn.Module:
        """The language model that restores texts."""
        return self.language_model

    @decoder.setter
    def decoder(self, decoder: nn.Module | str | None) -> None:
        if isinstance(decoder, nn.Module):  # else the native constructor keeps its option
            self.language_model = decoder

    @property
    def decoder_name_or_path(self) -> str:
        """Where the decoder's weights or configuration come from."""
        return self.language_model.config._name_or_path
