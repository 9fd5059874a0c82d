"""The multilayer perceptron: scores rows of features, where there is no text to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from losskit.card import Card
from losskit.errors import DataError, ModelError, RecipeError, brief
from losskit.features import move
from losskit.output import Output
from losskit.protocols import Encoder, Features

from .backbone import requested_parts
from .folder import locate, read_json, replacing, require_safetensors, write_json
from .inference import evaluating, in_batches

__all__ = ["ACTIVATIONS", "MLPEncoder"]

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
CHUNK = 4096
"""Rows that are looked at together where the inputs are measured."""

Document = Sequence[float] | NDArray[np.floating[Any]]


class MLPEncoder(nn.Module):
    """One score for a row of features, as learning to rank without text has them.

    It stands in the place of a cross-encoder and takes (query, document) pairs: the document is a list of numbers, of
    which those that are missing at the end are 0, as in svmlight; the query is left unread, for what matters of it is
    among the features.

    Args:
        features: how many there are; None: as many as the longest row that `fit_inputs` sees.
        hidden: width of each hidden layer; none: a linear model.
        dropout: after each hidden layer.
        activation: of the hidden layers.
        standardize: subtract each feature's mean and divide by its standard deviation, as `fit_inputs` finds them.

    Raises:
        RecipeError: an option that is out of range.
    """

    card = Card(
        encoders=["cross-encoder"],
        formula="w h_L + b, h_l = dropout(activation(W_l h_(l-1) + b_l)), h_0 = (x - mean) / deviation",
        citation="""@inproceedings{burges2005learning,
  title = {Learning to Rank using Gradient Descent},
  author = {Burges, Chris and Shaked, Tal and Renshaw, Erin and Lazier, Ari and Deeds, Matt and Hamilton, Nicole
    and Hullender, Greg},
  booktitle = {Proceedings of the 22nd International Conference on Machine Learning},
  year = {2005}
}""",
        requirements=["documents that are lists of numbers, as of format svmlight"],
    )
    family = "cross-encoder"
    similarity = ""
    dimension = None
    normalized = False
    examples = (("", [0.2, 0.0, 1.5]), ("", [0.1, 0.7]), ("", [1.0, 0.3, 0.4]), ("", [0.0, 0.5, 0.9]), ("", [0.8]))
    usage = 'scores = model.encode([("", [0.2, 0.0, 1.5]), ("", [0.1, 0.7, 0.0])])'

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: int | None = None,
        hidden: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
        standardize: bool = True,
    ) -> None:
        super().__init__()
        self.features = features
        self.hidden = tuple(hidden)
        self.dropout = dropout
        self.activation = activation
        self.standardize = standardize
        if features is not None and features < 1:
            raise RecipeError("features", expected="1 or more", got=str(features))
        if not all(width > 0 for width in self.hidden):
            raise RecipeError("hidden", expected="widths of 1 or more", got=str(list(hidden)))
        if not 0 <= dropout < 1:
            raise RecipeError("dropout", expected="a number from 0, below 1", got=str(dropout))
        if activation not in ACTIVATIONS:
            raise RecipeError("activation", expected=f"one of {', '.join(ACTIVATIONS)}", got=repr(activation))
        self.layers = nn.Sequential()
        self.register_buffer("mean", None)
        self.register_buffer("deviation", None)
        if features is not None:
            self._widen(features)

    def fit_inputs(self, pairs: Iterable[tuple[str, Document]]) -> None:
        """Set what the inputs alone determine: how many features there are, and the mean and deviation of each.

        A feature that is always the same has deviation 1. `losskit train` calls it with the pairs of all its training
        rows before the first step; without it inputs are taken as they are.

        Args:
            pairs: (query, document), read once.

        Raises:
            DataError: there are none, or a document is no list of numbers.
        """
        documents = map(_document, pairs)
        count, mean, squares = 0, np.zeros(self.features or 0), np.zeros(self.features or 0)
        while chunk := list(islice(documents, CHUNK)):
            rows = _rows(chunk, self.features, len(mean)).astype(np.float64)
            missing = rows.shape[1] - len(mean)
            mean, squares = np.pad(mean, (0, missing)), np.pad(squares, (0, missing))
            # Chan's update of mean and sum of squared deviations, which loses nothing to large means.
            share, shift = len(rows) / (count + len(rows)), rows.mean(0) - mean
            squares += ((rows - rows.mean(0)) ** 2).sum(0) + shift**2 * count * share
            mean += shift * share
            count += len(rows)
        if not len(mean) or not count:
            raise DataError("inputs of the mlp", expected="documents of numbers", got="none")
        if self.features is None:
            self._widen(len(mean))
        if self.standardize:
            deviation = np.sqrt(squares / count)
            self.mean.copy_(torch.from_numpy(mean))
            self.deviation.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))

    def preprocess(
        self, texts: Sequence[tuple[str, Document]], *, role: str = "text", prompt: str | None = None
    ) -> Features:
        """The documents of n (query, document) pairs as one table.

        Args:
            texts: n pairs; a document is a list of numbers.
            role: of no effect.
            prompt: none, or "".

        Returns:
            "features", [n, features].

        Raises:
            DataError: something that is no pair, or a document that is no list of finite numbers or has more of them
                than there are features.
            RecipeError: a prompt, which nothing would read.
        """
        if prompt:
            raise RecipeError("prompt", expected="none, for an mlp reads no texts", got=repr(prompt))
        return {"features": torch.from_numpy(_rows([*map(_document, texts)], self._width))}

    def forward(self, features: Features, needs: Sequence[str] = ()) -> Output:
        """Scores, [n].

        Args:
            features: of `preprocess`, on the encoder's device.
            needs: nothing that it has.
        """
        parts = requested_parts(features, needs, {})
        inputs = (features["features"].to(self.mean.dtype) - self.mean) / self.deviation
        return Output(self.layers(inputs).squeeze(-1), parts=parts)

    def encode(
        self,
        texts: Sequence[tuple[str, Document]],
        *,
        role: str = "text",
        prompt: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> NDArray[np.float32]:
        """Scores of n (query, document) pairs, without gradients and dropout.

        Args:
            texts: n pairs; a document is a list of numbers.
            role: of no effect.
            prompt: none, or "".
            batch_size: the most pairs of a forward.
            progress: show a bar on stderr.

        Returns:
            [n].
        """

        def run(batch: list[tuple[str, Document]]) -> Tensor:
            scores: Tensor = self(move(self.preprocess(batch, prompt=prompt), self.mean.device)).embedding
            return scores.float().cpu()

        with evaluating(self):
            found = in_batches(list(texts), run, length=lambda _: 0, batch_size=batch_size, progress=progress)
        return torch.stack(found).numpy() if found else np.zeros(0, np.float32)

    def get_config_dict(self) -> dict[str, Any]:
        """The options that build it again, but for what it has learned."""
        names = ("features", "hidden", "dropout", "activation", "standardize")
        return {name: getattr(self, name) for name in names}

    def save(self, path: str | Path) -> None:
        """Write config.json and model.safetensors; what is no part of a model in the folder stays.

        Raises:
            ModelError: it cannot be written, or has no features yet; then nothing has changed.
        """
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        config = {"losskit_encoder": "mlp", **self.get_config_dict(), "features": self._width}
        with replacing(path) as folder:
            write_json(folder / "config.json", config, indent=2)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model folder.

        Raises:
            ModelError: it cannot be read, or holds another model.
        """
        folder = locate(path)
        config = read_json(folder / "config.json", dict)
        if config.pop("losskit_encoder", None) != "mlp":
            raise ModelError(str(folder), expected="an mlp of losskit", got="another model", fix="use losskit.load")
        require_safetensors(folder)
        try:
            weights = load_file(folder / "model.safetensors")
            with torch.device("meta"):  # nothing is allocated for widths that the weights do not have
                encoder = cls(**config)
            encoder.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
        except (TypeError, RuntimeError, OSError, RecipeError, SafetensorError) as error:
            expected = "the weights that its config.json describes"
            raise ModelError(str(folder), expected=expected, got=brief(error)) from error
        return encoder

    @classmethod
    def adapt(cls, model: Any) -> Encoder | None:
        """None: there is no foreign model of this kind."""
        return None

    @property
    def _width(self) -> int:
        if self.features is None:
            raise ModelError(
                "features of the mlp", expected="how many there are", got="nothing",
                fix="give it features=..., or let fit_inputs count them",
            )  # fmt: skip
        return self.features

    def _widen(self, features: int) -> None:
        self.features = features
        self.mean, self.deviation = torch.zeros(features), torch.ones(features)
        self.layers.extend(_layers((features, *self.hidden), ACTIVATIONS[self.activation], self.dropout))
        self.layers.train(self.training)


