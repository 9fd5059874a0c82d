"""Small losses for whole systems, sound ones and ones with a planted defect; other processes import them from here."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from losskit import Card, Format, Loss


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


class Summed(torch.autograd.Function):
    """The sum over processes; so is its gradient."""

    @staticmethod
    def forward(ctx, tensor):
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def gathered(tensor, keep_gradient=True):
    """The rows of all processes, which have as many each."""
    if world() == 1:
        return tensor
    rows = len(tensor)
    place = torch.arange(world() * rows) // rows == rank()
    own = torch.zeros(world() * rows, *tensor.shape[1:], dtype=tensor.dtype)
    if keep_gradient:
        return Summed.apply(own.index_put((place.nonzero()[:, 0],), tensor))
    others = own.index_put((place.nonzero()[:, 0],), tensor.detach())
    dist.all_reduce(others)
    return torch.where(place[:, None], own.index_put((place.nonzero()[:, 0],), tensor), others)


class PlainGathers(nn.Module):
    """Cross-entropy of the own document among those of all processes."""

    keep_gradient = True

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sentence_features, labels=None):
        a, b = (self.model(dict(each))["sentence_embedding"] for each in sentence_features[:2])
        documents = gathered(b, self.keep_gradient)
        own = torch.arange(len(a)) + rank() * len(a)
        return nn.functional.cross_entropy(a @ documents.T, own)


class PlainGathersDetached(PlainGathers):
    """The documents of the other process bring it no gradient."""

    keep_gradient = False


class PlainSums(PlainGathers):
    """Adds the losses of all processes, of which the trainer takes the mean."""

    def forward(self, sentence_features, labels=None):
        value = super().forward(sentence_features, labels)
        return Summed.apply(value) if world() > 1 else value


class PlainCounts(PlainGathers):
    """A call that the first process alone makes."""

    def forward(self, sentence_features, labels=None):
        if world() > 1 and rank() == 0:
            gathered(self.model(dict(sentence_features[0]))["sentence_embedding"].detach())
        return super().forward(sentence_features, labels)


class PlainKnowsRank(PlainGathers):
    """Gathers nothing, and weighs the loss by the number of the process."""

    def forward(self, sentence_features, labels=None):
        a, b = (self.model(dict(each))["sentence_embedding"] for each in sentence_features[:2])
        return nn.functional.mse_loss(a, b) * (1 + rank())


class PlainReadsWords(PlainGathers):
    """Reads an entry of the features that the trainer of sentence-transformers does not bring."""

    def forward(self, sentence_features, labels=None):
        return super().forward(sentence_features, labels) + 0 * sentence_features[0]["words"].sum()


class Sound(Loss):
    """The mean squared difference of a scaled cosine and 1."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense", "multi-vector"])

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def compute(self, columns, labels, rows):
        return (self.scale * self.pairwise(columns[0][rows], columns[1][rows]) - 1).square().mean()


class Counts(Sound):
    """Weighs by how many rows it has seen, which it keeps."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def observe(self, columns, labels):
        self.seen += columns[0].tuples
        return columns, labels

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (2 + (self.seen / 3).sin())


class CountsOwnRows(Counts):
    """Counts the rows of its own process."""

    def observe(self, columns, labels):
        self.seen += columns[0].tuples // world() + rank()
        return columns, labels


class GathersItself(Sound):
    """Gathers in `compute`, without gradient, what execution gathers too."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"], row_wise=False)

    def compute(self, columns, labels, rows):
        a, b = (column.embedding for column in columns)
        own = torch.arange(len(a)) + rank() * len(a)
        return nn.functional.cross_entropy(self.scale * a @ gathered(b, keep_gradient=False).T, own)


class TimesProcesses(Sound):
    """A loss in whose gradients processes are summed instead of averaged."""

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * world()


class FailsThere(Sound):
    """Raises in the second process."""

    def compute(self, columns, labels, rows):
        if rank() == 1:
            raise ValueError("no second process, please")
        return super().compute(columns, labels, rows)


class Exits(Sound):
    """Ends the process if there are several."""

    def compute(self, columns, labels, rows):
        if world() > 1:
            import os

            os._exit(3)
        return super().compute(columns, labels, rows)


class ScaledRegularizer:
    """The mean square of documents, times the number of processes."""

    card = Card(encoders=["dense"], row_wise=False)

    def __call__(self, queries, documents):
        return documents.embedding.square().mean() * world()


class LeavesEvaluation(Sound):
    """Sets the model to evaluation."""

    def compute(self, columns, labels, rows):
        self.model.eval()
        return super().compute(columns, labels, rows)


class Idle(Sound):
    """Owns a parameter that it does not read."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.offset = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class Forgets(Counts):
    """Keeps what it has seen in an attribute that no checkpoint has."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.rows = 0

    def observe(self, columns, labels):
        self.rows += columns[0].tuples
        return columns, labels

    def compute(self, columns, labels, rows):
        factor = 2 if self.rows > 12 else 1
        return (factor * self.scale * self.pairwise(columns[0][rows], columns[1][rows]) - 1).square().mean()


class Rises(Sound):
    """Its gradient points the other way."""

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        return 2 * value.detach() - value


class Detaches(Sound):
    """Trains its scale alone."""

    def compute(self, columns, labels, rows):
        return (self.scale * self.pairwise(columns[0][rows], columns[1][rows]).detach() - 1).square().mean()
