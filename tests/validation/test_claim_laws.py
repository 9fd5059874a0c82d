"""The laws of claims: what a card says and a component does not do is found, and the other way round."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from losskit import Card, Format, Loss, Wrapper, losses
from losskit.testing import Subject, ToyEncoder, check

PAIRS = [Format(["text", "text"])]


class Sound(Loss):
    """1 less the mean cosine."""

    card = Card(formats=PAIRS, encoders=["dense", "cross-encoder"])

    def compute(self, columns, labels, rows):
        if len(columns) == 1:
            return 1 - columns[0][rows].embedding.mean()
        return 1 - self.pairwise(columns[0][rows], columns[1][rows]).mean()


class Draws(Sound):
    """Leaves out a column in half of the steps, which its card does not say."""

    def draw(self, generator, sizes):
        return bool(torch.rand((), generator=generator) < 0.5)

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (2.0 if self.drawn else 1.0)


class SaysSo(Draws):
    card = Card(formats=PAIRS, encoders=["dense"], stochastic=True)


class NothingToDraw(SaysSo):
    def draw(self, generator, sizes):
        return None


class DrawsInVain(SaysSo):
    """Draws, and does not read it."""

    def compute(self, columns, labels, rows):
        return Sound.compute(self, columns, labels, rows)


class NeverDraws(Sound):
    card = Card(formats=PAIRS, encoders=["dense"], stochastic=True)


class DropsOut(Sound):
    def compute(self, columns, labels, rows):
        columns = [column.map_embedding(nn.functional.dropout) for column in columns]
        return super().compute(columns, labels, rows)


class Rolls(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (1 + random.random())


class Noise(nn.Module):
    """A regularizer of documents with noise."""

    card = Card(encoders=["dense"], row_wise=False)

    def forward(self, queries, documents):
        return (documents.embedding + torch.randn_like(documents.embedding)).square().mean()


class Around(Wrapper):
    """Twice another loss."""

    card = Card(encoders=["dense"])

    def compute(self, columns, labels, rows):
        return 2 * self.loss.compute(columns, labels, rows)


class Projects(Sound):
    """Compares after a layer of its own, of the encoder's width."""

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.layer = self.owned_linear(4)

    def compute(self, columns, labels, rows):
        return super().compute([column.map_embedding(self.layer) for column in columns], labels, rows)


class ProjectsOpenly(Projects):
    card = Card(formats=PAIRS, encoders=["dense"], fixed_dimension=True)


class SaysFixed(Sound):
    card = Card(formats=PAIRS, encoders=["dense"], fixed_dimension=True)


class Remembers(nn.Module):
    """A regularizer towards the mean of the documents that it has seen, which its card does not say."""

    card = Card(encoders=["dense"], row_wise=False)

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def observe(self, queries, documents):
        self.mean = documents.embedding.detach().mean(0)

    def forward(self, queries, documents):
        return (documents.embedding - self.mean).square().mean()


class RemembersOpenly(Remembers):
    card = Card(encoders=["dense"], row_wise=False, fixed_dimension=True)


class AsksForLayers(Sound):
    card = Card(formats=PAIRS, encoders=["dense"], needs=["layers"])


class ReadsLayers(AsksForLayers):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) + columns[0][rows].layers[0].square().mean()


class AsksForTokens(Sound):
    card = Card(formats=PAIRS, encoders=["dense"], needs=["input_ids"])


class ReadsTokens(AsksForTokens):
    def compute(self, columns, labels, rows):
        tokens = columns[1][rows].parts["input_ids"]
        return super().compute(columns, labels, rows) * tokens.values.where(tokens.mask, 0).double().mean()


class CountsTokens(AsksForTokens):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * columns[1][rows].parts["input_ids"].mask.sum()


class AsksForBackbone(Sound):
    card = Card(formats=PAIRS, encoders=["sparse"], needs=["backbone"])


class Guided(Sound):
    """Follows a guide's embeddings of the first column."""

    card = Card(formats=PAIRS, encoders=["dense"], reads={"model": None, "guide": [0]})

    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.frozen = {"guide": ToyEncoder(seed=1)}

    def compute(self, columns, labels, rows):
        return (columns[1][rows].embedding - columns[0][rows].parts["guide"].embedding).square().mean()


class GuidedByBoth(Guided):
    """Encodes the second column too, for nothing."""

    card = Card(formats=PAIRS, encoders=["dense"], reads={"model": None, "guide": None})


