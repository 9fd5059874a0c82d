"""Laws of state: each is broken by a loss that is sound but for one thing."""

from __future__ import annotations

import pytest
import torch

from losskit import Card, Format, Loss
from losskit.testing import Subject, check


class Sound(Loss):
    """The mean squared error of a scaled cosine."""

    card = Card(formats=[Format(["text", "text"], labels="score")], encoders=["dense"])

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = torch.nn.Parameter(torch.rand((), dtype=torch.float64))

    def compute(self, columns, labels, rows):
        scores = self.scale * self.pairwise(columns[0][rows], columns[1][rows])
        return (scores - labels[rows]).square().mean()


class Averages(Sound):
    """Divides by a running mean that compute changes."""

    mean = 1.0

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        self.mean = 0.9 * self.mean + 0.1 * value.item()
        return value / self.mean


class Remembers(Sound):
    """Keeps the last column beside its own buffer, where no saved state brings it back."""

    def observe(self, columns, labels):
        columns[1] = columns[1].map_embedding(lambda t: t + getattr(self, "last", 0.0))
        self.last = columns[1].embedding.detach().mean(0)
        return columns, labels


class RemembersInBuffer(Sound):
    """A memory as it is meant: a buffer that observe replaces."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.register_buffer("last", torch.zeros(8, dtype=torch.float64))

    def observe(self, columns, labels):
        columns[1] = columns[1].map_embedding(lambda t: t + self.last)
        self.last = columns[1].embedding.detach().mean(0)
        return columns, labels


class SharesAList(Sound):
    """Counts calls in a list on the class."""

    seen = []  # noqa: RUF012

    def compute(self, columns, labels, rows):
        self.seen.append(float(labels.sum()))
        return super().compute(columns, labels, rows) / len(self.seen)


SHARED = torch.nn.Parameter(torch.rand((), dtype=torch.float64))


class SharesAParameter(Sound):
    def __init__(self, model=None, scale=SHARED, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = scale


class KeepsItsValue(Sound):
    def compute(self, columns, labels, rows):
        self.last = super().compute(columns, labels, rows)
        return self.last


class KeepsDetached(Sound):
    """What is kept has no graph."""

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        self.last = value.detach()
        return value


class KeepsRecords(Sound):
    def observe(self, columns, labels):
        self.columns = columns
        return columns, labels


class KeepsAnIntermediateResult(Sound):
    def compute(self, columns, labels, rows):
        self.scores = self.pairwise(columns[0][rows], columns[1][rows])
        return (self.scale * self.scores - labels[rows]).square().mean()


class MadeInTheDefaultType(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels * torch.tensor(0.3).to(labels), rows)


class GivenTheDefaultType(Sound):
    def compute(self, columns, labels, rows):
        ones = torch.ones(rows.stop, device=labels.device)
        return (ones * (self.pairwise(columns[0], columns[1]) - labels)).square().mean()


class MadeOnTheDefaultDevice(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * torch.ones(3, dtype=torch.float64).sum()


class DrawsOnTheDefaultDevice(Sound):
    card = Card(formats=Sound.card.formats, encoders=["dense"], stochastic=True)

    def draw(self, generator, sizes):
        return torch.rand(sizes[0], generator=generator, dtype=torch.float64)

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * self.drawn.mean()


@pytest.mark.parametrize(
    ("make", "law", "words"),
    [
        (Averages, "repeatable", "the value differs"),
        (Remembers, "repeatable", "a second call: the value differs"),
        (SharesAList, "instances", "the value differs"),
        (SharesAParameter, "instances", "two objects own the same tensors"),
        (KeepsItsValue, "kept-graphs", "the graph of a finished step is kept"),
        (KeepsAnIntermediateResult, "kept-graphs", "the graph of a finished step is kept"),
        (KeepsRecords, "kept-graphs", "the graph of a finished step is kept"),
        (MadeInTheDefaultType, "default-dtype", "records in torch.float64 under the default torch.float32"),
        (GivenTheDefaultType, "default-dtype", "the value has another type"),
        (MadeOnTheDefaultDevice, "default-dtype", "another default device"),
        (DrawsOnTheDefaultDevice, "default-dtype", "another default device"),
    ],
)
def test_a_defect_of_state_is_found(make, law, words):
    (found,) = check(Subject(make), only=[law])
    assert (found.id, found.status) == (law, "failed"), found
    assert words in found.message
    assert found.expected
    assert found.cause


class Counting(torch.nn.Module):
    """A regularizer as it is meant: lengths beside the mean that observe keeps."""

    card = Card(encoders=["dense"], row_wise=False)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def observe(self, queries, documents):
        self.mean = self.mean + documents.embedding.norm(dim=1).mean()

    def forward(self, queries, documents):
        return (documents.embedding.norm(dim=1).mean() - self.mean).square()


class CountingOnTheClass(Counting):
    mean_of_all = 0.0

    def observe(self, queries, documents):
        type(self).mean_of_all += float(documents.embedding.norm(dim=1).mean())

    def forward(self, queries, documents):
        return (documents.embedding.norm(dim=1).mean() - self.mean_of_all).square()


class CountingInAnAttribute(Counting):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.mean = torch.zeros((), dtype=torch.float64)


class CountingWithRecords(Counting):
    def observe(self, queries, documents):
        super().observe(queries, documents)
        self.last = documents


@pytest.mark.parametrize(
    ("make", "law", "words"),
    [
        (CountingOnTheClass, "instances", "the value differs"),
        (CountingInAnAttribute, "repeatable", "a second call: the value differs"),
        (CountingWithRecords, "kept-graphs", "the graph of a finished step is kept"),
    ],
)
def test_what_regularizers_observe_is_held_to_the_laws_of_state(make, law, words):
    [found] = check(Subject(make, "regularizer"), only=[law])
    assert found.status == "failed"
    assert words in found.message


def test_a_sound_regularizer_with_a_memory_keeps_the_laws_of_state():
    laws = ["repeatable", "instances", "kept-graphs", "default-dtype", "owned-state"]
    found = check(Subject(Counting, "regularizer"), only=laws)
    assert [(each.status, each.message) for each in found] == [("passed", "")] * 5


@pytest.mark.parametrize("make", [Sound, KeepsDetached, RemembersInBuffer])
def test_sound_losses_keep_the_laws_of_state(make):
    laws = ["repeatable", "instances", "kept-graphs", "default-dtype"]
    assert [(each.status, each.message) for each in check(Subject(make), only=laws)] == [("passed", "")] * 4


def test_the_default_dtype_is_left_as_it_was():
    before = torch.get_default_dtype()
    check(Subject(GivenTheDefaultType), only=["default-dtype"])
    assert torch.get_default_dtype() == before
