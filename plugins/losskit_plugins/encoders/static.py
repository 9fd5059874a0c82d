"""The static encoder: the mean of the vectors of a text's tokens, an embedding bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from losskit.card import Card
from losskit.errors import DataError
from losskit.features import move
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .backbone import requested_parts
from .bags import join_bags, lengths_of_bags, split_bags, take_bags
from .dense_parts import place_name
from .folder import replacing
from .head import Normalization, width_after, with_normalization
from .inference import check_texts, evaluating, in_batches
from .layout import Settings, write_stages
from .options import check_positive, own_number, vector_similarity
from .prompts import Prompts
from .static_parts import KIND, MODEL_TYPE, AnyTokenizer, gather_static_parts
from .transformer_encoder import stacked

__all__ = ["StaticEncoder"]


class StaticEncoder(nn.Module):
    """One vector per text, the mean of its tokens' vectors: an embedding bag, without a transformer.

    Options that are None are what the model folder says.

    Args:
        model: a folder of sentence-transformers with a StaticEmbedding, one of model2vec, any other folder with a
            transformer, whose word embeddings it begins with, a name of the Hugging Face hub, or the vectors
            [tokens, d].
        dimension: of new, random vectors for the tokens of the folder.
        normalize: whether vectors are scaled to unit length at the end.
        prompts: put before texts, by role ("query", "document") or any other name; added to the folder's.
        similarity: what the vectors are meant to be compared by; "cosine" where the folder is silent.
        truncate_dim: how many leading dimensions `encode` gives; `forward` gives all.
        tokenizer: of vectors given as `model`: a fast one, of transformers or tokenizers; copied.

    Raises:
        ModelError: the folder cannot be read, or holds what this encoder cannot honour.

    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> StaticEncoder(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), tokenizer=words).encode(["a", "a b"])
    array([[1., 2.],
           [2., 4.]], dtype=float32)
    """

    card = Card(
        encoders=["dense"],
        formula="mean over the tokens t of a text of E_t",
        citation="""@misc{aarsen2025static,
    title = {Train 400x faster Static Embedding Models with Sentence Transformers},
    author = {Aarsen, Tom},
    year = {2025},
    url = {https://huggingface.co/blog/static-embeddings}
}""",
    )
    family = "dense"
    max_length = None

    def __init__(
        self,
        model: str | Path | Tensor,
        dimension: int | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None,
        truncate_dim: int | None = None,
        *,
        tokenizer: AnyTokenizer | None = None,
    ) -> None:
        super().__init__()
        options = {
            "model": None if isinstance(model, Tensor) else str(model),
            "dimension": dimension,
            "normalize": normalize,
            "prompts": None if prompts is None else dict(prompts),
            "similarity": similarity,
            "truncate_dim": truncate_dim,
        }
        check_positive("dimension", dimension)
        self._options = {name: value for name, value in options.items() if value is not None}
        parts = gather_static_parts(model, tokenizer, dimension)
        settings = self._settings = parts.settings
        self._tokenizer = parts.tokenizer  # `tokenizer` would say that its features are those of a transformer
        self.prompts = Prompts({**settings.prompts.texts, **(prompts or {})}, settings.prompts.default)
        self.embedding = nn.EmbeddingBag.from_pretrained(parts.embedding, freeze=False, mode="mean")
        self.steps = nn.ModuleList(with_normalization(parts.steps, normalize))
        self.steps.to(parts.embedding.device, parts.embedding.dtype)
        self.similarity = vector_similarity(similarity, settings, default="cosine")
        self.truncate_dim = own_number("truncate_dim", truncate_dim, settings)
        self.dimension = width_after(self.steps, self.embedding.embedding_dim, "the embedding")

    @property
    def normalized(self) -> bool:
        """Whether the last step scales vectors to unit length."""
        return len(self.steps) > 0 and isinstance(self.steps[-1], Normalization)

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> Features:
        """Tokenise n texts, each after its prompt.

        Args:
            texts: n of them.
            role: "text", "query", "document", or the name of one of the prompts.
            prompt: instead of the role's; "" means none.

        Returns:
            The tokens of all texts in a row, `input_ids`, and where each begins, `offsets` [n].
        """
        before, texts = self.prompts.resolve(role, prompt), check_texts(texts)
        if not texts:
            raise DataError("a column of a batch", expected="at least one text", got="none")
        encoded = self._tokenizer.encode_batch_fast([before + text for text in texts], add_special_tokens=False)
        rows = [each.ids for each in encoded]
        starts = list(accumulate(map(len, rows[:-1]), initial=0))
        ids = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
        return {"input_ids": ids, "offsets": torch.tensor(starts)}

    def take(self, features: Features, rows: slice | Sequence[int]) -> Features:
        """Some texts."""
        return take_bags(features, rows)

    def join(self, features: Sequence[Features]) -> Features:
        """The texts of several features one after another."""
        return join_bags(features)

    def lengths(self, features: Features) -> list[int]:
        """How many tokens each text has."""
        return lengths_of_bags(features)

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Embed n texts; one without tokens is zeros.

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: none that there is.
        """
        parts = requested_parts(features, needs, {}, known=())
        vectors: Tensor = self.embedding(features["input_ids"], features["offsets"])
        for step in self.steps:
            vectors = step(vectors)
        return Output(vectors, parts=parts)

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Vectors [n, dimension], or [n, truncate_dim], of n texts, without gradients.

        Args:
            texts: n of them.
            role: "text", "query", "document", or the name of one of the prompts.
            prompt: instead of the role's; "" means none.
            batch_size: the most texts of a forward.
            progress: show a bar on stderr.
        """
        before = self.prompts.resolve(role, prompt)

        def run(batch: list[str]) -> Sequence[Tensor]:
            vectors = self(move(self.preprocess(batch, prompt=before), self.embedding.weight.device)).embedding
            found: Tensor = vectors[:, : self.truncate_dim].float().cpu()
            return found.unbind()

        with evaluating(self):
            results = in_batches(check_texts(texts), run, length=len, batch_size=batch_size, progress=progress)
        width = min(self.dimension, self.truncate_dim or self.dimension)
        vectors: NDArray[np.float32] = stacked(results, (width,))
        return vectors

    def decode(self, features: Features) -> list[str]:
        """The texts of features, as far as their tokens tell."""
        texts: list[str] = self._tokenizer.decode_batch([ids.tolist() for ids in split_bags(features)])
        return texts

    def get_config_dict(self) -> dict[str, Any] | None:
        """The options that it was made with; None where its vectors were given."""
        return dict(self._options) if "model" in self._options else None

    def save(self, path: str | Path) -> None:
        """Write a model folder that sentence-transformers opens; what is no part of a model there stays.

        Raises:
            ModelError: it cannot be written; then nothing has changed.
        """
        own: dict[str, Any] = {"similarity_fn_name": self.similarity}
        if self.truncate_dim is not None:
            own["truncate_dim"] = self.truncate_dim
        with replacing(path) as folder:
            weights = {"embedding.weight": self.embedding.weight.detach().cpu().contiguous()}
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
            self._tokenizer.save(str(folder / "tokenizer.json"))
            Settings(MODEL_TYPE, self.prompts, own, self._settings.other).write(folder)
            stages = write_stages(folder, [KIND, *(step.kind for step in self.steps)])
            for step, stage in zip(self.steps, stages[1:], strict=True):
                step.write(stage, values=place_name(tokens=False))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model folder.

        Raises:
            ModelError: it cannot be read, or holds what this encoder cannot honour.
        """
        return cls(path)

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """It adopts nothing: a `SentenceTransformer` of static embeddings is seen as a dense encoder."""
        return None
