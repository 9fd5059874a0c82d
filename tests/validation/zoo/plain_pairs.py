"""Plain modules on pairs with a score, in the style of sentence-transformers: one is right, the others miss a law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def embedded(model: Any, features: Any) -> Tensor:
    """The embeddings of a column, in float32 at least."""
    vectors = model(features)["sentence_embedding"]
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


class CosineRegression(nn.Module):
    """Brings the cosine of two texts to their score.

    Args:
        model: that embeds.
        scale: factor of the cosine.
    """

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        """The mean squared error of the pairs."""
        scores = self.scores(sentence_features)
        return (scores - self.wanted(labels, scores)).square().mean()

    def scores(self, sentence_features: Any) -> Tensor:
        """The scaled cosine of each pair."""
        if len(sentence_features) != 2:
            raise ValueError(f"expected 2 columns, got {len(sentence_features)}")
        a, b = (embedded(self.model, features) for features in sentence_features)
        if len(a) != len(b):
            raise ValueError(f"expected columns of equal length, got {len(a)} and {len(b)} rows")
        return self.scale * (functional.normalize(a, dim=1) * functional.normalize(b, dim=1)).sum(1)

    def wanted(self, labels: Any, scores: Tensor) -> Tensor:
        """The labels, one per pair."""
        if labels is None or labels.shape != scores.shape:
            raise ValueError(f"expected {len(scores)} labels, got {None if labels is None else list(labels.shape)}")
        return labels.to(scores.dtype)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"scale": self.scale}


class BroadcastsLabels(CosineRegression):
    """Brings the cosine of two texts to their score: compares each score with all labels."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        scores = self.scores(sentence_features)
        return (scores[:, None] - self.wanted(labels, scores)).square().mean()


class CountsLabels(CosineRegression):
    """Brings the cosine of two texts to their score: as many labels as scores will do, in whatever shape."""

    def wanted(self, labels: Any, scores: Tensor) -> Tensor:
        if labels is None or labels.numel() != len(scores):
            raise ValueError(f"expected {len(scores)} labels")
        return labels.to(scores.dtype)


class WritesLabels(CosineRegression):
    """Brings the cosine of two texts to their score: scales the caller's labels."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        scores = self.scores(sentence_features)
        wanted = self.wanted(labels, scores)
        return (scores - wanted.mul_(0.5).add_(0.5)).square().mean()


class LeavesModelInEval(CosineRegression):
    """Brings the cosine of two texts to their score: switches dropout off, for good."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        self.model.eval()
        return super().forward(sentence_features, labels)


class AddsGlobalNoise(CosineRegression):
    """Brings the cosine of two texts to their score: draws noise from the global generator."""

    def scores(self, sentence_features: Any) -> Tensor:
        scores = super().scores(sentence_features)
        return scores + 0.01 * torch.randn_like(scores)


class SwallowsOptions(CosineRegression):
    """Brings the cosine of two texts to their score: takes any option and heeds one."""

    def __init__(self, model: Any, scale: float = 1.0, **options: Any) -> None:
        super().__init__(model, scale)


class HidesModel(CosineRegression):
    """Brings the cosine of two texts to their score: keeps the model where no parameter of it is found."""

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        super().__init__(None, scale)
        object.__setattr__(self, "model", model)


class KeepsGraph(CosineRegression):
    """Brings the cosine of two texts to their score: remembers the last loss with its graph."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        self.last = super().forward(sentence_features, labels)
        return self.last


class Leaks(CosineRegression):
    """Brings the cosine of two texts to their score: collects the scores of each step for a plot."""

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        super().__init__(model, scale)
        self.history: list[Tensor] = []

    def scores(self, sentence_features: Any) -> Tensor:
        scores = super().scores(sentence_features)
        self.history.append(scores.detach())
        return scores


class CountsSteps(CosineRegression):
    """Brings the cosine of two texts to their score: weighs the loss by how often it was called."""

    def __init__(self, model: Any, scale: float = 1.0) -> None:
        super().__init__(model, scale)
        self.steps = 0

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        self.steps += 1
        return super().forward(sentence_features, labels) * min(1.0, self.steps / 100)


class Unreduced(CosineRegression):
    """Brings the cosine of two texts to their score: gives a number for each pair."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        scores = self.scores(sentence_features)
        return (scores - self.wanted(labels, scores)).square()


class ReturnsPair(CosineRegression):
    """Brings the cosine of two texts to their score: gives the scores beside the loss."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        return super().forward(sentence_features, labels), self.scores(sentence_features)


class LabelsFirst(CosineRegression):
    """Brings the cosine of two texts to their score: takes the labels before the features."""

    def forward(self, labels: Any, sentence_features: Any) -> Any:  # type: ignore[override]
        return super().forward(sentence_features, labels)


class SumsRows(CosineRegression):
    """Brings the cosine of two texts to their score: sums over the batch."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        return super().forward(sentence_features, labels) * len(labels)


class RoundsScores(CosineRegression):
    """Brings the cosine of two texts to their score: rounds them, and hands the gradient through."""

    def scores(self, sentence_features: Any) -> Tensor:
        scores = super().scores(sentence_features)
        return scores + ((scores * 10).round() / 10 - scores).detach()


class HidesNaN(CosineRegression):
    """Brings the cosine of two texts to their score: a NaN becomes 0."""

    def scores(self, sentence_features: Any) -> Tensor:
        return super().scores(sentence_features).nan_to_num()
