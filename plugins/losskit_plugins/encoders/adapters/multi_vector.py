"""`MultiVectorEncoder` objects as encoders of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from losskit.output import Output
from losskit.protocols import Features

from ..backbone import requested_parts
from ..inference import check_texts
from .view import TextView, task_of

__all__ = ["SIMILARITIES", "MultiVectorEncoderView"]

SIMILARITIES = {"maxsim": "maxsim", "meanmaxsim": "mean-maxsim"}
"""By the names that objects and folders of sentence-transformers have for them."""


class MultiVectorEncoderView(TextView):
    """A `MultiVectorEncoder` object seen as an encoder of tokens.

    Which tokens count, and in which role, it is told by the entry `task` of the features.
    """

    class_name = "MultiVectorEncoder"
    family = "multi-vector"

    @property
    def similarity(self) -> str:
        """What its token vectors are compared by."""
        return SIMILARITIES[self.model.similarity_fn_name]

    @property
    def dimension(self) -> int | None:
        """The width of a token's vector."""
        width: int | None = self.model.get_embedding_dimension()
        return width

    def __call__(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed tokens by calling the object on a copy of the features, which it changes."""
        parts = requested_parts(features, needs, self.padding)
        made = self.model(dict(features), task=features.get("task"))
        mask = made["attention_mask"].bool()
        return Output(made["token_embeddings"].masked_fill(~mask[..., None], 0), mask, parts=parts)

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts as the object does, with the prompt of their role, and note the role as their task."""
        features = super().preprocess(texts, role=role, prompt=prompt)
        return features | task_of(role)

    def lengths(self, features: Features) -> list[int]:
        """How many positions of each text count: those of an expanded query do, though nothing attends to them."""
        counts = features["attention_mask"].bool()
        if "query_expansion_positions" in features:
            counts = counts | features["query_expansion_positions"].bool()
        places = torch.arange(1, counts.shape[1] + 1, device=counts.device)
        lengths: list[int] = (counts * places).amax(1).tolist()
        return lengths

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[NDArray[np.float32]]:
        """The vectors [tokens, d] of each of n texts, as the object's own encode gives them."""
        found = self._encoded(check_texts(texts), role, prompt, batch_size, progress, convert_to_numpy=True)
        return [np.asarray(each, dtype=np.float32) for each in found]
