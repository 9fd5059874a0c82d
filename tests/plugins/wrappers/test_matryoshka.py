"""Matryoshka: the laws, the formula in loops, normalisation, draws, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from losskit import Card, Format, Loss, LossError, Output
from losskit.batch import preprocess
from losskit.clock import Clock
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.list_net import ListNetLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss

FULL = ToyEncoder().dimension
DIMS = (FULL, 5, 2)


def around(inner, dims=DIMS, **options):
    return lambda model: MatryoshkaLoss(model, inner(model), dims, **options)


def nested(model):
    again = around(MultipleNegativesRankingLoss, (4, 3))(model)
    losses = {"ranking": MultipleNegativesRankingLoss(model), "again": again}
    return MatryoshkaLoss(model, WeightedSumLoss(model, losses, {"again": 0.5}), DIMS, weights=(1.0, 0.5, 0.25))


RANKING = around(MultipleNegativesRankingLoss)
UNIT = around(MultipleNegativesRankingLoss, normalize=True)
WHOLE = around(MultipleNegativesRankingLoss, (FULL,), normalize=True)
DRAWN = around(CoSENTLoss, weights=(1.0, 0.5, 0.1), dims_per_step=2)
ACTIVE = around(MultipleNegativesRankingLoss, (5, 2), axis="active", weights=(1.0, 0.5))
ALL_ACTIVE = around(MultipleNegativesRankingLoss, (FULL,), axis="active")
SUBJECTS = [
    *subjects(RANKING, kind="wrapper", families=["dense"], weights=True),
    *subjects(UNIT, kind="wrapper", families=["dense"], lists=("positive",)),
    *subjects(WHOLE, kind="wrapper", families=["dense"], equals=MultipleNegativesRankingLoss),
    *subjects(DRAWN, kind="wrapper", families=["dense"]),
    *subjects(around(ListNetLoss), kind="wrapper", families=["dense"], form=ListNetLoss.card.formats[0]),
    *subjects(nested, kind="wrapper", families=["dense"]),
    *subjects(ACTIVE, kind="wrapper", families=["sparse", "multi-vector"]),
    *subjects(ALL_ACTIVE, kind="wrapper", families=["sparse"], equals=MultipleNegativesRankingLoss),
]


@pytest.mark.parametrize("law", laws("wrapper"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


class Normalized(ToyEncoder):
    normalized = True


@pytest.mark.parametrize(
    ("model", "normalize", "divides"),
    [(ToyEncoder(), None, False), (ToyEncoder(), True, True), (Normalized(), None, True), (Normalized(), False, False)],
    ids=["as the encoder: no", "yes", "as the encoder: yes", "no"],
)
def test_equals_the_formula_in_loops(model, normalize, divides):
    torch.manual_seed(0)
    a, b = (torch.randn(4, FULL, dtype=torch.float64, requires_grad=True) for _ in range(2))
    inner = MultipleNegativesRankingLoss(model, similarity="dot")
    loss = MatryoshkaLoss(model, inner, DIMS, weights=(1.0, 0.5, 0.25), normalize=normalize)
    expected = 0.0
    for weight, size in zip((1.0, 0.5, 0.25), DIMS, strict=True):
        x, y = a[:, :size], b[:, :size]
        if divides and size < FULL:
            x, y = (torch.stack([row / row.norm() for row in each]) for each in (x, y))
        for i in range(4):
            expected = expected + weight * (sum((x[i] @ other).exp() for other in y).log() - x[i] @ y[i]) / 4
    got = loss.compute_loss_from_embeddings([a, b])
    assert list(got) == ["matryoshka_8", "matryoshka_5", "matryoshka_2"]
    require_equal("loops", differentiate(expected, [a, b]), differentiate(got, [a, b]))


def test_draws_so_many_sizes_each_step_and_always_the_same_in_evaluation():
    toy = ToyEncoder()
    loss = MatryoshkaLoss(toy, CoSENTLoss(toy), DIMS, dims_per_step=1)
    batch = random_batch(loss.formats[0])
    seen = set()
    for step in range(12):
        loss.set_clock(Clock(step=step))
        (key,) = loss(batch.features(loss), batch.flat_labels)
        seen.add(key)
    assert seen == {f"matryoshka_{size}" for size in DIMS}
    toy.eval()
    evaluated = [list(loss(batch.features(loss), batch.flat_labels)) for _ in range(3)]
    assert evaluated[0] == evaluated[1] == evaluated[2]


def test_the_same_step_draws_the_same_sizes():
    toy = ToyEncoder()
    draws = []
    for _ in range(2):
        loss = MatryoshkaLoss(toy, CoSENTLoss(toy), (8, 7, 6, 5, 4, 3, 2), dims_per_step=3)
        batch = random_batch(loss.formats[0])
        loss.set_clock(Clock(seed=3, step=9))
        draws.append(list(loss(batch.features(loss), batch.flat_labels)))
    assert draws[0] == draws[1]


def test_components_of_dict_valued_losses_keep_their_names():
    loss = nested(ToyEncoder())
    embeddings = [torch.randn(3, FULL, dtype=torch.float64) for _ in range(2)]
    names = list(loss.compute_loss_from_embeddings(embeddings))
    assert names[:3] == ["matryoshka_8/ranking", "matryoshka_8/again/matryoshka_4", "matryoshka_8/again/matryoshka_3"]
    assert len(names) == 9


class Parts(Loss):
    """Reads a frozen guide, a tower trained beside the model, and labels."""

    card = Card(
        formats=[Format(["text", "text"], labels="embedding"), Format(["text", "text"], labels="class")],
        encoders=["dense"],
        reads={"model": None, "guide": None, "tower": [0]},
    )

    def __init__(self, model, widths):
        super().__init__(model)
        self.frozen = {"guide": ToyEncoder("dense", 5, seed=1)}
        self.towers = {"tower": ToyEncoder("dense", FULL, seed=2)}
        self.widths = widths

    def compute(self, columns, labels, rows):
        first = columns[0]
        tensors = [first.embedding, first.parts["guide"].embedding, first.parts["tower"].embedding, labels]
        self.widths.append([tensor.shape[-1] for tensor in tensors])
        return first.embedding.sum()


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in a sum"])
@pytest.mark.parametrize(
    ("labels", "wide"),
    [(torch.ones(2, FULL), True), (torch.ones(2, 2, FULL), True), (torch.tensor([1, 0]), False)],
    ids=["an embedding for all columns", "one for each", "classes"],
)
def test_cuts_towers_and_embedding_labels_and_leaves_guides_whole(labels, wide, wrapped):
    toy, widths = ToyEncoder(), []
    inner = Parts(toy, widths)
    loss = MatryoshkaLoss(toy, WeightedSumLoss(toy, {"parts": inner}) if wrapped else inner, (FULL, 3))
    assert loss.carries_texts
    columns = [["a b", "c"], ["d", "e f"]]
    loss(preprocess(loss, columns), labels)
    assert widths == [[FULL, 5, FULL, FULL if wide else 2], [3, 5, 3, 3 if wide else 2]]


class Wide(Loss):
    """A loss with parameters of the encoder's width."""

    fixed_dimension = True


