"""Laws of numbers: each is broken by a loss that is sound but for one thing."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import Card, Format, Loss, LossError
from losskit.testing import Subject, check


class Sound(Loss):
    """Cross-entropy of each anchor's positive among all, by inner products."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"], memory="B^2")

    def __init__(self, model=None, scale: float = 0.5, *, execution=None):
        super().__init__(model, execution=execution)
        self.scale = scale

    def compute(self, columns, labels, rows):
        return self.per_row(self.scale * columns[0][rows].embedding @ columns[1].embedding.T, rows).mean()

    def per_row(self, scores, rows):
        targets = torch.arange(rows.start, rows.stop, device=scores.device)
        return torch.nn.functional.cross_entropy(scores, targets, reduction="none")


class Naive(Sound):
    """An exponential that overflows."""

    def per_row(self, scores, rows):
        raised = scores.exp()
        return -(raised.diagonal(rows.start) / raised.sum(1)).log()


class Cancels(Sound):
    """Squared distances as differences of large numbers."""

    def compute(self, columns, labels, rows):
        a, b = columns[0][rows].embedding + 1e4, columns[1].embedding + 1e4
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return self.per_row(-squares, rows).mean()


class Views(Sound):
    def compute(self, columns, labels, rows):
        a = columns[0].embedding.view(-1).view(columns[0].embedding.shape)
        return self.per_row(a[rows] @ columns[1].embedding.T, rows).mean()


class ReadsMemory(Sound):
    """As if its records lay one behind the other."""

    def compute(self, columns, labels, rows):
        a = columns[0].embedding
        return self.per_row(a.as_strided(a.shape, (a.shape[1], 1))[rows] @ columns[1].embedding.T, rows).mean()


class HidesNaN(Sound):
    def per_row(self, scores, rows):
        return super().per_row(scores, rows).nan_to_num()


class LeavesNaNOut(Sound):
    """Counts what is above 0, which NaN is not."""

    def per_row(self, scores, rows):
        losses = super().per_row(scores, rows)
        return losses.where(losses > 0, 0.0)


class RefusesNaN(Sound):
    """A sound loss that reads its records on the host."""

    def per_row(self, scores, rows):
        if scores.isnan().any():
            raise LossError("the scores", expected="numbers", got="NaN")
        return super().per_row(scores, rows)


class Divides(Sound):
    def __init__(self, model=None, temperature: float = 1.0, *, execution=None):
        super().__init__(model, 1.0, execution=execution)
        self.temperature = temperature

    def per_row(self, scores, rows):
        return super().per_row(scores / self.temperature, rows)


class RefusesZero(Divides):
    def __init__(self, model=None, temperature: float | None = None, *, execution=None):
        super().__init__(model, 1.0 if temperature is None else temperature, execution=execution)
        if not self.temperature:
            raise LossError("temperature", expected="a positive number", got="0")


class SkipsWithoutWeight(Sound):
    """No weight, no graph."""

    def __init__(self, model=None, weight: float = 0.1, *, execution=None):
        super().__init__(model, execution=execution)
        self.weight = weight

    def per_row(self, scores, rows):
        return self.weight * super().per_row(scores, rows) if self.weight else scores.new_zeros(2)


class Sums(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) * (rows.stop - rows.start)


class DividesTwice(Sound):
    def compute(self, columns, labels, rows):
        return super().compute(columns, labels, rows) / (rows.stop - rows.start) ** 2


class SaysSum(Sums):
    """An attribute is no option."""

    reduction = "sum"


class SumByDefault(Sound):
    """A sum, unless asked."""

    def __init__(self, model=None, reduction: str = "sum", *, execution=None):
        super().__init__(model, execution=execution)
        self.reduction = reduction

    def compute(self, columns, labels, rows):
        mean = super().compute(columns, labels, rows)
        return mean * (rows.stop - rows.start) if self.reduction == "sum" else mean


class SumAlone(SumByDefault):
    """Has the option and no other value of it."""

    def __init__(self, model=None, reduction: str = "sum", *, execution=None):
        super().__init__(model, reduction, execution=execution)
        if reduction != "sum":
            raise LossError("reduction", expected="sum", got=reduction)


