"""Labels and lists that a loss cannot use are refused before anything is computed."""

import pytest
import torch

import losskit
from losskit import Card, Format, Loss, LossError, Output
from losskit.check import check_batch, check_lists, check_values
from losskit.testing.batches import random_batch
from losskit.testing.toys import ToyEncoder

TRIPLETS = [Format(["anchor", "positive", "negative*"])]


def columns(*lists):
    return [Output(torch.ones(4, 2), lists=each) for each in lists]


class TestMasks:
    def check(self, *masks):
        records = [Output(torch.ones(4, 3, 2), mask=mask) for mask in masks]
        check_batch("Loss", [], "multi-vector", records, None)

    def test_refuses_what_is_no_boolean_for_each_token(self):
        every = torch.ones(4, 3, dtype=torch.bool)
        self.check(every, every)
        with pytest.raises(LossError, match=r"^a mask for Loss: expected bool of shape \[4, 3\], got int64 of shape"):
            self.check(every, every.long())
        with pytest.raises(LossError, match=r"^a mask for Loss: expected bool .*, got bool of shape \[4, 2\]"):
            self.check(every[:, :2], every)

    def test_refuses_columns_of_which_some_have_none(self):
        self.check(None, None)
        with pytest.raises(LossError, match=r"^masks for Loss: expected one for every column, got 1 columns without"):
            self.check(torch.ones(4, 3, dtype=torch.bool), None)


class TestLists:
    def test_only_in_inputs_that_may_hold_them(self):
        check_lists("Loss", TRIPLETS, ["positive"], columns(None, (1, 3), None))
        check_lists("Loss", TRIPLETS, ["negative"], columns(None, None, None, (2, 2)))
        check_lists("Loss", [], [], columns((1, 3)))
        message = (
            r"column 4 \(negative\) of the batch for Loss: expected one text per row, got a list of texts per row. "
            r"Fix: give each text a row of its own, or choose a loss that takes lists"
        )
        with pytest.raises(LossError, match=message):
            check_lists("Loss", TRIPLETS, ["positive"], columns(None, (1, 3), None, (2, 2)))

    @pytest.mark.parametrize("name", ["mega-batch-margin", "triplet", "contrastive", "cosent", "softmax"])
    @pytest.mark.parametrize("place", [0, 1])
    def test_losses_that_compare_one_text_per_row_refuse_them(self, name, place):
        loss = build(name)
        batch = random_batch(loss.formats[0], lists=(loss.formats[0].inputs[place],))
        with pytest.raises(LossError, match=rf"column \d \(\w+\) of the batch for {type(loss).__name__}"):
            loss(batch.features(loss), batch.labels)

    def test_an_anchor_is_one_text_also_under_wrappers(self):
        loss = losskit.build({"name": "matryoshka", "loss": "multiple-negatives-ranking", "dims": [4]}, ToyEncoder())
        batch = random_batch(loss.formats[0], lists=("anchor",))
        with pytest.raises(LossError, match=r"column 1 \(anchor\) of the batch for MultipleNegativesRankingLoss"):
            loss(batch.features(loss))


def build(name):
    return losskit.build({"name": name, **({"num_labels": 3} if name == "softmax" else {})}, ToyEncoder())


class TestValues:
    def values(self, kind, *labels):
        check_values("Loss", [Format(["text", "text"], kind), Format(["text", "text"])], torch.tensor(labels))

    def test_binary_labels(self):
        for labels in ((0, 1), (0.0, 1.0), (True, False)):
            self.values("binary", *labels)

    @pytest.mark.parametrize("value", [2, -1, 0.5, float("inf"), -float("inf"), float("nan")])
    def test_binary_labels_that_are_none(self, value):
        with pytest.raises(LossError, match=f"labels for Loss: expected 0 or 1, got {value:g}. Fix: map them"):
            self.values("binary", 0, 1, value)

    @pytest.mark.parametrize("kind", ["score", "scores", "margins"])
    @pytest.mark.parametrize(("value", "word"), [("nan", "NaN"), ("inf", "infinity")])
    def test_scores_are_finite(self, kind, value, word):
        self.values(kind, 1, 2)
        self.values(kind, -0.5, 1e30)
        with pytest.raises(LossError, match=f"labels for Loss: expected numbers, got {word}"):
            self.values(kind, 0.5, float(value))

    def test_minus_infinity_excludes_a_candidate_of_a_list_only(self):
        self.values("scores", 0.5, -float("inf"))
        for kind in ("score", "margins"):
            with pytest.raises(LossError, match="labels for Loss: expected numbers, got infinity"):
                self.values(kind, 0.5, -float("inf"))


def test_labels_of_one_column_are_one_per_row():
    """Else [n] against [n, 1] broadcasts to [n, n], in silence."""

    class Regresses(Loss):
        card = Card(formats=[Format(["text", "text"], labels="score")], encoders=["dense"])

        def compute(self, columns, labels, rows):
            return (self.pairwise(columns[0][rows], columns[1][rows]) - labels[rows]).square().mean()

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([0.0, 1.0, 0.5, 0.2])
    loss = Regresses()
    expected = (torch.cosine_similarity(a, b) - labels).square().mean()
    for given in (labels, labels[:, None]):
        torch.testing.assert_close(loss.compute_loss_from_embeddings([a, b], given), expected)
