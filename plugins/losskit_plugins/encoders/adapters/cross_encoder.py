"""`CrossEncoder` objects as encoders of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from losskit.output import Output
from losskit.protocols import Features

from ..backbone import requested_parts
from ..inference import check_pairs, evaluating
from .view import View

__all__ = ["CrossEncoderView"]


class CrossEncoderView(View):
    """A sentence-transformers `CrossEncoder` object seen as an encoder of pairs."""

    class_name = "CrossEncoder"
    family = "cross-encoder"
    similarity = ""
    dimension = None
    normalized = False

    @property
    def num_labels(self) -> int:
        """How many numbers it gives per pair."""
        return int(self.model.num_labels)

    def preprocess(
        self, texts: Sequence[tuple[str, str]], *, role: str = "text", prompt: str | None = None
    ) -> Features:
        """Tokenise n (query, document) pairs as the object does."""
        return dict(self.model.preprocess(check_pairs(texts), prompt=self._prompt(role, prompt)))

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Score by calling the object on a copy of the features, which it changes: raw scores."""
        parts = requested_parts(features, needs, self.padding)
        scores: Tensor = self.model(dict(features))["scores"]
        return Output(scores.squeeze(-1) if self.num_labels == 1 and scores.ndim > 1 else scores, parts=parts)

    def encode(
        self,
        texts: Sequence[tuple[str, str]],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Scores [n] or [n, classes] of n pairs, as the object's own predict gives them."""
        with evaluating(self.model):
            scores = self.model.predict(
                check_pairs(texts),
                prompt=self._prompt(role, prompt),
                batch_size=batch_size,
                show_progress_bar=progress,
            )
        return np.asarray(scores, dtype=np.float32)