class SumsWhateverIsAsked(SumByDefault):
    def compute(self, columns, labels, rows):
        return Sound.compute(self, columns, labels, rows) * (rows.stop - rows.start)


class ChoosesByLastDigits(Sound):
    """Some scores count twice: which ones, no two precisions agree on."""

    def per_row(self, scores, rows):
        twice = (1e7 * scores).sin() > 0
        return super().per_row(torch.where(twice, 2 * scores, scores), rows)


class CancelsAtTimes(Sound):
    """Differences of large numbers in the first batch alone."""

    def compute(self, columns, labels, rows):
        a, b = columns[0].embedding, columns[1].embedding
        large = torch.where((a.detach().sum() - FIRST).abs() < 1, 1e4, 0.0)
        a, b = a[rows] + large, b + large
        squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        return self.per_row(-squares, rows).mean()


def anchors(seed):
    subject = Subject(Sound, seed=seed)
    return subject.records(subject.build())[0].embedding.detach()


FIRST = float(anchors(0).sum())
"""What tells the first batch from the others."""


@pytest.mark.parametrize(
    ("make", "law", "words"),
    [
        (Naive, "float32", "float32 beside float64, records times 30"),
        (CancelsAtTimes, "float32", "records times 1: the gradient differs"),
        (Cancels, "float32", "records times 1: the gradient differs"),
        (Views, "layout", "view"),
        (ReadsMemory, "layout", "in memory: the value differs"),
        (HidesNaN, "nan", "NaN in column 0: the value is a number"),
        (LeavesNaNOut, "nan", "NaN in column 0: the value is a number"),
        (partial(Naive, scale=20.0), "extreme-options", "scale=20000: the value is not finite"),
        (Divides, "extreme-options", "temperature=0: the value is not finite"),
        (SkipsWithoutWeight, "extreme-options", "weight=0: the loss is not connected"),
        (partial(Divides, temperature=2.0), "extreme-options", "temperature=0: the value is not finite"),
        (Sums, "batch-size", "of the number of rows"),
        (SaysSum, "batch-size", "of the number of rows"),
        (SumAlone, "batch-size", "of the number of rows"),
        (SumsWhateverIsAsked, "batch-size", "of the number of rows"),
        (DividesTwice, "batch-size", "of the number of rows"),
    ],
)
def test_a_defect_of_numbers_is_found(make, law, words):
    (found,) = check(Subject(make), only=[law])
    assert (found.id, found.status) == (law, "failed"), found
    assert words in found.message
    assert found.expected
    assert found.cause


@pytest.mark.parametrize("make", [Sound, RefusesNaN, RefusesZero])
def test_sound_losses_keep_the_laws_of_numbers(make):
    laws = ["float32", "layout", "nan", "extreme-options", "batch-size"]
    assert [(each.status, each.message) for each in check(Subject(make), only=laws)] == [("passed", "")] * 5


@pytest.mark.parametrize("make", [SumByDefault, partial(SumByDefault, reduction="sum")])
def test_of_a_sum_and_a_mean_the_mean_is_judged(make):
    (found,) = check(Subject(make), only=["batch-size"])
    assert (found.status, found.message) == ("passed", "")


def test_only_the_first_batch_has_the_sum_of_the_first():
    assert all(abs(float(anchors(seed).sum()) - FIRST) > 2 for seed in (1, 2))


def test_a_choice_between_equal_numbers_is_no_matter_of_precision():
    (found,) = check(Subject(ChoosesByLastDigits), only=["float32"])
    expected = "its gradient in float64 moves as much when records are rounded"
    assert (found.status, found.message) == ("not_applicable", expected)


def test_a_place_of_no_consequence_may_be_nan():
    class OfTheFirst(Sound):
        def compute(self, columns, labels, rows):
            return columns[0].embedding[:, 0].mean()

    (found,) = check(Subject(OfTheFirst), only=["nan"])
    assert (found.status, found.message) == ("passed", "")


def test_options_that_are_no_numbers_are_left_alone():
    class Plain(Sound):
        def __init__(self, model=None, *, execution=None):
            super().__init__(model, 1.0, execution=execution)

    (found,) = check(Subject(Plain), only=["extreme-options"])
    assert (found.status, found.message) == ("not_applicable", "it has no options that are numbers")
