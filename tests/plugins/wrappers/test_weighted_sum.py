"""The weighted sum: the laws, the formula, common formats, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

import losskit
from losskit import Card, Direct, Format, Loss, LossError
from losskit.clock import Clock
from losskit.testing import ToyEncoder, laws, random_batch, subjects
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


def scheduled_order(model):
    losses = {"ranking": MultipleNegativesRankingLoss(model), "order": CoSENTLoss(model)}
    loss = WeightedSumLoss(model, losses, {"order": {"schedule": "cosine", "to": 0.5}})
    loss.set_clock(Clock(progress=0.4))
    return loss


SUBJECTS = [
    *subjects(scheduled_order, kind="wrapper", families=["dense"]),
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


def shape(name, passed):
    return {"constant": 1.0, "linear": passed, "quadratic": passed * passed,
            "cosine": 0.5 - 0.5 * math.cos(passed * math.pi)}[name]  # fmt: skip


@pytest.mark.parametrize("name", ["constant", "linear", "quadratic", "cosine"])
def test_weights_follow_the_progress_and_stand_at_their_end_in_evaluation(name):
    model = ToyEncoder(seed=0)
    schedule = {"schedule": name, "from": 0.5, "to": 2.0, "delay": 0.2, "warmup": 0.4}
    expression = {"name": "weighted-sum", "losses": {"one": "cosent", "two": "cosent"}, "weights": {"two": schedule}}
    loss = losskit.build(expression, model)
    assert loss.get_config_dict()["weights"] == {"two": schedule}
    features, labels = [model.preprocess(["a", "b", "c"]), model.preprocess(["d", "e", "f"])], torch.arange(3.0)

    def ratio():
        values = loss(features, labels)
        return (values["two"] / values["one"]).item()

    with pytest.raises(LossError, match=r"WeightedSumLoss.progress: expected to be set by the trainer, got nothing"):
        ratio()
    for progress in (0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.9, 1.0):
        loss.set_clock(Clock(progress=progress))
        passed = min((progress - 0.2) / 0.4, 1.0)
        expected = 0.5 if progress < 0.2 else 0.5 + 1.5 * shape(name, passed)
        assert ratio() == pytest.approx(expected)
    loss.set_clock(Clock(progress=0.3))
    model.eval()
    assert ratio() == pytest.approx(2.0)


def test_a_slice_that_is_computed_again_has_the_weight_of_its_forward():
    model = ToyEncoder(seed=0)
    losses = {"ranking": MultipleNegativesRankingLoss(model)}
    gradients = []
    for rows in (None, 1):
        loss = WeightedSumLoss(model, losses, {"ranking": {}}, execution=Direct(rows=rows))
        loss.set_clock(Clock(progress=0.25))
        value = loss([model.preprocess(["a b", "c"]), model.preprocess(["d", "e"])])["ranking"]
        loss.set_clock(Clock(progress=0.75))
        model.zero_grad()
        value.backward()
        gradients.append(model.first.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ({"shape": "linear"}, r"weights.a.shape: expected a key of a schedule \(schedule, from, to, delay, warmup\)"),
        ({"schedule": "cubic"}, "weights.a.schedule: expected one of constant, linear, quadratic, cosine, got 'cubic'"),
        ({"schedule": [1]}, r"weights.a.schedule: expected one of .*, got \[1\]"),
        ({"to": "much"}, "weights.a.to: expected a finite number, got 'much'"),
        ({"from": math.nan}, "weights.a.from: expected a finite number, got nan"),
        ({"warmup": 1.5}, r"weights.a.warmup: expected a share of the training, in \[0, 1\], got 1.5"),
        ({"delay": -0.1}, r"weights.a.delay: expected a share of the training, in \[0, 1\], got -0.1"),
        ({"delay": 0.5, "warmup": 0.6}, "weights.a: expected delay and warmup of at most 1 together, got 0.5 and 0.6"),
        (math.inf, "weights.a: expected a finite number, got inf"),
        (True, "weights.a: expected a finite number, got True"),
    ],
)
def test_refuses_weights_that_are_none(weight, words):
    with pytest.raises(LossError, match=words):
        WeightedSumLoss(None, {"a": CoSENTLoss()}, {"a": weight})


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


GUIDE = {"name": "losskit.testing:ToyEncoder", "dimension": 5, "seed": 1}


def test_losses_that_name_one_guide_share_it():
    def expression(guide):
        losses = {"near": {"name": "gist", "guide": GUIDE}, "far": {"name": "gist", "margin": 0.1, "guide": guide}}
        return {"name": "weighted-sum", "losses": losses}

    model = ToyEncoder(seed=0)
    loss = losskit.build(expression({"seed": 1, **GUIDE}), model)
    near, far = (loss.losses[name].guide for name in ("near", "far"))
    assert near is far
    assert losskit.build(expression(GUIDE), model).losses["near"].guide is not near
    features = random_batch(loss.formats[0]).features(loss)
    alone = {name: losskit.build(each, model)(features) for name, each in expression(GUIDE)["losses"].items()}
    assert loss(features) == alone
    again = losskit.build({"name": "weighted-sum", **loss.get_config_dict()}, model)
    assert again(features) == alone
    with pytest.raises(LossError, match=r"the encoder 'guide': expected one .*, got two. Fix: .* the same expression"):
        losskit.build(expression({**GUIDE, "seed": 2}), model)


def test_losses_that_score_other_pairs_are_refused():
    class Reversed(ListNetLoss):
        def pairs(self, columns, drawn=None):
            pairs, lists = super().pairs(columns, drawn)
            return [(document, query) for query, document in pairs], lists

    model = ToyEncoder("cross-encoder")
    columns, labels = [["a", "b"], [["c"], ["d", "e"]]], [torch.ones(1), torch.ones(2)]
    same = WeightedSumLoss(model, {"one": ListNetLoss(model), "two": ListNetLoss(model)})
    torch.testing.assert_close(same(columns, labels)["one"], ListNetLoss(model)(columns, labels))
    with pytest.raises(
        LossError, match=r"losses.two: expected the pairs of texts that one scores, .*got others, of Rev"
    ):
        WeightedSumLoss(model, {"one": ListNetLoss(model), "two": Reversed(model)})


DRAWN = "cross-multiple-negatives-ranking"


@pytest.mark.parametrize(
    "other", [DRAWN, "list-net", {"name": "weighted-sum", "losses": {"inner": "margin-mse"}}], ids=str
)
def test_refuses_losses_that_would_score_other_pairs(other):
    losses = {"drawn": DRAWN, "other": other}
    with pytest.raises(
        LossError, match=r"WeightedSumLoss\.losses\.other: expected the pairs of texts that drawn scores"
    ):
        losskit.build({"name": "weighted-sum", "losses": losses}, ToyEncoder("cross-encoder"))


@pytest.mark.parametrize("names", [("margin-mse", "list-net"), (DRAWN, DRAWN)], ids="-".join)
def test_losses_of_the_same_pairs_share_their_scores(names):
    toy = ToyEncoder("cross-encoder", seed=0)
    first, second = ({"name": name, **({"num_negatives": None} if name == DRAWN else {})} for name in names)
    second["activation"] = "tanh"
    columns = [["q", "r", "s"], ["a b", "b", "c"], ["d", "e f", "g"]]
    labels = None if names[0] == DRAWN else torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    together = losskit.build({"name": "weighted-sum", "losses": {"a": first, "b": second}, "weights": {"b": 3.0}}, toy)
    forwards = []
    toy.register_forward_hook(lambda *_: forwards.append(1))
    got = together(columns, labels)
    assert len(forwards) == 1
    alone = [losskit.build(each, toy)(columns, labels) for each in (first, second)]
    torch.testing.assert_close(got, {"a": alone[0], "b": 3 * alone[1]})
