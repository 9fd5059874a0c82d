"""The laws of gradients, use and direction: each finds its planted defect, says so, and lets sound losses be."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from losskit import Card, Format, Loss, Output, ScoreLoss
from losskit.testing import Subject, check
from losskit.testing.changes import others, places, same, shaken, with_items

EMBEDDING = ["dense", "sparse", "multi-vector"]
TUPLES = Format(["anchor", "positive", "negative*"])
PAIRS = Format(["text", "text"], labels="score")
LISTS = Format(["query", "documents"], labels="scores", outputs=1)


class Contrastive(Loss):
    """Cross entropy of each anchor's own positive among the documents of its row and all positives."""

    card = Card(formats=[TUPLES], encoders=EMBEDDING)
    uses_weights = True

    def __init__(self, model=None, scale: float = 3.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def logits(self, columns, rows):
        own = [self.pairwise(columns[0], column)[:, None] for column in columns[2:]]
        return self.scale * torch.cat([self.matrix(*columns[:2]), *own], 1)[rows]

    def mean(self, values, weight):
        return values.mean() if weight is None else (values * weight).mean()

    def compute(self, columns, labels, rows):
        values = cross_entropy(self.logits(columns, rows), torch.arange(rows.start, rows.stop), reduction="none")
        weight = columns[0].parts.get("weight")
        return self.mean(values, None if weight is None else weight[rows])


class Fixed(Contrastive):
    """The same with a scale that is not trained."""

    def __init__(self, model=None, *, execution=None):
        Loss.__init__(self, model, execution=execution)
        self.scale = 3.0


class DetachesPositives(Contrastive):
    def logits(self, columns, rows):
        return super().logits([columns[0], columns[1].map(torch.Tensor.detach), *columns[2:]], rows)


class DetachesHalf(Contrastive):
    """Takes the log-sum-exp for a constant."""

    def compute(self, columns, labels, rows):
        logits = self.logits(columns, rows)
        return (logits.logsumexp(1).detach() - logits.diagonal()).mean()


class DetachesScale(Contrastive):
    def logits(self, columns, rows):
        logits = super().logits(columns, rows)
        return logits / self.scale * self.scale.detach()


class Doubled(torch.autograd.Function):
    """Squares, with a backward that forgets the 2."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return ctx.saved_tensors[0] * gradient


class OwnBackward(Contrastive):
    def logits(self, columns, rows):
        return Doubled.apply(super().logits(columns, rows))


class FirstNegative(Contrastive):
    def logits(self, columns, rows):
        return super().logits(columns[:3], rows)


class NoAnchors(Contrastive):
    def logits(self, columns, rows):
        return super().logits([columns[1], *columns[1:]], rows)


class WrongWay(Fixed):
    def logits(self, columns, rows):
        return -super().logits(columns, rows)


class OffByOne(Fixed):
    """Takes the next row's positive for an anchor's own."""

    def logits(self, columns, rows):
        logits = super().logits(columns, rows)
        count = columns[0].tuples
        return torch.cat([logits[:, :count].roll(1, 1), logits[:, count:]], 1)


class Squared(Fixed):
    """Loses the sign of similarities; opposite is as good as equal."""

    def compute(self, columns, labels, rows):
        return -self.pairwise(columns[0][rows], columns[1][rows]).sub(0.5).square().mean()


class Normalises(Contrastive):
    def mean(self, values, weight):
        return values.mean() if weight is None else (values * weight).sum() / weight.sum()


class ForgetsWeights(Contrastive):
    def mean(self, values, weight):
        return values.mean()


class SumsWeighted(Contrastive):
    def mean(self, values, weight):
        return values.mean() if weight is None else (values * weight).sum()


class WeighsAll(Contrastive):
    """Weighs the mean by the mean weight."""

    def mean(self, values, weight):
        return values.mean() if weight is None else values.mean() * weight.mean()


class TakesAnyWeights(Contrastive):
    uses_weights = False

    def _weighted(self, column, weight):
        return column


class Regresses(Loss):
    """The mean squared error of cosines."""

    card = Card(formats=[PAIRS], encoders=["dense", "sparse"])

    def compute(self, columns, labels, rows):
        return mse_loss(self.pairwise(columns[0][rows], columns[1][rows]), labels[rows])


class BroadcastsLabels(Regresses):
    def compute(self, columns, labels, rows):
        return (self.pairwise(columns[0][rows], columns[1][rows])[:, None] - labels[rows]).square().mean()


class IgnoresLabels(Regresses):
    def compute(self, columns, labels, rows):
        return (1 - self.pairwise(columns[0][rows], columns[1][rows])).mean()


class Inverted(Regresses):
    def compute(self, columns, labels, rows):
        return super().compute(columns, 1 - labels, rows)


class Scored(ScoreLoss):
    """The mean binary cross entropy of documents."""

    card = Card(formats=[LISTS], encoders=[*EMBEDDING, "cross-encoder"])

    def per_document(self, scores, labels):
        return binary_cross_entropy_with_logits(scores, labels, reduction="none")


class FirstDocument(ScoreLoss):
    """Reads the first document of each list only."""

    card = Card(formats=[LISTS], encoders=[*EMBEDDING, "cross-encoder"])

    def score(self, scores, labels, where):
        return (scores[:, 0] - labels.sum(1)).square().mean()


class MeanLabel(Scored):
    """Gives all documents of all lists the mean label."""

    def per_document(self, scores, labels):
        return super().per_document(scores, labels.mean().expand_as(labels))


class Falling(Scored):
    def per_document(self, scores, labels):
        return super().per_document(-scores, labels)


class Hinge(Regresses):
    """Kinks and a margin: piecewise constant gradients, and zeros where pairs are far enough apart."""

    def compute(self, columns, labels, rows):
        scores = self.pairwise(columns[0][rows], columns[1][rows])
        return (labels[rows] - scores).abs().sub(0.2).relu().mean()


class Single(Regresses):
    """Computes in float32, whatever it is given."""

    def compute(self, columns, labels, rows):
        columns = [column.map_embedding(torch.Tensor.float) for column in columns]
        return super().compute(columns, labels.float(), rows).double()


class Classified(Loss):
    """Texts of one class are to be alike."""

    card = Card(formats=[Format(["text"], labels="class")], encoders=["dense"], row_wise=False)
    sign = 1

    def compute(self, columns, labels, rows):
        alike = labels[:, None] == labels
        return -self.sign * self.matrix(columns[0], columns[0]).where(alike, 0.0).mean()


class Unlike(Classified):
    sign = -1


class NoDocuments:
    """A regularizer of queries alone."""

    card = Card(encoders=["sparse"], row_wise=False)

    def __call__(self, queries, documents):
        return queries.embedding.mean(0).square().sum()


CROSS = {"family": "cross-encoder", "form": LISTS}
BROKEN = {
    "gradient-of-a-half": ("gradient", Subject(DetachesHalf), "the embedding of column 1 (anchor) is not that of"),
    "gradient-of-its-own": ("gradient", Subject(DetachesScale), "the gradient by the parameters of the loss is not"),
    "gradient-of-a-column": ("gradient", Subject(DetachesPositives), "the embedding of column 2 (positive)"),
    "backward": ("gradient", Subject(OwnBackward, family="multi-vector"), "along a random direction"),
    "negatives": ("inputs-used", Subject(FirstNegative), "column 4 (negative) does not change the value"),
    "anchors": ("inputs-used", Subject(NoAnchors), "column 1 (anchor) does not change the value"),
    "detached": (
        "inputs-used",
        Subject(DetachesPositives),
        "no gradient reaches column 2 (positive), which changes the value",
    ),
    "documents": (
        "inputs-used",
        Subject(FirstDocument),
        "text 2 of the lists of column 2 (documents) does not change the value",
    ),
    "pairs": ("inputs-used", Subject(FirstDocument, **CROSS), "text 2 of the lists of the scored pairs"),
    "regularizer": (
        "inputs-used",
        Subject(NoDocuments, "regularizer", family="sparse"),
        "column 2 (text) does not change the value",
    ),
    "broadcast": (
        "labels-used",
        Subject(BroadcastsLabels),
        "labels exchanged between rows do not change the value",
    ),
    "unread": ("labels-used", Subject(IgnoresLabels), "do not change the value, nor do labels of 0"),
    "mean": ("labels-used", Subject(MeanLabel, **CROSS), "labels exchanged between rows do not change the value"),
    "sign": ("direction", Subject(WrongWay), "the loss is no lower for records that are as the labels say"),
    "target": (
        "direction",
        Subject(OffByOne, family="sparse"),
        "the loss is no lower for records that are as the labels",
    ),
    "square": ("direction", Subject(Squared), "the loss is no lower for records that are as the labels say"),
    "inverse": ("direction", Subject(Inverted), "the loss is no lower for records that are as the labels say"),
    "scores": ("direction", Subject(Falling, **CROSS), "the loss is no lower for records that are as the labels say"),
    "late": (
        "direction",
        Subject(Falling, family="multi-vector"),
        "the loss is no lower for records that are as the labels say",
    ),
    "classes": ("direction", Subject(Unlike), "the loss is no lower for records that are as the labels say"),
    "normalised": ("weights-used", Subject(Normalises), "the value is not linear in the sample weights"),
    "summed": ("weights-used", Subject(SumsWeighted), "sample weights of 1 change the value"),
    "forgotten": ("weights-used", Subject(ForgetsWeights), "sample weights exchanged between rows do not change"),
    "of-all": ("weights-used", Subject(WeighsAll), "sample weights exchanged between rows do not change the value"),
    "taken": ("weights-used", Subject(TakesAnyWeights), "taken by a loss that says it cannot use them"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_defect_is_found(name):
    law, subject, words = BROKEN[name]
    (found,) = check(subject, only=[law])
    assert (found.id, found.status) == (law, "failed"), found
    assert words in found.message
    assert found.expected
    assert found.got
    assert found.cause
    assert found.line
    assert found == check(subject, only=[law])[0]


@pytest.mark.parametrize("law", ["gradient", "inputs-used", "labels-used", "direction", "weights-used"])
@pytest.mark.parametrize(
    "subject",
    [
        *(Subject(Contrastive, family=family, weights=True) for family in EMBEDDING),
        *(Subject(Fixed, family=family, negatives=0) for family in EMBEDDING),
        Subject(Fixed, seed=3),
        Subject(Regresses),
        Subject(Regresses, family="sparse"),
        Subject(Hinge),
        Subject(Hinge, seed=4),
        Subject(Single),
        Subject(Scored),
        Subject(Scored, family="multi-vector"),
        Subject(Scored, **CROSS),
        Subject(Classified),
    ],
    ids=lambda subject: f"{subject.make.__name__}-{subject}-{subject.seed}",
)
def test_sound_losses_are_let_be(subject, law):
    (found,) = check(subject, only=[law])
    assert found.fine, found
    assert found.status == "passed" or law in ("labels-used", "direction")


@pytest.mark.parametrize(
    ("law", "subject", "reason"),
    [
        ("labels-used", Subject(Fixed), "its data have no labels"),
        ("inputs-used", Subject(Fixed, rows=3), "it takes 4 rows or more"),
        ("direction", Subject(Contrastive), "parameters of its own stand between records and what is right"),
        ("direction", Subject(Fixed, rows=7), "7 rows have no directions of their own in 8 dimensions"),
        (
            "direction",
            Subject(Regresses, form=Format(["text", "text"], labels="class")),
            "its data do not say what a right model would give",
        ),
        (
            "direction",
            Subject(Scored, form=Format(["query", "positive", "negative+"], labels="margins")),
            "similarities by cosine have no margins of any size",
        ),
    ],
)
def test_what_cannot_apply_says_why(law, subject, reason):
    (found,) = check(subject, only=[law])
    assert (found.status, found.message) == ("not_applicable", reason)


def test_a_similarity_that_does_not_rise_with_cosines_says_nothing_of_direction():
    class Angled(Regresses):
        default_similarity = {"dense": "angle"}  # noqa: RUF012 - a test's

    (found,) = check(Subject(Angled), only=["direction"])
    assert (found.status, found.message) == ("not_applicable", "similarities by angle do not rise with cosines")


def test_a_loss_that_is_not_finite_has_no_gradient():
    class Unbounded(Regresses):
        def compute(self, columns, labels, rows):
            return super().compute(columns, labels, rows) / 0.0

    (found,) = check(Subject(Unbounded), only=["gradient"])
    assert (found.status, found.expected) == ("failed", "nan by finite differences")


def test_a_loss_that_changes_from_call_to_call_has_no_differences_to_take():
    class Counts(Regresses):
        calls = 0

        def compute(self, columns, labels, rows):
            self.calls += 1
            return super().compute(columns, labels, rows) * self.calls

    (found,) = check(Subject(Counts), only=["gradient"])
    assert (found.status, found.message) == ("not_applicable", "the value of the same records is another at each call")


def test_the_gradient_of_larger_batches_counts():
    class InPieces(Contrastive):
        """Of more than 32 rows it trains on the first piece alone."""

        def mean(self, values, weight):
            return torch.cat([values[:32], values[32:].detach()]).mean()

    (found,) = check(Subject(InPieces), only=["gradient"])
    assert found.status == "failed"
    assert found.message.startswith("with 33 rows: the gradient by ")


def test_the_gradient_leaves_parameters_as_they_were():
    losses = []

    def made(model):
        losses.append(Contrastive(model, scale=1 / 3))
        return losses[-1]

    (found,) = check(Subject(made, component=Contrastive), only=["gradient"])
    assert found.status == "passed"
    assert [float(loss.scale.detach()) for loss in losses] == [1 / 3] * len(losses)


def test_records_are_changed_in_form_alone():
    record = Output(torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool), lists=(2, 1))
    generator = torch.Generator().manual_seed(0)
    other, moved = others(record, generator), shaken(record, generator)
    assert (other.embedding > 0).all()  # those were not negative
    assert 0.05 <= float(moved.embedding.detach().min()) <= float(moved.embedding.detach().max()) <= 0.15
    assert len(moved.embedding.unique()) == 6
    assert torch.equal(other.mask, record.mask)
    assert other.lists == record.lists
    assert places(record) == {0: [0, 2], 1: [1]}
    mixed = with_items(record, other, [1])
    assert [row.any().item() for row in mixed.embedding] == [False, True, False]
    assert not same(torch.tensor(1.0), torch.tensor(float("nan")))
