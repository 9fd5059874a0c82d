"""Plain modules on pairs and triplets, with and without labels of two kinds or of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def embedded(model: Any, sentence_features: Any, columns: int) -> list[Tensor]:
    """The embeddings of so many columns, in float32 at least."""
    if len(sentence_features) != columns:
        raise ValueError(f"expected {columns} columns, got {len(sentence_features)}")
    vectors = [model(features)["sentence_embedding"] for features in sentence_features]
    if len({len(each) for each in vectors}) > 1:
        raise ValueError("expected columns of equal length")
    return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in vectors]


def one_each(labels: Any, rows: int) -> Tensor:
    """The labels, one per row."""
    if labels is None or labels.shape != (rows,):
        raise ValueError(f"expected {rows} labels, got {None if labels is None else list(labels.shape)}")
    return labels


class Contrastive(nn.Module):
    """Draws positive pairs together, and pushes negative ones apart up to a margin.

    Args:
        model: that embeds.
        margin: how far negatives are pushed.
    """

    def __init__(self, model: Any, margin: float = 0.5) -> None:
        super().__init__()
        self.model = model
        self.margin = margin

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        """The mean over pairs."""
        a, b = embedded(self.model, sentence_features, 2)
        positive = one_each(labels, len(a)) == 1
        distances = 1 - (functional.normalize(a, dim=1) * functional.normalize(b, dim=1)).sum(1)
        return torch.where(positive, distances, self.pushed(distances)).square().mean() / 2

    def pushed(self, distances: Tensor) -> Tensor:
        """What a negative lacks to the margin."""
        return functional.relu(self.margin - distances)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"margin": self.margin}


class TurnsMargin(Contrastive):
    """Draws positive pairs together: and negative ones too, as far as they are beyond the margin."""

    def pushed(self, distances: Tensor) -> Tensor:
        return functional.relu(distances - self.margin)


class PicksByMask(Contrastive):
    """Draws positive pairs together: picks the pairs of each kind by a mask."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        a, b = embedded(self.model, sentence_features, 2)
        positive = one_each(labels, len(a)) == 1
        distances = 1 - (functional.normalize(a, dim=1) * functional.normalize(b, dim=1)).sum(1)
        near, far = distances[positive], self.pushed(distances[~positive])
        return (near.square().sum() + far.square().sum()) / (2 * len(a))


class Triplet(nn.Module):
    """Wants an anchor nearer to its positive than to its negative, by a margin.

    Args:
        model: that embeds.
        margin: by how much.
    """

    def __init__(self, model: Any, margin: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.margin = margin

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        """The mean over triplets."""
        anchor, positive, negative = embedded(self.model, sentence_features, 3)
        return functional.relu(self.distance(anchor, positive) - self.distance(anchor, negative) + self.margin).mean()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """How far vectors are apart."""
        return torch.linalg.vector_norm(a - b, dim=1)

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"margin": self.margin}


class RootOfZero(Triplet):
    """Wants an anchor nearer to its positive: takes the root of what may be 0."""

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1).sqrt()


class SwapsSign(Triplet):
    """Wants an anchor nearer to its negative."""

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        return -super().distance(a, b)


class DetachesPositive(Triplet):
    """Wants an anchor nearer to its positive: which learns nothing."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        anchor, positive, negative = embedded(self.model, sentence_features, 3)
        near = self.distance(anchor, positive.detach())
        return functional.relu(near - self.distance(anchor, negative) + self.margin).mean()


class Classifier(nn.Module):
    """Tells the class of a pair by a layer over both embeddings and their difference.

    Args:
        model: that embeds.
        dimension: of its embeddings.
        num_labels: how many classes there are.
    """

    cases = [{"dimension": 8}]  # noqa: RUF012 - read as a plain list

    def __init__(self, model: Any, dimension: int, num_labels: int = 3) -> None:
        super().__init__()
        self.model = model
        self.dimension = dimension
        self.num_labels = num_labels
        like = next(model.parameters())
        self.layer = nn.Linear(3 * dimension, num_labels, device=like.device, dtype=like.dtype)

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        """The mean cross-entropy over pairs."""
        a, b = embedded(self.model, sentence_features, 2)
        return functional.cross_entropy(self.logits(a, b), one_each(labels, len(a)).long())

    def logits(self, a: Tensor, b: Tensor) -> Tensor:
        """What the layer makes of the pairs."""
        return self.layer(torch.cat([a, b, (a - b).abs()], 1).to(self.layer.weight.dtype))

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"dimension": self.dimension, "num_labels": self.num_labels}


class LooksAtClasses(Classifier):
    """Tells the class of a pair: weighs classes by how often the batch has them, counted on the host."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        a, b = embedded(self.model, sentence_features, 2)
        wanted = one_each(labels, len(a)).long()
        counts = [max(1, wanted.tolist().count(each)) for each in range(self.num_labels)]
        logits = self.logits(a, b)
        return functional.cross_entropy(logits, wanted, weight=logits.new_tensor(counts).reciprocal())
