"""Adaptive layers, alone and around Matryoshka: the laws, the formula, draws, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import losskit
from losskit import GradCache, LossError, Output
from losskit.clock import Clock
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.adaptive_layer import AdaptiveLayerLoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss
from losskit_plugins.wrappers.matryoshka_2d import Matryoshka2dLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss


def around(inner, **options):
    return lambda model: AdaptiveLayerLoss(model, inner(model), **options)


def nested(model):
    """Layers inside a sum inside sizes, and layers again around it all."""
    losses = {"layers": around(MultipleNegativesRankingLoss)(model), "plain": MultipleNegativesRankingLoss(model)}
    sizes = MatryoshkaLoss(model, WeightedSumLoss(model, losses, {"plain": 0.5}), (8, 3), normalize=True)
    return AdaptiveLayerLoss(model, sizes, kl_over="dimensions")


def in_two_dimensions(model):
    return Matryoshka2dLoss(model, MultipleNegativesRankingLoss(model), (8, 5, 2), dims_per_step=2, kl_weight=0.5)


RANKING = around(MultipleNegativesRankingLoss, last_layer_weight=2.0, prior_layers_weight=0.5)
ORDER = around(CoSENTLoss, kl_over="dimensions", kl_weight=0.1)
WITHOUT = around(MultipleNegativesRankingLoss, prior_layers_weight=0.0, kl_weight=0.0)
SUBJECTS = [
    *subjects(RANKING, kind="wrapper", weights=True),
    *subjects(RANKING, kind="wrapper", lists=("positive",)),
    *subjects(ORDER, kind="wrapper"),
    *subjects(WITHOUT, kind="wrapper", equals=MultipleNegativesRankingLoss),
    *subjects(nested, kind="wrapper", families=["dense"], weights=True),
    *subjects(in_two_dimensions, kind="wrapper"),
]


@pytest.mark.parametrize("law", laws("wrapper"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def records(layers=4, rows=3, dim=5, columns=2):
    generator = torch.Generator().manual_seed(layers)

    def column():
        made = [torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(layers)]
        made = [each.requires_grad_() for each in made]
        return Output(made[-1], layers=tuple(made))

    return [column() for _ in range(columns)]


def leaves(columns):
    return [layer for column in columns for layer in column.layers]


def ranking_in_loops(a, b):
    rows = range(len(a))
    unit = [[row / row.norm() for row in each] for each in (a, b)]
    logits = [[20 * (unit[0][i] @ unit[1][j]) for j in rows] for i in rows]
    return sum(torch.stack(logits[i]).logsumexp(0) - logits[i][i] for i in rows) / len(a)


def directions_in_loops(student, teacher):
    return 1 - student @ teacher / (student.norm() * teacher.norm())


def dimensions_in_loops(student, teacher):
    p, q = ([(x / 0.3).exp() for x in each] for each in (teacher, student))
    p, q = ([x / sum(each) for x in each] for each in (p, q))
    return 0.3 * sum(x * (x / y).log() for x, y in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [
        ("uniform", lambda layer: 1),
        ("log", lambda layer: 1 / (1 + math.log(1 + layer))),
        ("linear", lambda layer: 1 / (1 + layer)),
    ],
)
@pytest.mark.parametrize(
    ("kl_over", "divergence"), [("directions", directions_in_loops), ("dimensions", dimensions_in_loops)]
)
def test_equals_the_formula_in_loops(weighting, weight, kl_over, divergence):
    columns = records()
    loss = AdaptiveLayerLoss(
        None, MultipleNegativesRankingLoss(), -1, 2.0, 0.5, 0.7, layer_weighting=weighting, kl_over=kl_over
    )
    a, b = (column.layers for column in columns)
    expected = 2.0 * ranking_in_loops(a[3], b[3])
    for layer in range(3):
        expected = expected + 0.5 * weight(layer) * ranking_in_loops(a[layer], b[layer]) / 3
        pairs = [(each[layer][row], each[3][row].detach()) for each in (a, b) for row in range(3)]
        expected = expected + 0.7 / 3 * sum(divergence(*pair) for pair in pairs) / 6
    got = loss.compute(columns, None, slice(0, 3))
    assert list(got) == ["adaptive_final", *(f"adaptive_layer_{layer}" for layer in range(3)), "adaptive_kl"]
    require_equal("loops", differentiate(expected, leaves(columns)), differentiate(got, leaves(columns)))


class Deep(nn.Module):
    """A toy whose record has four layers before the last."""

    family, dimension, normalized, similarity = "dense", 8, False, "cosine"

    def __init__(self):
        super().__init__()
        self.toy = ToyEncoder(seed=0)
        self.preprocess = self.toy.preprocess

    def forward(self, features):
        made = self.toy(features).embedding
        return {"sentence_embedding": made, "layers": [made + number for number in range(4)] + [made]}


def drawn(loss, step=0, seed=0):
    loss.set_clock(Clock(seed=seed, step=step))
    batch = random_batch(loss.formats[0])
    found = loss(batch.features(loss), batch.flat_labels)
    return {int(key.split("/")[0].rpartition("_")[2]) for key in found if key.startswith("adaptive_layer")}


def test_draws_so_many_layers_each_step_and_always_the_same_in_evaluation():
    model = Deep()
    loss = AdaptiveLayerLoss(model, CoSENTLoss(model), layers_per_step=2)
    seen = [drawn(loss, step) for step in range(30)]
    assert all(len(each) == 2 for each in seen)
    assert set.union(*seen) == {0, 1, 2, 3}  # never the last
    assert len({frozenset(each) for each in seen}) == 6
    model.eval()
    assert len({frozenset(drawn(loss, step)) for step in range(10)}) == 1


def test_the_same_step_draws_the_same_layers_and_other_seeds_others():
    model = Deep()
    losses = [AdaptiveLayerLoss(model, CoSENTLoss(model)) for _ in range(2)]
    first, second = ([drawn(loss, step, seed=3) for step in range(20)] for loss in losses)
    assert first == second
    assert first != [drawn(losses[0], step, seed=4) for step in range(20)]


@pytest.mark.parametrize(("layers_per_step", "layers"), [(-1, 4), (4, 4), (1, 1)])
def test_draws_as_many_layers_as_there_are(layers_per_step, layers):
    model = Deep()
    assert len(drawn(AdaptiveLayerLoss(model, CoSENTLoss(model), layers_per_step))) == layers


def test_more_layers_than_there_are_are_refused_in_the_first_batch():
    model = Deep()
    message = "AdaptiveLayerLoss.layers_per_step: expected at most 4, the layers before the last, or -1 for all, got 5"
    with pytest.raises(LossError, match=message):
        drawn(AdaptiveLayerLoss(model, CoSENTLoss(model), 5))
    with pytest.raises(LossError, match=message):
        drawn(MatryoshkaLoss(model, AdaptiveLayerLoss(model, CoSENTLoss(model), 5), (8, 4)))
    with pytest.raises(LossError, match=message):
        drawn(Matryoshka2dLoss(model, CoSENTLoss(model), (8, 4), layers_per_step=5))


class Foreign(nn.Module):
    """Stands around a model as the engines of other libraries do."""

    def __init__(self, module):
        super().__init__()
        self.module = module
        self.preprocess = module.preprocess

    def forward(self, *arguments):
        return self.module(*arguments)


class Transparent(Foreign):
    """Shows the attributes of the model."""

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def test_a_foreign_wrapper_of_a_model_shows_the_layers_of_an_encoder_or_says_that_it_hides_them():
    assert drawn(losskit.build({"name": "adaptive-layer", "loss": "cosent"}, Transparent(ToyEncoder()))) == {0}
    for hidden, message in (
        (Foreign(ToyEncoder()), "got records without layers. Fix: .* foreign wrappers of a model hide them"),
        (Foreign(Flat()), r"expected keys layers, got .*'sentence_embedding'\]. Fix: .* without a wrapper"),
    ):
        with pytest.raises(LossError, match=message):
            drawn(losskit.build({"name": "adaptive-layer", "loss": "cosent"}, hidden))


class Flat(nn.Module):
    """Gives a dict, and no layers."""

    def __init__(self):
        super().__init__()
        self.toy = ToyEncoder()
        self.preprocess = self.toy.preprocess

    def forward(self, features):
        return {"sentence_embedding": self.toy(features).embedding}


def test_without_layers_before_the_last_it_is_the_inner_loss():
    columns = records(layers=1)
    inner = MultipleNegativesRankingLoss()
    got = AdaptiveLayerLoss(None, inner).compute(columns, None, slice(0, 3))
    assert got == {"adaptive_final": inner.compute(columns, None, slice(0, 3))}


def test_a_column_that_nothing_encodes_stays_as_it_is():
    class First(CoSENTLoss):
        def compute(self, columns, labels, rows):
            assert columns[1].embedding is None
            return columns[0].embedding[rows].sum()

    columns = [records(columns=1)[0], Output(None, parts={"input_ids": torch.zeros(3, 2)})]
    got = AdaptiveLayerLoss(None, First(), -1).compute(columns, None, slice(0, 3))
    assert got["adaptive_layer_1"] == columns[0].layers[1].sum() / 3
    teacher, *_ = columns[0].embedding.detach()[None]
    students = [layer.detach() for layer in columns[0].layers[:3]]
    wanted = [directions_in_loops(s, t) for each in students for s, t in zip(each, teacher, strict=True)]
    torch.testing.assert_close(got["adaptive_kl"], sum(wanted) / 9)


def test_the_divergence_is_weighted_by_row():
    columns = records(columns=1)
    weighted = [Output(columns[0].embedding, layers=columns[0].layers, parts={"weight": torch.tensor([0.0, 2.0, 0.0])})]

    class Nothing(CoSENTLoss):
        def compute(self, columns, labels, rows):
            return columns[0].embedding.sum() * 0

    got = AdaptiveLayerLoss(None, Nothing(), -1).compute(weighted, None, slice(0, 3))["adaptive_kl"]
    teacher = columns[0].embedding[1]
    wanted = sum(directions_in_loops(columns[0].layers[layer][1], teacher) for layer in range(3)) * 2 / 9
    torch.testing.assert_close(got, wanted)


def test_two_dimensions_are_layers_around_sizes():
    columns = records()
    options = {"layers_per_step": -1, "last_layer_weight": 2.0, "kl_over": "dimensions", "layer_weighting": "log"}
    composed = Matryoshka2dLoss(None, MultipleNegativesRankingLoss(), (5, 2), (1.0, 0.5), dims_per_step=-1, **options)
    sizes = MatryoshkaLoss(None, MultipleNegativesRankingLoss(), (5, 2), (1.0, 0.5))
    by_hand = AdaptiveLayerLoss(None, sizes, **options)
    ours, wanted = (loss.compute(columns, None, slice(0, 3)) for loss in (composed, by_hand))
    assert ours == wanted
    assert "adaptive_layer_0/matryoshka_2" in ours
    assert composed.get_config_dict() == {
        "dims": [5, 2],
        "weights": [1.0, 0.5],
        "dims_per_step": -1,
        "normalize": None,
        "axis": "dimensions",
        "prior_layers_weight": 1.0,
        "kl_weight": 1.0,
        "kl_temperature": 0.3,
        "loss": {"name": "multiple-negatives-ranking", **MultipleNegativesRankingLoss().get_config_dict()},
        **options,
    }


def test_works_around_cached_executions():
    toy = ToyEncoder(seed=0)
    batch = random_batch(MultipleNegativesRankingLoss.card.formats[0])
    found = []
    for execution in (None, GradCache(mini_batch_size=2)):
        loss = losskit.build({"name": "matryoshka-2d", "dims": [8, 4], "loss": "multiple-negatives-ranking"}, toy,
                             execution=execution)  # fmt: skip
        found.append(differentiate(loss(batch.features(loss)), list(toy.words.parameters())))
    require_equal("cached", *found)


class Static(nn.Module):
    """An encoder that knows that it has no transformer."""

    family, dimension, normalized, transformer = "dense", 8, False, None


def test_refuses_what_cannot_be():
    inner = CoSENTLoss()
    for options, words in (
        (
            {"layers_per_step": 0},
            "AdaptiveLayerLoss.layers_per_step: expected a positive integer, or -1 for all, got 0",
        ),
        ({"layer_weighting": "cubic"}, "layer_weighting: expected one of uniform, log, linear, got 'cubic'"),
        ({"kl_over": "batch"}, "kl_over: expected one of directions, dimensions, got 'batch'"),
        ({"kl_temperature": 0.0}, "kl_temperature: expected a positive number, got 0.0. Fix: kl_weight=0"),
        ({"kl_temperature": float("inf")}, "kl_temperature: expected a positive number, got inf"),
        ({"last_layer_weight": float("nan")}, "last_layer_weight: expected a finite number, got nan"),
    ):
        with pytest.raises(LossError, match=words):
            AdaptiveLayerLoss(None, inner, **options)
    static = Static()
    with pytest.raises(LossError, match=r"AdaptiveLayerLoss.model: expected an encoder with layers, got one without a"):
        AdaptiveLayerLoss(static, CoSENTLoss(static))
    with pytest.raises(LossError, match="expected records with the embedding of every layer, got records without"):
        AdaptiveLayerLoss(None, inner).compute_loss_from_embeddings([torch.ones(2, 3), torch.ones(2, 3)], torch.ones(2))
    with pytest.raises(LossError, match="expected an encoder that is dense, got ToyEncoder, which is sparse"):
        losskit.build({"name": "adaptive-layer", "loss": "cosent"}, ToyEncoder("sparse"))


def test_draws_are_made_where_the_generator_is():
    """A default device that is another than the generator's would be refused."""
    generator = torch.Generator().manual_seed(0)
    loss = RANKING(ToyEncoder())
    expected = loss.draw(generator, (6, 6))
    with torch.device("meta"):
        again = loss.draw(generator.manual_seed(0), (6, 6))
    assert expected == again is not None
