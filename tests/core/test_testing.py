"""losskit.testing: every law can fail, and says what is wrong; toys and batches are what they claim."""

from __future__ import annotations

import os

import pytest
import torch

import losskit.execution.run
from losskit import Card, Encoder, Format, Loss, ModelError, ScoreLoss, losses
from losskit.math import masked_mean
from losskit.testing import (
    Subject,
    ToyEncoder,
    check,
    forward_laws,
    kind_laws,
    random_batch,
    saving_laws,
    stage_laws,
    subjects,
)
from losskit.testing.encoding import rows_encoded


class Sound(Loss):
    """1 - the mean cosine of two columns, and a scale of its own: keeps every law."""

    card = Card(formats=[Format(["text", "text"], labels="score")], encoders=["dense", "multi-vector"])

    def __init__(self, model=None, factor: float = 2.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.factor = factor
        self.scale = torch.nn.Parameter(torch.rand((), dtype=torch.float64))

    def compute(self, columns, labels, rows):
        scores = self.factor * self.scale * self.pairwise(columns[0][rows], columns[1][rows])
        return ((scores - labels[rows]) ** 2).mean()


class Sums(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (rows.stop - rows.start)


class CountsRows(Sound):
    def compute(self, columns, labels, rows):
        return self.pairwise(columns[0][rows], columns[1][rows]) @ torch.arange(rows.start, rows.stop).double() / 6


class CountsPadding(Sound):
    needs = ("input_ids",)

    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * columns[0].parts["input_ids"].values.shape[1]


class WritesLabels(Sound):
    def compute(self, columns, labels, rows):
        labels.mul_(1.0)
        return super().compute(columns, labels, rows)


class DrawsGlobally(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) + 0 * torch.rand(())


class ChangesTheEnvironment(Sound):
    def compute(self, columns, labels, rows):
        os.environ["LK_CALLS"] = os.environ["LK_CALLS"] + "1"
        return super().compute(columns, labels, rows)


class Divides(Sound):
    def compute(self, columns, labels, rows):
        a, b = columns[0][rows].embedding, columns[1][rows].embedding
        return ((a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)).mean()


class StaysHalf(Sound):
    def compute(self, columns, labels, rows):
        a, b = columns[0][rows].embedding, columns[1][rows].embedding
        return (1000 * (a - b).square().sum(1)).sin().mean()


class Detaches(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows).detach()


def forgets(model):
    loss = losses.CoSENTLoss(model, scale=7.0)
    loss.get_config_dict = lambda: {"scale": 20.0}
    return loss


class HoldsLambda(Sound):
    def __init__(self, model=None, *, execution=None):
        super().__init__(model, execution=execution)
        self.function = lambda x: x


class KeepsNothing(Sound):
    def owned_state(self):
        return {"scale": torch.zeros_like(self.scale)}


class ReadsOnHost(Sound):
    def compute(self, columns, labels, rows):
        factor = 2.0 if labels.sum().item() > 0 else 1.0
        return super().compute(columns, labels, rows) * factor


class Doubles(Sound):
    def compute(self, columns, labels, rows):
        return 2 * super().compute(columns, labels, rows)


class IgnoresMask(Sound):
    def compute(self, columns, labels, rows):
        return (columns[0][rows].embedding.sum((1, 2)) - labels[rows]).square().mean()


class Lopsided:
    """A similarity whose pairwise and transform are not its matrix."""

    def transform(self, record):
        return 2 * record.embedding

    def __call__(self, a, b):
        return a.embedding @ b.embedding.T

    def pairwise(self, a, b):
        return (a.embedding - b.embedding).sum(-1)


class Unfinished:
    """A weighting that divides by the gain, which is 0 on padding."""

    def __call__(self, gain, discount, true_sorted):
        return (1 / gain)[:, :, None]


class Shared:
    """A weighting that divides by the highest gain of all lists."""

    def __call__(self, gain, discount, true_sorted):
        return (gain / gain.max())[:, :, None]


BROKEN = {
    "additivity": Subject(Sums),
    "executions": Subject(Sums),
    "order": Subject(CountsRows),
    "padding": Subject(CountsPadding),
    "masking": Subject(IgnoresMask, family="multi-vector"),
    "untouched": Subject(WritesLabels),
    "degenerate": Subject(Divides),
    "half-precision": Subject(StaysHalf),
    "config": Subject(forgets),
    "pickled": Subject(HoldsLambda),
    "owned-state": Subject(KeepsNothing),
    "meta": Subject(ReadsOnHost),
    "compiles": Subject(ReadsOnHost),
    "identity": Subject(Doubles, kind="wrapper", equals=Sound),
    "diagonal": Subject(Lopsided, kind="similarity"),
    "transform": Subject(Lopsided, kind="similarity"),
    "weights": Subject(Unfinished, kind="weighting"),
    "of-lists-alone": Subject(Shared, kind="weighting"),
}


class Negative:
    def __call__(self, gain, discount, true_sorted):
        return -gain[:, :, None]


class OfDocuments:
    def __call__(self, gain, discount, true_sorted):
        return torch.cat([gain, gain])[:, :, None]


class OfOneType:
    def __call__(self, gain, discount, true_sorted):
        return torch.tensor(1.0, device=gain.device)


class WritesGains:
    def __call__(self, gain, discount, true_sorted):
        return gain.add_(1.0)[:, :, None]


@pytest.mark.parametrize(
    ("make", "words", "expected"),
    [
        (Unfinished, "weights are no numbers of 0 or more", "0 or more, and finite"),
        (Negative, "weights are no numbers of 0 or more", "0 or more, and finite"),
        (OfDocuments, "weights have another shape", r"one that broadcasts to [5, 5, 5]"),
        (OfOneType, "weights have another type", "torch.float64"),
        (WritesGains, "a weighting changes its inputs", "the gains, discounts and labels as they were"),
    ],
)
def test_weights_are_numbers_of_pairs(make, words, expected):
    (found,) = check(Subject(make, kind="weighting"), only=["weights"])
    assert (found.status, found.message, found.expected) == ("failed", words, expected)


@pytest.mark.parametrize("name", BROKEN)
def test_every_law_can_fail(name):
    (found,) = check(BROKEN[name], only=[name])
    assert (found.id, found.status) == (name, "failed"), found
    assert found.message
    assert found.expected


def test_the_laws_are_all_tried_above():
    tried_here = (*kind_laws.LAWS, *stage_laws.LAWS, *forward_laws.LAWS, *saving_laws.LAWS)
    assert {law.id for law in tried_here} == {*BROKEN, "dropout"}


def test_the_law_of_dropout_can_fail(monkeypatch):
    monkeypatch.setattr(losskit.execution.run._RandomState, "apply", lambda self: None)
    (found,) = check(Subject(Sound), only=["dropout"])
    assert found.status == "failed"


def test_a_sound_loss_keeps_every_law():
    (subject,) = subjects(Sound, families=["dense"])
    # Without "config": under pytest's own importer the source of a test's class cannot be read by name.
    results = {each.id: each.status for each in check(subject) if each.id != "config"}
    assert set(results.values()) == {"passed", "not_applicable"}
    assert [name for name in BROKEN if results.get(name) == "not_applicable"] == ["masking"]


class Margins(ScoreLoss):
    card = Card(formats=[Format(["query", "positive", "negative+"], labels="margins", outputs=1)], encoders=["dense"])

    def score(self, scores, labels, where):
        return masked_mean((scores[:, :1] - scores[:, 1:] - labels).square(), where[:, 1:])


class MarginsOfPadding(Margins):
    def score(self, scores, labels, where):
        return super().score(scores, labels, torch.ones_like(where))


@pytest.mark.parametrize(("make", "status"), [(Margins, "passed"), (MarginsOfPadding, "failed")])
def test_a_loss_on_margins_is_given_one_less_than_there_are_scores(make, status):
    (found,) = check(Subject(make), only=["masking"])
    assert found.status == status, found.message
    assert "RuntimeError" not in found.message


def test_more_ways_to_fail(monkeypatch):
    monkeypatch.setenv("LK_CALLS", "0")
    for make, law, words in (
        (DrawsGlobally, "untouched", "a call changes the random state of torch"),
        (ChangesTheEnvironment, "untouched", "a call changes variables of the environment"),
        (Detaches, "degenerate", "the loss is not connected to its inputs"),
    ):
        (found,) = check(Subject(make), only=[law])
        assert found.status == "failed"
        assert words in found.message


class Declared(Sums):
    card = Card(
        formats=Sound.card.formats, encoders=["dense"], deviations={"additivity": "a sum", "order": "so I said"}
    )


def test_declared_deviations_are_strict():
    sums, order = check(Subject(Declared), only=["additivity", "order"])
    assert (sums.status, sums.message, sums.fine) == ("deviating", "a sum", True)
    assert (order.status, order.message, order.fine) == ("failed", "declared as a deviation, but it holds", False)


def raises(model):
    raise RuntimeError("not today")


def test_what_a_component_raises_is_a_finding():
    (found,) = check(Subject(raises), only=["order"])
    assert (found.status, found.message, found.got) == ("failed", "RuntimeError: not today", "RuntimeError")


@pytest.mark.parametrize("family", ["dense", "sparse", "multi-vector", "cross-encoder"])
def test_toys_are_encoders(family, tmp_path):
    toy = ToyEncoder(family)
    assert isinstance(toy, Encoder)
    texts = [("a b", "c"), ("d", "e f g")] if family == "cross-encoder" else ["a b c", "d"]
    toy.save(tmp_path)
    again = ToyEncoder.load(tmp_path)
    for first, second in zip(rows_encoded(toy.encode(texts)), rows_encoded(again.encode(texts)), strict=True):
        assert first.tolist() == second.tolist()


@pytest.mark.parametrize("family", ["dense", "sparse", "multi-vector"])
def test_toys_encode_texts_without_words(family):
    for made in rows_encoded(ToyEncoder(family).encode(["", ""])):
        assert not made.any()


def test_an_unknown_family_is_refused():
    with pytest.raises(ModelError, match=r"ToyEncoder.family: expected one of dense, sparse, .*, got 'image'"):
        ToyEncoder("image")


def test_batches_have_columns_and_labels_of_the_format():
    batch = random_batch(Format(["query", "documents"], labels="scores"), rows=3, weights=True)
    assert [len(documents) for documents in batch.columns[1]] == [len(labels) for labels in batch.labels]
    assert len(batch.flat_labels) == sum(map(len, batch.columns[1]))
    taken = batch.take([2, 0])
    assert taken.columns[0] == [batch.columns[0][2], batch.columns[0][0]]
    assert taken.weights == [batch.weights[2], batch.weights[0]]
    assert torch.equal(taken.labels[0], batch.labels[2])


@pytest.mark.parametrize(
    ("labels", "shape"),
    [
        ("binary", (4,)),
        ("class", (4,)),
        ("score", (4,)),
        ("margins", (4, 2)),
        ("distribution", (4, 3)),
        ("embedding", (4, 8)),
    ],
)
def test_labels_have_the_shape_of_their_kind(labels, shape):
    form = Format(["query", "positive", "negative*"], labels=labels)
    assert random_batch(form, rows=4, negatives=2).labels.shape == shape
