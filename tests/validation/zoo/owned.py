"""Losses with parameters of their own, or that read more than embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output, Tokens
from losskit.math import promoted


class Classifier(Loss):
    """Tells the class of a pair by a layer over both embeddings.

    Args:
        model: an encoder that embeds.
        num_labels: how many classes there are.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="class")],
        encoders=["dense"],
        fixed_dimension=True,
        formula="mean of cross-entropy(W [a; b] + c, y)",
    )
    compares_rows = False

    def __init__(self, model: Any = None, num_labels: int = 3, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.num_labels = num_labels
        self.layer = self.owned_linear(num_labels, vectors=2)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean cross-entropy of the pairs `rows`."""
        assert labels is not None
        both = torch.cat([promoted(column[rows].embedding) for column in columns], 1)
        weight, bias = self.layer.weight, self.layer.bias
        dtype = torch.promote_types(both.dtype, weight.dtype)
        logits = functional.linear(both.to(dtype), weight.to(dtype), bias.to(dtype))
        return functional.cross_entropy(logits, self.targets(labels)[rows])

    def targets(self, labels: Tensor) -> Tensor:
        """The class of each row."""
        return labels.flatten().long()


class HidesWidth(Classifier):
    """Tells the class of a pair by a layer over both embeddings: does not say that it fits one width."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="class")],
        encoders=["dense"],
        formula="mean of cross-entropy(W [a; b] + c, y)",
    )


class FreezesModel(Classifier):
    """Tells the class of a pair by a layer over both embeddings: nothing but the layer is trained."""

    def __init__(self, model: Any = None, num_labels: int = 3, *, execution: Execution | None = None) -> None:
        super().__init__(model, num_labels, execution=execution)
        if model is not None:
            model.requires_grad_(False)


class PermutesLabels(Classifier):
    """Tells the class of a pair by a layer over both embeddings: sorts the labels first."""

    card = Card(
        formats=[Format(inputs=["text", "text"], labels="class")],
        encoders=["dense"],
        fixed_dimension=True,
        row_wise=False,
        formula="mean of cross-entropy(W [a; b] + c, y)",
    )

    def targets(self, labels: Tensor) -> Tensor:
        return super().targets(labels).sort().values


class Distances(Loss):
    """Brings two texts of a pair together, up to the square of their distance.

    Args:
        model: an encoder that embeds.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        formula="mean of log(1 + |a - b|^2)",
    )
    compares_rows = False

    def __init__(self, model: Any = None, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean over the pairs `rows`."""
        a, b = (promoted(column[rows].embedding) for column in columns)
        return (a - b).square().sum(1).log1p().mean()


class ClaimsWidth(Distances):
    """Brings two texts of a pair together: says that it fits one width, and fits all."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        fixed_dimension=True,
        formula="mean of log(1 + |a - b|^2)",
    )


class AsksInVain(Distances):
    """Brings two texts of a pair together: asks for the layers, and does not read them."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        needs=["layers"],
        formula="mean of log(1 + |a - b|^2)",
    )


class Layers(Distances):
    """Brings two texts of a pair together in every layer."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        needs=["layers"],
        formula="mean of log(1 + |a - b|^2) of the embeddings and of each layer",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean over the pairs `rows`."""
        a, b = (column[rows] for column in columns)
        pairs = [(a.embedding, b.embedding), *zip(a.layers, b.layers, strict=True)]
        terms = [(promoted(x) - promoted(y)).square().sum(1).log1p().mean() for x, y in pairs]
        return torch.stack(terms).mean()


class CountsPadding(Distances):
    """Brings two texts of a pair together, longer texts more: takes padding for text."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["dense"],
        needs=["input_ids"],
        formula="mean of t log(1 + |a - b|^2), t the number of tokens of the anchor",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        tokens = columns[0][rows].parts["input_ids"]
        assert isinstance(tokens, Tokens)
        a, b = (promoted(column[rows].embedding) for column in columns)
        return (self.lengths(tokens).to(a.dtype) * (a - b).square().sum(1).log1p()).mean()

    def lengths(self, tokens: Tokens) -> Tensor:
        """The number of tokens of each text."""
        return torch.ones_like(tokens.values).sum(1)


class CountsTokens(CountsPadding):
    """Brings two texts of a pair together, longer texts more."""

    def lengths(self, tokens: Tokens) -> Tensor:
        return tokens.mask.sum(1)


class TokenMeans(Loss):
    """Brings the means of the tokens of two texts together.

    Args:
        model: an encoder that gives a vector for each token.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["multi-vector"],
        formula="mean of log(1 + |mean_t a_t - mean_t b_t|^2)",
    )
    compares_rows = False

    def __init__(self, model: Any = None, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean over the pairs `rows`."""
        a, b = (self.mean(column[rows]) for column in columns)
        return (a - b).square().sum(1).log1p().mean()

    def mean(self, column: Output) -> Tensor:
        """Of the tokens of each text."""
        assert column.mask is not None
        tokens = promoted(column.embedding).where(column.mask[..., None], 0.0)
        return tokens.sum(1) / column.mask.sum(1, keepdim=True).clamp(min=1)


class ReadsMasked(TokenMeans):
    """Brings the means of the tokens of two texts together: reads what is masked."""

    def mean(self, column: Output) -> Tensor:
        assert column.mask is not None
        return promoted(column.embedding).sum(1) / column.mask.sum(1, keepdim=True).clamp(min=1)


class TokenErrors(TokenMeans):
    """Brings every token of the documents to the mean of its anchor's, the mean being over tokens."""

    card = Card(
        formats=[Format(inputs=["anchor", "positive"])],
        encoders=["multi-vector"],
        formula="sum_it log(1 + |b_it - mean_t a_it|^2) / number of tokens",
    )

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean over the tokens of the documents `rows`."""
        documents = columns[1][rows]
        assert documents.mask is not None
        tokens = promoted(documents.embedding).where(documents.mask[..., None], 0.0)
        errors = (tokens - self.mean(columns[0][rows])[:, None]).square().sum(2).log1p()
        return errors.where(documents.mask, 0.0).sum() / documents.mask.sum().clamp(min=1)

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The number of tokens."""
        mask = columns[1][rows].mask
        assert mask is not None
        return mask.sum()


class CountsRows(TokenErrors):
    """Brings every token of the documents to the mean of its anchor's: forgets that rows differ in length."""

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        return rows.stop - rows.start


class EmbeddingRegression(Loss):
    """Brings the embedding of a text to that of a teacher.

    Args:
        model: an encoder that embeds.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(inputs=["text"], labels="embedding")],
        encoders=["dense"],
        formula="mean of |e - y|^2 / d",
    )
    compares_rows = False

    def __init__(self, model: Any = None, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Any:
        """The mean squared error of the texts `rows`."""
        assert labels is not None
        embeddings = promoted(columns[0][rows].embedding)
        return functional.mse_loss(embeddings, labels[rows].to(embeddings.dtype))
