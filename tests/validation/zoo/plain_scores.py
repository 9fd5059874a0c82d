"""Plain modules for cross-encoders: they get texts, and ask the model for scores of pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def scored(model: Any, queries: Any, documents: Any, prompt: str | None = None, task: str | None = None) -> Tensor:
    """The scores of pairs of texts, [n], in float32 at least."""
    features = model.preprocess(list(zip(queries, documents, strict=True)), prompt=prompt, task=task)
    scores = model(features)["scores"].view(-1)
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def checked(inputs: Any, columns: int) -> Any:
    """The columns, if they are so many."""
    if len(inputs) != columns:
        raise ValueError(f"expected {columns} columns, got {len(inputs)}")
    return inputs


def wanted(labels: Any, scores: Tensor) -> Tensor:
    """The labels, of the shape of the scores."""
    if labels is None or labels.shape != scores.shape:
        raise ValueError(f"expected labels {list(scores.shape)}, got {None if labels is None else list(labels.shape)}")
    return labels.to(scores.dtype)


class BinaryCrossEntropy(nn.Module):
    """Tells relevant pairs from others by their logits.

    Args:
        model: that scores pairs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, labels: Any = None, prompt: str | None = None, task: str | None = None) -> Tensor:
        """The mean cross-entropy of the pairs."""
        scores = scored(self.model, *checked(inputs, 2), prompt, task)
        return self.entropy(scores, wanted(labels, scores))

    def entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The mean over pairs."""
        return functional.binary_cross_entropy_with_logits(scores, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}


class UnstableSigmoid(BinaryCrossEntropy):
    """Tells relevant pairs from others: takes the logarithm of a sigmoid."""

    def entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        chances = scores.sigmoid()
        return -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()


class IgnoresLabels(BinaryCrossEntropy):
    """Tells relevant pairs from others: as if all were relevant."""

    def entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        return super().entropy(scores, torch.ones_like(labels))


class ScoreMSE(nn.Module):
    """Brings the score of a pair to its label.

    Args:
        model: that scores pairs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, labels: Any = None, prompt: str | None = None, task: str | None = None) -> Tensor:
        """The mean squared error of the pairs."""
        scores = scored(self.model, *checked(inputs, 2), prompt, task)
        return (scores - wanted(labels, scores)).square().mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}


class KeepsColumnAxis(ScoreMSE):
    """Brings the score of a pair to its label: scores keep an axis that labels lack."""

    def forward(self, inputs: Any, labels: Any = None, prompt: str | None = None, task: str | None = None) -> Tensor:
        scores = scored(self.model, *checked(inputs, 2), prompt, task)
        return (scores[:, None] - wanted(labels, scores)).square().mean()


class MarginMSE(nn.Module):
    """Brings the margin between positive and negatives to that of a teacher.

    Args:
        model: that scores pairs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any, labels: Any = None, prompt: str | None = None, task: str | None = None) -> Tensor:
        """The mean squared error over queries and negatives."""
        if len(inputs) < 3:
            raise ValueError(f"expected 3 columns or more, got {len(inputs)}")
        query, *documents = inputs
        scores = torch.stack([scored(self.model, query, each, prompt, task) for each in documents], 1)
        margins = self.margins(scores)
        if isinstance(labels, list):  # as trainers give several numbers per row
            labels = torch.stack(labels)
        if margins.shape[1] == 1 and labels is not None and labels.ndim == 1:
            labels = labels[:, None]
        return (margins - wanted(labels, margins)).square().mean()

    def margins(self, scores: Tensor) -> Tensor:
        """By how much the positive is ahead of each negative."""
        return scores[:, :1] - scores[:, 1:]

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}


class SwapsMargins(MarginMSE):
    """Brings the margin to that of a teacher: subtracts the positive from the negatives."""

    def margins(self, scores: Tensor) -> Tensor:
        return -super().margins(scores)


class InBatchScores(nn.Module):
    """Tells the positive from the negatives of a query.

    Args:
        model: that scores pairs.
        scale: factor of the logits.
    """

    def __init__(self, model: Any, scale: float = 10.0) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, inputs: Any, labels: Any = None, prompt: str | None = None, task: str | None = None) -> Tensor:
        """The mean cross-entropy over queries."""
        if len(inputs) < 3:
            raise ValueError(f"expected 3 columns or more, got {len(inputs)}")
        query, *documents = inputs
        scores = torch.stack([scored(self.model, query, each, prompt, task) for each in documents], 1)
        return -(scores * self.scale).log_softmax(1)[:, 0].mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"scale": self.scale}