def test_refuses_what_cannot_be():
    toy = ToyEncoder()
    for arguments, words in (
        ({"dims": ()}, "MatryoshkaLoss.dims: expected one positive integer or more"),
        ({"dims": (4, 0)}, "dims: expected one positive integer or more"),
        ({"dims": (4, 4)}, "dims: expected every size once"),
        ({"dims": (9,)}, "dims: expected at most the encoder's 8, got 9"),
        ({"dims": (4,), "weights": (1.0, 2.0)}, "weights: expected one for each of 1 sizes, got 2"),
        ({"dims": (4,), "weights": (float("nan"),)}, r"weights\.0: expected a finite number, got nan"),
        ({"dims": (4,), "dims_per_step": 0}, "dims_per_step: expected a positive integer, or -1 for all, got 0"),
    ):
        with pytest.raises(LossError, match=words):
            MatryoshkaLoss(toy, CoSENTLoss(toy), **arguments)
    with pytest.raises(LossError, match="Wide, whose parameters or state have the encoder's width"):
        MatryoshkaLoss(toy, Wide(toy), (4,))
    with pytest.raises(LossError, match="expected the model that the wrapper has, got another model"):
        MatryoshkaLoss(toy, CoSENTLoss(ToyEncoder()), (4,))


def test_says_once_where_the_full_embedding_is_not_trained(caplog):
    model = ToyEncoder("dense", 8)
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), dims=(6, 4))
    loss.compute_loss_from_embeddings([torch.randn(3, 8), torch.randn(3, 8)])
    said = "MatryoshkaLoss.dims: the encoder's 8 is not among (6, 4), so the full embedding is not trained"
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), dims=(8, 4))
    MatryoshkaLoss(None, MultipleNegativesRankingLoss(), dims=(4,))  # nobody says how wide it is
    assert not caplog.records


