"""Plain modules on anchors with positives and negatives: one is right, the others miss a law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional


def embedded(model: Any, features: Any) -> Tensor:
    """The embeddings of a column, in float32 at least."""
    vectors = model(features)["sentence_embedding"]
    return vectors.to(torch.promote_types(vectors.dtype, torch.float32))


class InBatch(nn.Module):
    """Tells the positive of an anchor from all other documents of the batch.

    Args:
        model: that embeds.
        scale: inverse temperature.
    """

    def __init__(self, model: Any, scale: float = 20.0) -> None:
        super().__init__()
        self.model = model
        self.scale = scale

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:
        """The mean cross-entropy over anchors."""
        anchors, documents = self.columns(sentence_features)
        documents = self.gathered(documents)
        scores = self.scale * functional.normalize(anchors, dim=1) @ functional.normalize(documents, dim=1).T
        return self.entropy(scores)

    def gathered(self, documents: Tensor) -> Tensor:
        """The documents that anchors are told from."""
        return documents

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        """The anchors, and the documents with the positives first."""
        if len(sentence_features) < 2:
            raise ValueError(f"expected 2 columns or more, got {len(sentence_features)}")
        anchors, *documents = (embedded(self.model, features) for features in sentence_features)
        if len({len(anchors), *map(len, documents)}) > 1:
            raise ValueError("expected columns of equal length")
        return anchors, torch.cat(documents)

    def entropy(self, scores: Tensor) -> Tensor:
        """The cross-entropy of scores whose row i has its positive in column i."""
        return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    def get_config_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"scale": self.scale}


class UnstableSoftmax(InBatch):
    """Tells positives from other documents: raises scores to exponents as they are."""

    def __init__(self, model: Any, scale: float = 200.0) -> None:
        super().__init__(model, scale)

    def entropy(self, scores: Tensor) -> Tensor:
        raised = scores.exp()
        return -(raised.diagonal() / raised.sum(1)).log().mean()


class DetachesNegatives(InBatch):
    """Tells positives from other documents: only anchors and positives learn."""

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        anchors, documents = super().columns(sentence_features)
        return anchors, torch.cat([documents[: len(anchors)], documents[len(anchors) :].detach()])


class IgnoresNegatives(InBatch):
    """Tells positives from other documents: hard negatives are checked and then left out."""

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        anchors, documents = super().columns(sentence_features)
        return anchors, documents[: len(anchors)]


class IgnoresFurtherNegatives(InBatch):
    """Tells positives from other documents: reads the first column of negatives and no other."""

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        anchors, documents = super().columns(sentence_features)
        return anchors, documents[: 2 * len(anchors)]


class TransposesPositives(InBatch):
    """Tells positives from other documents: puts documents row by row, and looks for positives column by column."""

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        anchors, documents = super().columns(sentence_features)
        return anchors, documents.view(-1, len(anchors), documents.shape[1]).transpose(0, 1).flatten(0, 1)


class RollsNegatives(InBatch):
    """Tells positives from other documents: an anchor's only negative is the document after its own."""

    def entropy(self, scores: Tensor) -> Tensor:
        own, others = scores.diagonal(), scores.roll(-1, 1).diagonal()
        return functional.softplus(others - own).mean()


class DrawsNegatives(InBatch):
    """Tells positives from other documents: those of some, as the global generator has it."""

    def columns(self, sentence_features: Any) -> tuple[Tensor, Tensor]:
        anchors, documents = super().columns(sentence_features)
        kept = torch.randperm(len(documents) - len(anchors), device=documents.device)[: len(anchors) // 2]
        return anchors, torch.cat([documents[: len(anchors)], documents[len(anchors) + kept]])


class BranchesOnHost(InBatch):
    """Tells positives from other documents: looks at a score to choose the way."""

    def entropy(self, scores: Tensor) -> Tensor:
        if scores.max() > 0:
            return super().entropy(scores)
        return super().entropy(scores - scores.detach().max())


class ForgetsDevice(InBatch):
    """Tells positives from other documents: numbers them on the default device."""

    def entropy(self, scores: Tensor) -> Tensor:
        return functional.cross_entropy(scores, torch.arange(len(scores)))


class LoopsOverPairs(InBatch):
    """Tells positives from other documents: goes through all pairs in Python."""

    def entropy(self, scores: Tensor) -> Tensor:
        rows = []
        for i in range(len(scores)):
            row = [scores[i, j] for j in range(scores.shape[1])]
            rows.append(torch.stack(row).logsumexp(0) - row[i])
        return torch.stack(rows).mean()


class ComparesTriples(InBatch):
    """Tells positives from other documents: holds a number for each anchor and two documents."""

    def entropy(self, scores: Tensor) -> Tensor:
        differences = scores[:, :, None] - scores[:, None, :]
        return differences.logsumexp(1).diagonal().mean()


class GathersWithoutGradient(InBatch):
    """Tells positives from other documents: those of other processes too, which learn nothing from it."""

    def gathered(self, documents: Tensor) -> Tensor:
        if not distributed.is_initialized():
            return documents
        others = []
        for rank in range(distributed.get_world_size()):
            rows: list[Any] = [len(documents)]
            distributed.broadcast_object_list(rows, rank)
            others.append(documents.new_zeros(rows[0], documents.shape[1]))
            if rank == distributed.get_rank():
                others[rank].copy_(documents.detach())
            distributed.broadcast(others[rank], rank)
        own = distributed.get_rank()
        return torch.cat([documents, *others[:own], *others[own + 1 :]])
