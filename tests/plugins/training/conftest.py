"""A tiny encoder, and what trains it in a moment."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from losskit import Output
from losskit.batch import preprocess

WORDS = 64


class TinyEncoder(nn.Module):
    """Words by a stable hash, embedded, dropped out, averaged."""

    family = "dense"
    similarity = "cosine"
    dimension = 8
    normalized = False

    def __init__(self, dropout: float = 0.0, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.words = nn.Embedding(
            WORDS, self.dimension, _weight=torch.randn(WORDS, self.dimension, generator=generator)
        )
        self.dropout = nn.Dropout(dropout)

    def preprocess(self, texts, *, role="text", prompt=None):
        rows = [[sum(map(ord, word)) % WORDS for word in text.split()] for text in texts]
        width = max(map(len, rows))
        return {
            "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }

    def forward(self, features, needs=()):
        mask = features["attention_mask"].unsqueeze(-1).float()
        return Output((self.dropout(self.words(features["input_ids"])) * mask).sum(1) / mask.sum(1))

    @torch.no_grad()
    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        return self(self.preprocess(texts)).embedding.numpy()

    def save(self, path):
        save_file(self.state_dict(), Path(path) / "model.safetensors")

    @classmethod
    def load(cls, path):
        encoder = cls()
        encoder.load_state_dict(load_file(Path(path) / "model.safetensors"))
        return encoder

    @classmethod
    def adapt(cls, model):
        return None


class Collate:
    """Rows of an anchor and a positive to what a loss takes."""

    def __init__(self, loss, names=("anchor", "positive")):
        self.loss, self.names = loss, names

    def __call__(self, rows):
        columns = [[row[name] for row in rows] for name in self.names]
        return {"inputs": preprocess(self.loss, columns, inputs=self.names)}


@pytest.fixture
def encoder():
    return TinyEncoder()


@pytest.fixture
def make_encoder():
    return TinyEncoder


@pytest.fixture
def collate():
    return Collate


@pytest.fixture
def pairs():
    return [{"anchor": f"a{i} x{i % 5}", "positive": f"b{i} y{i % 5} z"} for i in range(37)]
