"""Small dense encoders: one keeps every law, the others miss one each."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit import Card, Encoder, LossError, Output
from losskit.protocols import Features

WORDS = 50


class BagOfWords(nn.Module):
    """A layer over the mean of the vectors of a text's words.

    Args:
        width: of the embeddings.
        power: what a text's length is raised to before it divides.
    """

    card = Card(encoders=["dense"])
    family = "dense"
    similarity = "cosine"
    normalized = False

    def __init__(self, width: int = 6, power: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.power = power
        self.words = nn.Embedding(WORDS, width)
        self.layer = nn.Linear(width, width)

    @property
    def dimension(self) -> int:
        """The width of its embeddings."""
        return self.width

    def preprocess(self, texts: Sequence[Any], *, role: str = "text", prompt: str | None = None) -> Features:
        """The words of texts, padded to the longest."""
        rows = [[1 + crc32(word.encode()) % (WORDS - 1) for word in f"{prompt or ''}{text}".split()] for text in texts]
        longest = max([1, *map(len, rows)])
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long).view(-1, longest)
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Encode n texts."""
        if needs:
            raise LossError("BagOfWords", expected="no needs beyond embeddings", got=", ".join(needs))
        return Output(self.layer(self.pooled(self.words(features["input_ids"]), features["attention_mask"])))

    def pooled(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """The mean of the words of each text."""
        lengths = mask.sum(1, keepdim=True).clamp(min=1).to(vectors.dtype)
        return (vectors * mask[..., None]).sum(1) / lengths**self.power

    def encode(
        self,
        texts: Sequence[Any],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Any:
        """An array."""
        starts = range(0, max(1, len(texts)), batch_size)
        pieces = [self.preprocess(texts[start : start + batch_size], role=role, prompt=prompt) for start in starts]
        with torch.no_grad():
            return torch.cat([self.embedded(piece) for piece in pieces]).numpy()

    def embedded(self, features: Features) -> Tensor:
        """The embeddings of a batch."""
        embedding = self(features).embedding
        assert isinstance(embedding, Tensor)
        return embedding

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"width": self.width, "power": self.power}

    def save(self, path: str | Path) -> None:
        """Write options and weights into a folder."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.saved()), encoding="utf-8")
        save_file(self.state_dict(), folder / "model.safetensors")

    def saved(self) -> dict[str, Any]:
        """The options that a folder holds."""
        return {"width": self.width, "power": self.power}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote."""
        folder = Path(path)
        made = cls(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
        made.load_state_dict(load_file(folder / "model.safetensors"))
        return made

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """It adopts nothing foreign."""
        return None


class CountsPadding(BagOfWords):
    """A layer over the mean of the vectors of a text's words, and of its padding."""

    def pooled(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return vectors.mean(1)


class CentersBatch(BagOfWords):
    """A layer over the mean of the vectors of a text's words, less that of the batch."""

    def pooled(self, vectors: Tensor, mask: Tensor) -> Tensor:
        pooled = super().pooled(vectors, mask)
        return pooled - pooled.mean(0) / 10


class SavesHalf(BagOfWords):
    """A layer over the mean of the vectors of a text's words: its folder does not hold the power.

    Args:
        width: of the embeddings.
        power: what a text's length is raised to before it divides.
    """

    def __init__(self, width: int = 6, power: float = 1.0) -> None:
        super().__init__(width, power)

    cases = [{"power": 0.5}]  # noqa: RUF012 - read as a plain list

    def saved(self) -> dict[str, Any]:
        return {"width": self.width}


class ForgetsPower(BagOfWords):
    """A layer over the mean of the vectors of a text's words: its configuration does not hold the power."""

    cases = [{"power": 0.5}]  # noqa: RUF012 - read as a plain list

    def get_config_dict(self) -> dict[str, Any]:
        return {"width": self.width}


class AdoptsAll(BagOfWords):
    """A layer over the mean of the vectors of a text's words: takes any module for one of its own."""

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        return cls() if isinstance(model, nn.Module) else None


class DetachesWords(BagOfWords):
    """A layer over the mean of the vectors of a text's words: which learn nothing."""

    def pooled(self, vectors: Tensor, mask: Tensor) -> Tensor:
        return super().pooled(vectors.detach(), mask)


class StaysInEval(BagOfWords):
    """A layer over the mean of the vectors of a text's words: encoding ends its training."""

    def embedded(self, features: Features) -> Tensor:
        self.eval()
        return super().embedded(features)


class DropsPrompt(BagOfWords):
    """A layer over the mean of the vectors of a text's words: encodes without the prompt."""

    def encode(self, texts: Sequence[Any], *, prompt: str | None = None, **options: Any) -> Any:
        return super().encode(texts, **options)


class SortsTexts(BagOfWords):
    """A layer over the mean of the vectors of a text's words: returns them in the order of their lengths."""

    def encode(self, texts: Sequence[Any], **options: Any) -> Any:
        return super().encode(sorted(texts, key=len), **options)


class MisstatesWidth(BagOfWords):
    """A layer over the mean of the vectors of a text's words: says that it is wider than it is."""

    @property
    def dimension(self) -> int:
        return self.width + 1


class ClaimsUnitLength(BagOfWords):
    """A layer over the mean of the vectors of a text's words: says that its embeddings have length 1."""

    normalized = True


class HoldsGenerator(BagOfWords):
    """A layer over the mean of the vectors of a text's words: holds what no process can be sent."""

    def __init__(self, width: int = 6, power: float = 1.0) -> None:
        super().__init__(width, power)
        self.numbers = (random.Random(each) for each in range(3))


class LacksSave(BagOfWords):
    """A layer over the mean of the vectors of a text's words: cannot be saved."""

    save = None  # type: ignore[assignment]
