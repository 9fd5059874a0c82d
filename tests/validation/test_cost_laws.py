"""Laws of cost: each is broken by a component that is sound but for one thing."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from losskit import Card, Format, Loss
from losskit.math import over_tiles
from losskit.score_loss import ScoreLoss
from losskit.testing import Subject, check

PAIRS = Format(["anchor", "positive"])


class Sound(Loss):
    """The mean of 1 - cosine: linear in everything."""

    card = Card(formats=[PAIRS], encoders=["dense", "multi-vector"], memory="B")

    def compute(self, columns, labels, rows):
        return (1 - self.pairwise(columns[0][rows], columns[1][rows])).mean()


class AllPairs(Sound):
    """A matrix that the card does not speak of."""

    def compute(self, columns, labels, rows):
        return self.matrix(columns[0][rows], columns[1]).sin().mean()


class AllPairsDeclared(AllPairs):
    card = replace(Sound.card, memory="B^2")


class Tiled(Sound):
    card = replace(Sound.card, memory="tile")

    def compute(self, columns, labels, rows):
        return over_tiles(columns[0][rows], columns[1], lambda scores, _: scores.sin().mean(), similarity=self.scorer)


class TiledByItself(Sound):
    """In tiles of 16 MB, computed again in the backward; what small batches take is below one."""

    card = replace(Sound.card, memory="tile")
    most = 2**21

    def compute(self, columns, labels, rows):
        a, b = columns[0][rows].embedding, columns[1].embedding
        parts = a.split(max(1, self.most // len(b)))
        return torch.stack([checkpoint(self.summed, part, b, use_reentrant=False) for part in parts]).sum() / len(a)

    def summed(self, a, b):
        return (a @ b.T).sin().sum()


class TilesTooLarge(TiledByItself):
    most = 2**40


class OtherwiseAbove100(Sound):
    """More memory from some size on, and linear below it and above."""

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        if rows.stop <= 100:
            return value
        many = columns[0].embedding.repeat(1, 6).sin().cos()
        return value + many.mean()


class NotTiled(AllPairs):
    card = replace(Sound.card, memory="tile")


class AllTriples(Sound):
    card = replace(Sound.card, memory="B^2")

    def compute(self, columns, labels, rows):
        scores = self.matrix(columns[0][rows], columns[1])
        return (scores[:, :, None] - scores[:, None, :]).relu().mean()


class TripleLoop(Sound):
    """Cubic in work alone: the whole matrix for every row."""

    def compute(self, columns, labels, rows):
        value = 0.0
        for row in range(rows.start, rows.stop):
            with torch.no_grad():
                hardest = self.matrix(columns[0], columns[1])[row].argmax()
            value = value + columns[0].embedding[row] @ columns[1].embedding.index_select(0, hardest[None])[0]
        return value / rows.stop


class Covariance(Sound):
    """The square of the width."""

    def compute(self, columns, labels, rows):
        a = columns[0].embedding
        return (a.T @ a).sin().mean() + super().compute(columns, labels, rows)


class CovarianceDeclared(Covariance):
    card = replace(Sound.card, memory="B + D^2")


class Overstated(Sound):
    card = replace(Sound.card, memory="B^2")


class Unreadable(Sound):
    card = replace(Sound.card, memory="O(B)")


class PairsOfAList(ScoreLoss):
    card = Card(formats=[Format(["query", "documents"], labels="scores")], encoders=["dense"], memory="n")

    def score(self, scores, labels, where):
        both = where[:, :, None] & where[:, None, :]
        differences = torch.where(both, scores[:, :, None] - scores[:, None, :], 0.0)
        return (differences * labels[:, :, None]).sin().mean()


class PairsOfNegatives(Sound):
    card = Card(formats=[Format(["anchor", "positive", "negative*"])], encoders=["dense"], memory="n")

    def compute(self, columns, labels, rows):
        scores = torch.stack([self.pairwise(columns[0][rows], other[rows]) for other in columns[1:]], 1)
        return (scores[:, :, None] - scores[:, None, :]).sin().square().mean() + scores.mean()


class Quadratic:
    """A weighting that says that it is linear."""

    card = Card(memory="n")

    def __call__(self, gain, discount, true_sorted):
        return (gain[:, :, None] - gain[:, None, :]).abs()


class Linear(Quadratic):
    card = Card(memory="n^2")

    def __call__(self, gain, discount, true_sorted):
        return gain[:, :, None]


@pytest.mark.parametrize(
    ("subject", "words", "expected"),
    [
        (Subject(AllPairs), "memory grows faster with B than it may", "'B', here a power of B up to 1"),
        (Subject(NotTiled), "memory grows faster with B than it may", "'tile', here a power of B up to 1"),
        (Subject(TilesTooLarge), "memory grows faster with B than it may", "'tile', here a power of B up to 1"),
        (Subject(AllTriples), "faster with B than it may", "a power of B up to 2"),
        (Subject(TripleLoop), "work grows faster with B than it may", "all pairs, here a power of B up to 2"),
        (Subject(Covariance), "memory grows faster with D than it may", "'B', here a power of D up to 1"),
        (Subject(Overstated), "memory grows more slowly with B than the card says", "'B^2', here a power of 2 of B"),
        (Subject(Unreadable), "the card's memory cannot be read", "as 'B'"),
        (Subject(PairsOfAList), "memory grows faster with n than it may", "'n', here a power of n up to 1"),
        (Subject(PairsOfNegatives), "memory grows faster with n than it may", "'n', here a power of n up to 1"),
        (Subject(Quadratic, kind="weighting"), "memory grows faster with n than it may", "'n', here a power of n"),
        (Subject(Linear, kind="weighting"), "memory grows more slowly with n", "'n^2', here a power of 2 of n"),
    ],
    ids=lambda each: each.looked_at.__name__ if isinstance(each, Subject) else "",
)
def test_growth_other_than_the_card_says_is_found(subject, words, expected):
    (found,) = check(subject, only=["growth"])
    assert (found.id, found.status) == ("growth", "failed"), found
    assert words in found.message
    assert expected in found.expected


@pytest.mark.parametrize(
    ("make", "family"),
    [
        *((make, family) for make in (Sound, AllPairsDeclared, Tiled) for family in ("dense", "multi-vector")),
        (CovarianceDeclared, "dense"),
        (TiledByItself, "dense"),
        (OtherwiseAbove100, "dense"),
    ],
)
def test_growth_as_the_card_says_is_fine(make, family):
    (found,) = check(Subject(make, family=family), only=["growth"])
    assert (found.status, found.message) == ("passed", "")


class AsksItem(Sound):
    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        return value if value.detach().item() > 0 else -value


class AsksBool(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (2.0 if columns[0].embedding.sum() > 0 else 1.0)


class AsksList(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * max(columns[0].embedding[:, 0].detach().exp().tolist())


class AsksMask(Sound):
    def compute(self, columns, labels, rows):
        scores = self.pairwise(columns[0][rows], columns[1][rows])
        return scores[scores < 1].mean()


class AsksCPU(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * columns[0].embedding.detach().to("cpu").norm()


class AsksInBackward(Sound):
    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        value.register_hook(lambda gradient: gradient * gradient.clamp(max=1).item())
        return value


class AsksOnTheCPU(Sound):
    """Where it costs nothing, and of what was on the host before."""

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        if value.is_cpu and value.device.type == "cpu":
            return value * value.detach().item()
        factor = torch.tensor([1.0, 2.0]).max().item()
        return factor * value * torch.ones(1, device=value.device)[0] + torch.zeros_like(value, device=value.device)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (AsksItem, "aten._local_scalar_dense in test_cost_laws.py"),
        (AsksBool, "aten._local_scalar_dense in test_cost_laws.py"),
        (AsksList, "Tensor.tolist in test_cost_laws.py"),
        (AsksMask, "aten.index in test_cost_laws.py"),
        (AsksCPU, "Tensor.to in test_cost_laws.py"),
        (AsksInBackward, "aten._local_scalar_dense in test_cost_laws.py"),
    ],
)
def test_reads_on_the_host_are_found(make, got):
    (found,) = check(Subject(make), only=["host-sync"])
    assert (found.status, found.message) == ("failed", "a value is read on the host")
    assert got in found.got
    assert f"test_cost_laws.py:{found.line}" in found.got


@pytest.mark.parametrize("make", [Sound, AsksOnTheCPU])
def test_what_is_read_where_it_costs_nothing_is_fine(make):
    (found,) = check(Subject(make), only=["host-sync"])
    assert (found.status, found.message) == ("passed", "")


class Appends(Sound):
    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.history = []

    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        self.history.append(value.detach())
        return value


class KeepsTheLast(Sound):
    def compute(self, columns, labels, rows):
        self.last = super().compute(columns, labels, rows)
        return self.last


class Cycle:
    """Refers to itself, so that it lives until it is searched for."""

    def __init__(self, tensor):
        self.tensor, self.itself = tensor, self


class MakesCycles(Sound):
    def compute(self, columns, labels, rows):
        value = super().compute(columns, labels, rows)
        self.last = weakref.ref(Cycle(value.detach().clone()))
        return value


class Queue(Sound):
    """A buffer that grows to its size, as a memory bank may."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.register_buffer("queue", torch.zeros(0, 8, dtype=torch.float64))

    def observe(self, columns, labels):
        self.queue = torch.cat([self.queue, columns[1].embedding.detach()])[-1000:]
        return columns, labels


@pytest.mark.parametrize(("make", "status"), [(Appends, "failed"), (KeepsTheLast, "passed"), (Queue, "passed")])
def test_what_is_kept_may_not_grow(make, status):
    (found,) = check(Subject(make), only=["leak"])
    assert found.status == status, found
    if status == "failed":
        assert found.message == "what is kept grows with the steps"
        assert found.expected.endswith("bytes as after 2")


def test_cycles_are_no_leak():
    (found,) = check(Subject(MakesCycles), only=["leak"])
    assert (found.status, found.message) == ("passed", "")