class Misnamed(Guided):
    """Its card calls the guide by another name, so that nothing is encoded for it."""

    card = Card(formats=PAIRS, encoders=["dense"], reads={"model": None, "teacher": [0]})

    def compute(self, columns, labels, rows):
        return Sound.compute(self, columns, labels, rows)


def around(make: Any) -> Any:
    return lambda model: Around(model, make(model))


BROKEN = {
    "undeclared-draws": ("stochastic", Subject(Draws), "depends on random numbers, though the card has stochastic=F"),
    "dropout": ("stochastic", Subject(DropsOut), "depends on random numbers, though the card has stochastic=False"),
    "rolls": ("stochastic", Subject(Rolls), "depends on random numbers, though the card has stochastic=False"),
    "noise": ("stochastic", Subject(Noise, "regularizer"), "depends on random numbers, though the card"),
    "never": ("stochastic", Subject(NeverDraws), "stochastic=True, but 8 drawings from other seeds give one value"),
    "in-vain": ("stochastic", Subject(DrawsInVain), "stochastic=True, but 8 drawings from other seeds give one value"),
    "layer": ("fixed-dimension", Subject(Projects), "cut to half their width are refused, though the card has"),
    "state": ("fixed-dimension", Subject(Remembers, "regularizer"), "cut to half their width are refused, though"),
    "free": ("fixed-dimension", Subject(SaysFixed), "fixed_dimension=True, but embeddings cut to half their width w"),
    "layers": ("needs", Subject(AsksForLayers), "the card needs 'layers', but other numbers there do not change"),
    "tokens": ("needs", Subject(AsksForTokens), "the card needs 'input_ids', but other numbers there do not change"),
    "parts": ("needs", Subject(AsksForBackbone, family="sparse"), "the card needs 'backbone', but other numbers"),
    "column": ("reads", Subject(GuidedByBoth), "what the encoder 'guide' makes of column 2 does not change the value"),
    "name": ("reads", Subject(Misnamed), "the encoder 'guide' reads no column"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_claim_that_does_not_hold_is_found(name):
    law, subject, words = BROKEN[name]
    (found,) = check(subject, only=[law])
    assert (found.id, found.status) == (law, "failed"), found
    assert words in found.message
    assert found.expected
    assert found.got
    assert found.cause
    assert found == check(subject, only=[law])[0]


@pytest.mark.parametrize(
    ("law", "subject"),
    [
        ("stochastic", Subject(Sound)),
        ("stochastic", Subject(Sound, family="cross-encoder")),
        ("stochastic", Subject(SaysSo)),
        ("stochastic", Subject(around(SaysSo), "wrapper", component=Around)),
        ("stochastic", Subject(losses.CrossMultipleNegativesRankingLoss, family="cross-encoder")),
        ("fixed-dimension", Subject(Sound)),
        ("fixed-dimension", Subject(ProjectsOpenly)),
        ("fixed-dimension", Subject(around(ProjectsOpenly), "wrapper", component=Around)),
        ("fixed-dimension", Subject(RemembersOpenly, "regularizer")),
        ("needs", Subject(ReadsLayers)),
        ("needs", Subject(ReadsTokens)),
        ("needs", Subject(CountsTokens)),
        ("reads", Subject(Guided)),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value.make, "__name__", str(value)),
)
def test_a_claim_that_holds_passes(law, subject):
    (found,) = check(subject, only=[law])
    assert found.status == "passed", found


@pytest.mark.parametrize(
    ("law", "subject", "reason"),
    [
        ("stochastic", Subject(NothingToDraw), "with these options and data there is nothing to draw"),
        ("fixed-dimension", Subject(Sound, family="cross-encoder"), "scores have no width"),
        ("needs", Subject(Sound), "with these options it needs nothing beyond embeddings"),
        ("reads", Subject(Sound), "it has no encoders beside the one that is trained"),
    ],
)
def test_what_cannot_apply_says_why(law, subject, reason):
    (found,) = check(subject, only=[law])
    assert (found.status, found.message) == ("not_applicable", reason)


def test_without_a_card_nothing_is_claimed():
    class Cardless(Loss):
        def compute(self, columns, labels, rows):
            return columns[0][rows].embedding.square().mean()

    subject = Subject(Cardless, form=Format(["text"]))
    for law in ("stochastic", "fixed-dimension"):
        (found,) = check(subject, only=[law])
        assert (found.status, found.message) == ("not_applicable", "it has no card that could claim anything")


def test_random_states_are_left_untouched():
    before = random.getstate(), torch.get_rng_state()
    assert check(Subject(Rolls), only=["stochastic"])[0].status == "failed"
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
