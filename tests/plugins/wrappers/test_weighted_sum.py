"""The weighted sum: the laws, the formula, common formats, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from losskit import Card, Format, Loss, LossError
from losskit.testing import ToyEncoder, laws, subjects
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.list_net import ListNetLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss


def ranking_and_order(model):
    losses = {"ranking": MultipleNegativesRankingLoss(model), "order": CoSENTLoss(model)}
    return WeightedSumLoss(model, losses, {"order": 0.25})


def two_rankings(model):
    losses = {
        "dot": MultipleNegativesRankingLoss(model, similarity="dot"),
        "plain": MultipleNegativesRankingLoss(model),
    }
    return WeightedSumLoss(model, losses, {"dot": 2.0})


def alone(model):
    return WeightedSumLoss(model, {"ranking": MultipleNegativesRankingLoss(model)})


def weightless(model):
    losses = {"ranking": MultipleNegativesRankingLoss(model), "none": MultipleNegativesRankingLoss(model, scale=3.0)}
    return WeightedSumLoss(model, losses, {"none": 0.0})


def lists(model):
    return WeightedSumLoss(model, {"a": ListNetLoss(model), "b": ListNetLoss(model, activation="tanh")})


SUBJECTS = [
    *subjects(ranking_and_order, kind="wrapper", families=["dense"]),
    *subjects(two_rankings, kind="wrapper", families=["dense", "sparse"], weights=True),
    *subjects(alone, kind="wrapper", families=["dense"], equals=MultipleNegativesRankingLoss),
    *subjects(weightless, kind="wrapper", families=["dense"], equals=MultipleNegativesRankingLoss),
    *subjects(lists, kind="wrapper", families=["cross-encoder"], form=ListNetLoss.card.formats[0]),
]


@pytest.mark.parametrize("law", laws("wrapper"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def test_adds_each_loss_under_its_name():
    embeddings = [torch.randn(4, 8, dtype=torch.float64) for _ in range(2)]
    labels = torch.tensor([0.0, 1.0, 0.5, 0.5])
    got = ranking_and_order(None).compute_loss_from_embeddings(embeddings, labels)
    ranking = MultipleNegativesRankingLoss().compute_loss_from_embeddings(embeddings)
    order = CoSENTLoss().compute_loss_from_embeddings(embeddings, labels)
    assert got == {"ranking": ranking, "order": 0.25 * order}


def test_takes_the_data_that_every_loss_takes():
    assert ranking_and_order(None).formats == (Format(["anchor", "positive"], labels="score", outputs=1),)
    assert two_rankings(None).formats == MultipleNegativesRankingLoss().formats


class Single(Loss):
    """Takes one column with classes."""

    card = Card(formats=[Format(["text"], labels="class")], encoders=["dense"])


def test_refuses_what_cannot_be():
    with pytest.raises(LossError, match=r"WeightedSumLoss.losses: expected one loss or more, got none"):
        WeightedSumLoss(None, {})
    with pytest.raises(LossError, match="weights: expected names among a, got b"):
        WeightedSumLoss(None, {"a": CoSENTLoss()}, {"b": 1.0})
    with pytest.raises(LossError, match=r"weights: expected one that is not 0, got \{'a': 0.0\}"):
        WeightedSumLoss(None, {"a": CoSENTLoss()}, {"a": 0.0})
    for name, words in (
        ("a.b", "can't contain"),
        ("items", "already exists"),
        ("a/b", "expected names without a slash"),
    ):
        with pytest.raises(LossError, match=words):
            WeightedSumLoss(None, {name: CoSENTLoss()})
    with pytest.raises(LossError, match=r"expected losses that some data fits in common, got a: \(text, text\) with"):
        WeightedSumLoss(None, {"a": CoSENTLoss(), "b": Single()})
    with pytest.raises(LossError, match="expected the model that the wrapper has, got another model"):
        WeightedSumLoss(ToyEncoder(), {"a": CoSENTLoss(ToyEncoder())})
    toy = ToyEncoder()
    features = [toy.preprocess(["a", "b"]) for _ in range(2)]
    features[0]["weight"] = torch.ones(2)
    with pytest.raises(LossError, match="sample weights for WeightedSumLoss"):
        ranking_and_order(toy)(features, torch.tensor([0.0, 1.0]))


def test_reads_what_any_of_its_losses_reads():
    def reading(columns):
        class Reading(MultipleNegativesRankingLoss):
            reads = columns

        return Reading(model)

    model = ToyEncoder()
    some, more = reading({"model": [0], "guide": [1]}), reading({"model": [1], "guide": None})
    assert WeightedSumLoss(model, {"a": some, "b": more}).reads == {"model": [0, 1], "guide": None}
    assert WeightedSumLoss(model, {"a": some, "b": MultipleNegativesRankingLoss(model)}).reads is None


def test_losses_that_score_other_pairs_are_refused():
    class Reversed(ListNetLoss):
        def pairs(self, columns, drawn=None):
            pairs, lists = super().pairs(columns, drawn)
            return [(document, query) for query, document in pairs], lists

    model = ToyEncoder("cross-encoder")
    columns, labels = [["a", "b"], [["c"], ["d", "e"]]], [torch.ones(1), torch.ones(2)]
    same = WeightedSumLoss(model, {"one": ListNetLoss(model), "two": ListNetLoss(model)})
    torch.testing.assert_close(same(columns, labels)["one"], ListNetLoss(model)(columns, labels))
    other = WeightedSumLoss(model, {"one": ListNetLoss(model), "two": Reversed(model)})
    with pytest.raises(LossError, match=r"losses.two: expected the pairs of texts that one scores, got others"):
        other(columns, labels)