def test_a_size_beyond_the_embedding_is_the_full_size():
    a, b = (torch.randn(3, 4) for _ in range(2))
    loss = MatryoshkaLoss(None, MultipleNegativesRankingLoss(), (6,))
    whole = MultipleNegativesRankingLoss().compute([Output(a), Output(b)], None, slice(0, 3))
    assert loss.compute_loss_from_embeddings([a, b])["matryoshka_6"] == whole


def test_cuts_layers_and_embedded_parts_but_not_those_of_a_guide():
    widths = {}

    class Widths(Loss):
        def compute(self, columns, labels, rows):
            record = columns[0]
            widths["layers"] = [layer.shape[1] for layer in record.layers]
            widths.update({name: part.embedding.shape[1] for name, part in record.parts.items() if name != "weight"})
            widths["weight"] = tuple(record.parts["weight"].shape)
            return record.embedding.sum()

    inner = Widths()
    inner.frozen = {"guide": ToyEncoder()}
    vectors = torch.ones(2, FULL)
    parts = {"guide": Output(vectors), "tower": Output(vectors), "weight": torch.ones(2)}
    record = Output(vectors, layers=(vectors, vectors), parts=parts)
    MatryoshkaLoss(None, inner, (3,)).compute([record], None, slice(0, 2))
    assert widths == {"layers": [3, 3], "guide": FULL, "tower": 3, "weight": (2,)}


def test_the_largest_entries_stay_active():
    """In loops: all but the so many entries of largest absolute value become 0."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(4, FULL, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]

    def cut(column, count):
        kept = []
        for row in column:
            order = sorted(range(FULL), key=lambda place: -abs(row[place].item()))
            mask = torch.tensor([place in order[:count] for place in range(FULL)])
            kept.append(torch.where(mask, row, torch.zeros_like(row)))
        return torch.stack(kept)

    inner = MultipleNegativesRankingLoss(similarity="dot")
    expected = {f"matryoshka_{count}": inner.compute_loss_from_embeddings([cut(c, count) for c in columns])
                for count in (5, 2)}  # fmt: skip
    found = MatryoshkaLoss(None, inner, (5, 2), axis="active").compute_loss_from_embeddings(columns)
    assert list(found) == list(expected)
    for key, value in expected.items():
        require_equal(key, differentiate(value, columns), differentiate(found[key], columns))


def test_active_entries_need_no_full_size(caplog):
    model = ToyEncoder("sparse")
    MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), (3,), axis="active")
    assert not caplog.records
    MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), (3,))
    assert "is not among" in caplog.text


def test_refuses_an_unknown_axis():
    with pytest.raises(LossError, match=r"^MatryoshkaLoss.axis: expected dimensions or active, got 'layers'"):
        MatryoshkaLoss(None, MultipleNegativesRankingLoss(), (3,), axis="layers")


def test_draws_are_made_where_the_generator_is():
    """A default device that is another than the generator's would be refused."""
    generator = torch.Generator().manual_seed(0)
    loss = DRAWN(ToyEncoder())
    expected = loss.draw(generator, (6, 6))
    with torch.device("meta"):
        again = loss.draw(generator.manual_seed(0), (6, 6))
    assert expected == again