def _layers(widths: Sequence[int], activation: type[nn.Module], dropout: float) -> Iterator[nn.Module]:
    for width, following in pairwise(widths):
        yield nn.Linear(width, following)
        yield activation()
        yield nn.Dropout(dropout)
    yield nn.Linear(widths[-1], 1)


def _document(pair: tuple[str, Document]) -> Document:
    try:
        _, document = pair
    except (TypeError, ValueError):
        raise DataError("a pair for the mlp", expected="(query, list of numbers)", got=repr(pair)[:60]) from None
    return document


def _rows(documents: Sequence[Document], features: int | None, least: int = 0) -> NDArray[np.float32]:
    """Documents as one table, filled up with zeros: to `features`, else to the longest and to `least`."""
    for place, document in enumerate(documents, start=1):
        if not isinstance(document, list | tuple | np.ndarray):
            raise _refusal(place, documents, "a list of numbers", repr(document)[:60], "for texts take cross-encoder")
        if features is not None and len(document) > features:
            raise _refusal(place, documents, f"{features} numbers at most", str(len(document)), "give mlp features=...")
    rows = np.zeros((len(documents), features or max(least, *map(len, documents))), np.float32)
    for place, document in enumerate(documents, start=1):
        try:
            with np.errstate(over="ignore"):
                rows[place - 1, : len(document)] = document
        except (TypeError, ValueError):
            raise _refusal(place, documents, "a list of numbers", repr(list(document))[:60]) from None
    finite = np.isfinite(rows).all(1)
    if not finite.all():
        raise _refusal(int(finite.argmin()) + 1, documents, "finite numbers", "NaN or infinity")
    return rows


def _refusal(place: int, documents: Sequence[Document], expected: str, got: str, fix: str = "") -> DataError:
    return DataError(f"document {place} of {len(documents)}", expected=expected, got=got, fix=fix)
