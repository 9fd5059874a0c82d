"""A player: the model of a plain loss, which returns records that were made before instead of encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LossError
from ..output import Output
from .playing import Feed, Playing, place_of, scores_of

__all__ = ["Guide", "Player"]

WORDS = 60
"""How many tokens the toy encoders know."""
KEYS = {
    "backbone": "sentence_embedding_backbone",
    "decoded_k": "decoded_embedding_k",
    "decoded_4k": "decoded_embedding_4k",
    "decoded_aux": "decoded_embedding_aux",
    "decoded_k_pre_bias": "decoded_embedding_k_pre_bias",
}
"""What plain losses call the parts of a record."""


class Tokenized(dict[str, Tensor]):
    """Features that a tokenizer returns, which can be moved as a whole."""

    def to(self, device: torch.device) -> Tokenized:
        """The same on another device."""
        return Tokenized({key: value.to(device) for key, value in self.items()})


class Scored(dict[Any, Tensor]):
    """Scores of pairs by the names that newer and older losses read: `scores`, `logits`, and the first entry."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__({"scores": scores, "logits": scores, 0: scores})
        self.scores = self.logits = scores


class Player(nn.Module):
    """A model, as losses in the style of sentence-transformers know it, without parameters to train.

    Args:
        family: of encoders.
        dimension: of the embeddings.
        outputs: how many scores a cross-encoder gives per pair.
        poses: a class that `isinstance` takes it for, as some losses ask for a type.
    """

    max_seq_length = 64

    def __init__(self, family: str, dimension: int, outputs: int = 1, poses: type | None = None) -> None:
        super().__init__()
        self.family, self.dimension, self.num_labels, self.poses = family, dimension, outputs, poses
        self.feed = Feed()
        self.config = SimpleNamespace(num_labels=outputs, hidden_size=dimension)
        self.activation_fn = nn.Identity()
        self.similarity_fn_name: str | None = None
        self.prompts: dict[str, str] = {}

    @property
    def __class__(self) -> type:
        return self.__dict__.get("poses") or Player

    @__class__.setter
    def __class__(self, cls: type) -> None:
        raise TypeError("the class of a player is not changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return Player, (self.family, self.dimension, self.num_labels, self.poses), self.__dict__

    @contextmanager
    def plays(self, playing: Playing) -> Iterator[None]:
        """Return these records in here."""
        before, self.feed.playing = self.feed.playing, playing
        try:
            yield
        finally:
            self.feed.playing = before

    @property
    def playing(self) -> Playing:
        """What is played just now.

        Raises:
            LossError: the model is called when there is no batch.
        """
        if self.feed.playing is None:
            raise LossError("the model", expected="calls within the forward of the loss", got="a call at another time")
        return self.feed.playing

    # What losses ask of a model

    @property
    def device(self) -> torch.device:
        """That of the records."""
        return torch.device("cpu") if self.feed.playing is None else self.feed.playing.columns[0].tensors()[0].device

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """One in float32, by which some losses tell device and type; no training sees it."""
        yield nn.Parameter(torch.zeros(1, dtype=torch.float32, device=self.device))

    def __getitem__(self, index: int) -> Player:
        return self

    def get_embedding_dimension(self) -> int:
        """The width of embeddings."""
        return self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    @property
    def tokenizer(self) -> Any:
        """Of pairs for a cross-encoder; else of a vocabulary that texts are never looked up in."""
        return self.preprocess if self.family == "cross-encoder" else _tokenizer()

    def preprocess(self, pairs: Sequence[Any], documents: Sequence[str] | None = None, **_: Any) -> Tokenized:
        """Places of the query and the document of each pair; or of two columns beside each other."""
        texts = pairs if documents is None else list(zip(pairs, documents, strict=True))
        places = [[place_of(query), place_of(document)] for query, document in texts]
        ids = torch.tensor(places, device=self.device).view(-1, 2)
        return Tokenized(input_ids=ids, attention_mask=torch.ones_like(ids))

    def forward(self, features: dict[str, Any] | None = None, **further: Any) -> dict[Any, Any]:
        """The records of some items, or the scores of some pairs."""
        features = {**(features or {}), **further}
        playing = self.playing
        self.feed.without_gradients |= not torch.is_grad_enabled()
        if self.family == "cross-encoder":
            scores = scores_of(playing.columns[0], *features["input_ids"].unbind(1))
            return Scored(scores[:, None] if scores.ndim == 1 else scores)
        record = playing.joined.map(lambda tensor: tensor.index_select(0, features["input_ids"][:, 0]))
        return {**features, **_returned(record, features["attention_mask"].shape[1])}


def _returned(record: Output, width: int) -> dict[str, Tensor]:
    """What a model returns, tokens padded or cut to a width beyond which there are none."""
    assert record.embedding is not None
    if record.mask is not None:
        return {
            "token_embeddings": _fitted(record.embedding, width),
            "attention_mask": _fitted(record.mask, width).long(),
        }
    parts = {KEYS[name]: part for name, part in record.parts.items() if name in KEYS and isinstance(part, Tensor)}
    return {"sentence_embedding": record.embedding, **parts}


def _fitted(tensor: Tensor, width: int) -> Tensor:
    missing = max(0, width - tensor.shape[1])
    return torch.cat([tensor[:, :width], tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))], 1)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0} | {f"word{number}": number + 1 for number in range(WORDS)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")  # type: ignore[no-untyped-call]


class Guide(nn.Module):
    """A frozen model beside the one that is trained: embeds the words of texts, and knows nothing of the records.

    Args:
        dimension: of its embeddings.
        like: the player, whose tokenizer it has.
    """

    max_seq_length = Player.max_seq_length

    def __init__(self, dimension: int, like: Player) -> None:
        super().__init__()
        self.tokenizer = like.tokenizer
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(WORDS, dimension, generator=generator, dtype=torch.float64)
        self.register_buffer("table", drawn, persistent=False)
        self.table: Tensor

    def get_embedding_dimension(self) -> int:
        """The width of embeddings."""
        return int(self.table.shape[1])

    get_sentence_embedding_dimension = get_embedding_dimension

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The mean of the words' vectors."""
        words, mask = features.get("words", features["input_ids"]), features["attention_mask"]
        vectors = self.table[words % WORDS] * mask[..., None]
        return {**features, "sentence_embedding": vectors.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)}
