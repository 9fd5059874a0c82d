"""SPLADE: the laws, the formula in loops, weights over time, what is kept, and what it refuses."""

from __future__ import annotations

import math
import random

import pytest
import torch
from safetensors.torch import load, save

import losskit
from losskit import Direct, GradCache, LossError, Output
from losskit.clock import Clock
from losskit.features import unload
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects, total
from losskit.testing.batches import WORDS
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.global_orthogonal_regularization import GlobalOrthogonalRegularizationLoss
from losskit_plugins.losses.list_net import ListNetLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.regularizers.overlap import OverlapRegularizer
from losskit_plugins.wrappers.splade import SpladeLoss, adjusted


def around(inner=MultipleNegativesRankingLoss, weight=0.3, *further, **options):
    def made(model):
        loss = SpladeLoss(model, inner(model), weight, *further, **options)
        loss.set_clock(Clock(step=1, progress=0.5))
        return loss

    return made


def within_matryoshka(model):
    return losskit.build(
        {"name": "matryoshka", "dims": [8, 3], "loss": {"name": "splade", **BOTH, "loss": MNRL}}, model
    )


def around_matryoshka(model):
    sizes = {"name": "matryoshka", "dims": [8, 3], "loss": MNRL}
    return losskit.build({"name": "splade", **BOTH, "loss": sizes}, model)


def around_a_sum(model):
    losses = {"one": MNRL, "two": {"name": "splade", **BOTH, "loss": MNRL}}
    return losskit.build({"name": "weighted-sum", "losses": losses, "weights": {"two": 0.5}}, model)


MNRL = "multiple-negatives-ranking"
BOTH = {"document_regularizer_weight": 0.3, "query_regularizer_weight": 0.2}
JOINT = {"joint_regularizer_weight": 0.4, "document_regularizer_threshold": 3, "query_regularizer": "l1"}
SPARSE = {"kind": "wrapper", "families": ["sparse"]}
SUBJECTS = [
    *subjects(around(query_regularizer_weight=0.2, **JOINT), **SPARSE, weights=True, lists=("positive",)),
    *subjects(around(CoSENTLoss, use_document_regularizer_only=True), **SPARSE),
    *subjects(around(document_regularizer="df-flops", document_active=3.0), **SPARSE),
    *subjects(around(weight={"to": 0.5, "schedule": "quadratic"}), **SPARSE, negatives=2),
    *subjects(around(weight=0), **SPARSE, equals=MultipleNegativesRankingLoss),
    *subjects(around(ListNetLoss), **SPARSE, form=ListNetLoss.card.formats[0]),
    *subjects(around(GlobalOrthogonalRegularizationLoss), **SPARSE, negatives=2),
    *subjects(within_matryoshka, **SPARSE),
    *subjects(around_matryoshka, **SPARSE),
    *subjects(around_a_sum, **SPARSE),
]


@pytest.mark.parametrize("law", laws("wrapper"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def embeddings(columns, rows=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(columns, rows, 6, generator=generator, dtype=torch.float64).relu()
    return [column.clone().requires_grad_() for column in drawn]


def penalty(columns):
    """FLOPS of all texts of some columns, in loops."""
    texts = [row for column in columns for row in column]
    return sum((sum(row[term] for row in texts) / len(texts)) ** 2 for term in range(6))


def test_adds_penalties_to_a_loss():
    columns = embeddings(3)
    base = MultipleNegativesRankingLoss(similarity="dot").compute_loss_from_embeddings(columns)
    overlap = sum(
        sum(q[term] for q in columns[0]) / 4 * sum(d[term] for each in columns[1:] for d in each) / 8
        for term in range(6)
    )
    wanted = {
        "base_loss": base,
        "document_regularizer_loss": 0.3 * penalty(columns[1:]),
        "query_regularizer_loss": 0.2 * penalty(columns[:1]),
        "joint_regularizer_loss": 0.4 * overlap,
    }
    inner = MultipleNegativesRankingLoss(similarity="dot")
    loss = SpladeLoss(None, inner, 0.3, 0.2, joint_regularizer_weight=0.4)
    got = loss.compute_loss_from_embeddings(columns)
    assert list(got) == list(wanted)
    for key, value in wanted.items():
        require_equal(key, differentiate(value, columns), differentiate(got[key], columns))
    only = SpladeLoss(None, inner, 0.3, use_document_regularizer_only=True).compute_loss_from_embeddings(columns)
    assert list(only) == ["base_loss", "document_regularizer_loss"]
    require_equal("all", differentiate(0.3 * penalty(columns), columns), differentiate([*only.values()][1], columns))


def test_components_of_the_inner_loss_keep_their_names():
    loss = SpladeLoss(None, GlobalOrthogonalRegularizationLoss(), 0.1, use_document_regularizer_only=True)
    found = loss.compute_loss_from_embeddings(embeddings(1))
    assert list(found) == ["gor_mean", "gor_second_moment", "document_regularizer_loss"]


def test_a_single_document_may_have_any_number_of_columns():
    loss = SpladeLoss(None, MultipleNegativesRankingLoss(similarity="dot"), 0.3, 0.2)
    columns = embeddings(3)
    joined = [columns[0], Output(torch.cat([*columns[1:]]).view(2, 4, 6).transpose(0, 1).reshape(8, 6), lists=(2,) * 4)]
    apart = loss.compute_loss_from_embeddings(columns)
    lists = loss.compute([Output(joined[0]), joined[1]], None, slice(0, 4))
    torch.testing.assert_close(lists["document_regularizer_loss"], apart["document_regularizer_loss"])


def sparse_batch(loss, rows=6):
    batch = random_batch(loss.formats[0], rows=rows)
    return batch.features(loss)


class Counting:
    """A regularizer that says how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, queries, documents):
        self.calls += 1
        return documents.embedding.sum()


def test_penalties_are_computed_once_in_a_forward_of_slices():
    counting = Counting()
    loss = around(document_regularizer=counting)(ToyEncoder("sparse"))
    loss.execution = Direct(rows=2)
    with torch.no_grad():
        loss(sparse_batch(loss))
    assert counting.calls == 1


def test_weights_follow_the_progress_and_are_whole_in_evaluation():
    schedule = {"schedule": "quadratic", "to": 0.8, "warmup": 0.5}
    model = ToyEncoder("sparse", seed=0)
    loss = losskit.build({"name": "splade", "document_regularizer_weight": schedule, "loss": MNRL}, model)
    whole = losskit.build({"name": "splade", "document_regularizer_weight": 0.8, "loss": MNRL}, model)
    features = sparse_batch(loss)

    def share():
        key = "document_regularizer_loss"
        return (loss(features)[key] / whole(features)[key]).item()

    with pytest.raises(LossError, match=r"SpladeLoss.progress: expected to be set by the trainer"):
        loss(features)
    for progress, wanted in ((0.0, 0.0), (0.25, 0.25), (0.5, 1.0), (1.0, 1.0)):
        loss.set_clock(Clock(progress=progress))
        assert share() == pytest.approx(wanted)
    loss.set_clock(Clock(progress=0.1))
    model.eval()
    assert share() == pytest.approx(1.0)


def test_a_weight_rises_while_too_many_terms_are_active_and_falls_when_too_few():
    one = torch.tensor(1.0, dtype=torch.float64)
    assert adjusted(one, torch.tensor(200.0), 100.0, 0.1).item() == pytest.approx(2**0.1)
    assert adjusted(one, torch.tensor(50.0), 100.0, 0.1).item() == pytest.approx(0.5**0.1)
    assert adjusted(one, torch.tensor(100.0), 100.0, 0.1) == 1
    assert adjusted(one, torch.tensor(30_522.0), 100.0, 0.1).item() == pytest.approx(math.e**0.1)
    assert adjusted(one, torch.tensor(0.0), 100.0, 0.1).item() == pytest.approx(math.e**-0.1)
    assert adjusted(one * 1e6, torch.tensor(200.0), 100.0) == 1e6
    assert adjusted(one * 2, torch.tensor(200.0), 100.0, 0.0) == 2


def followed(**options):
    return losskit.build(
        {"name": "splade", "document_regularizer_weight": 0.1, "document_active": 1, "loss": MNRL, **options},
        ToyEncoder("sparse", seed=0),
    )


def test_the_weight_that_follows_a_number_of_terms_moves_in_training_only():
    loss = followed(query_regularizer_weight=0.2, query_active=7.5)
    still = followed(document_active=None)
    features = sparse_batch(loss)
    key = "document_regularizer_loss"
    with torch.no_grad():
        queries, documents = (loss.model(unload(each)[0]).embedding for each in features[:2])
        documents = torch.cat([documents, loss.model(unload(features[2])[0]).embedding])
    assert documents.count_nonzero(1).double().mean() > math.e
    for step in range(1, 4):
        ratio = loss(features)[key] / still(features)[key]
        assert ratio.item() == pytest.approx(math.e ** (0.05 * step))
    active = queries.count_nonzero(1).double().mean().item()
    assert loss.query_factor.item() == pytest.approx((active / 7.5) ** (0.05 * 3))
    loss.model.eval()
    assert loss(features)[key].item() == pytest.approx(still(features)[key].item())
    assert loss.document_factor.item() == pytest.approx(math.e**0.15)


def test_a_scheduled_weight_moves_as_far_as_it_has_risen():
    loss = followed(document_regularizer_weight={"to": 0.1, "delay": 0.5, "warmup": 0.5})
    features = sparse_batch(loss)
    for progress, wanted in ((0.2, 1.0), (0.75, math.e**0.025), (1.0, math.e**0.075)):
        loss.set_clock(Clock(progress=progress))
        loss(features)
        assert loss.document_factor.item() == pytest.approx(wanted)


def test_a_slice_that_is_computed_again_has_the_weight_of_its_forward():
    gradients = []
    for rows in (None, 2):
        loss = followed()
        loss.execution = Direct(rows=rows)
        features = sparse_batch(loss)
        value = total(loss(features))
        for _ in range(5):
            loss(features)
        value.backward()
        gradients.append(loss.model.first.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("weight", [1e-4, 1e-2])
def test_a_training_reaches_the_number_of_terms_from_low_and_high_weights(weight):
    source = random.Random(0)
    model = ToyEncoder("sparse", 100, seed=0)
    loss = SpladeLoss(model, MultipleNegativesRankingLoss(model), weight, document_active=12)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    found = []
    for _ in range(300):
        documents = [source.choices(WORDS, k=6) for _ in range(12)]
        queries = [source.sample(words, 3) for words in documents]
        features = [model.preprocess([" ".join(words) for words in column]) for column in (queries, documents)]
        optimizer.zero_grad()
        total(loss(features)).backward()
        optimizer.step()
        with torch.no_grad():
            found.append(model(features[1]).embedding.count_nonzero(1).double().mean().item())
    assert found[0] > 80
    assert sum(found[-50:]) / 50 == pytest.approx(12, rel=0.3)


def test_what_it_counts_is_resumed():
    expression = {"document_regularizer": {"name": "df-flops", "alpha": 0.3}}
    before = followed(**expression)
    features = sparse_batch(before)
    for _ in range(3):
        before(features)
    state = before.owned_state()
    names = ["document_factor", "document_regularizer.shares.mean", "document_regularizer.shares.seen"]
    assert sorted(state) == names
    after = followed(**expression)
    after.load_owned_state(load(save({key: value.clone() for key, value in state.items()})))
    assert {key: value.tolist() for key, value in before(features).items()} == {
        key: value.tolist() for key, value in after(features).items()
    }


@pytest.mark.parametrize("execution", [Direct(), Direct(rows=2), GradCache(mini_batch_size=2)], ids=repr)
def test_terms_are_counted_once_in_a_forward(execution):
    loss = followed(document_regularizer="df-flops", document_active=None)
    loss.execution = execution
    features = sparse_batch(loss)
    total(loss(features)).backward()
    assert loss.document_regularizer.shares.seen == 1
    loss.model.eval()
    loss(features)
    with torch.no_grad():
        loss.model.train()
        loss(features)
    assert loss.document_regularizer.shares.seen == 1


def test_accumulated_gradients_are_those_of_the_mean():
    loss = around(query_regularizer_weight=0.2)(ToyEncoder("sparse", seed=0))
    halves = [sparse_batch(loss, rows) for rows in (3, 3)]
    parameters = list(loss.model.parameters())
    apart = [differentiate(loss(half), parameters) for half in halves]
    for half in halves:
        (total(loss(half)) / 2).backward()
    for place, parameter in enumerate(parameters):
        wanted = sum(each.gradients[place] for each in apart) / 2
        torch.testing.assert_close(torch.zeros_like(wanted) if parameter.grad is None else parameter.grad, wanted)


def test_a_regularizer_that_counts_terms_fixes_the_dimension():
    loss = followed(document_regularizer="df-flops")
    with pytest.raises(LossError, match=r"^MatryoshkaLoss.loss: expected a loss that works at any size"):
        losskit.losses.MatryoshkaLoss(loss.model, loss, (8, 4))
    assert losskit.losses.MatryoshkaLoss(loss.model, loss, (8, 4), axis="active")
    assert losskit.losses.MatryoshkaLoss(loss.model, followed_on(loss.model), (8, 4))


def followed_on(model):
    return losskit.build({"name": "splade", "document_regularizer_weight": 0.1, "loss": MNRL}, model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"document_regularizer_weight": -1}, r"document_regularizer_weight: expected 0 or more, got -1"),
        ({"document_regularizer_weight": None}, r"document_regularizer_weight: expected 0 or more, got None"),
        ({"document_regularizer_weight": {"too": 1}}, r"document_regularizer_weight.too: expected a key of a schedule"),
        ({"document_regularizer_weight": {"to": -1}}, r"document_regularizer_weight.to: expected 0 or more, got -1"),
        (
            {"query_regularizer_weight": {"from": -2, "to": 1}},
            r"query_regularizer_weight.from: expected 0 or more, got -2",
        ),
        ({"document_regularizer": 5}, r"document_regularizer: expected the name of a regularizer, or a .*, got 5"),
        (
            {"joint_regularizer": OverlapRegularizer},
            r"joint_regularizer: expected the name of a regularizer, .*, got <class .*OverlapRegularizer'>",
        ),
        ({"query_regularizer_weight": math.inf}, r"query_regularizer_weight: expected 0 or more, got inf"),
        ({"joint_regularizer_weight": "1"}, r"joint_regularizer_weight: expected 0 or more, got '1'"),
        (
            {"query_regularizer": "l1"},
            r"query_regularizer_weight: expected a number beside query_regularizer, got None",
        ),
        ({"query_regularizer_threshold": 3}, r"expected a number beside query_regularizer_threshold, got None"),
        ({"query_active": 3}, r"query_regularizer_weight: expected a number beside query_active, got None"),
        ({"document_active": 0}, r"document_active: expected a positive number, got 0"),
        (
            {"document_active": 3, "document_regularizer_weight": 0},
            r"document_active: expected a weight to move that is not 0, got 0",
        ),
        (
            {"document_active": 3, "document_regularizer_weight": {"from": 1, "to": 0}},
            r"document_active: expected a weight to move that is not 0, got 0",
        ),
        ({"document_regularizer_threshold": -1}, r"document_regularizer_threshold: expected 0 or more, got -1"),
        (
            {"document_regularizer_threshold": 3, "document_regularizer": "flops"},
            r"document_regularizer_threshold: expected None beside a regularizer, got 3. Fix: give the threshold to",
        ),
        (
            {"use_document_regularizer_only": True, "query_regularizer_weight": 0.1},
            r"query_regularizer_weight: expected None with use_document_regularizer_only, where .*, got 0.1",
        ),
        (
            {"use_document_regularizer_only": True, "joint_regularizer_weight": 0.1},
            r"joint_regularizer_weight: expected None with use_document_regularizer_only, where .*, got 0.1",
        ),
    ],
)
def test_refuses_options_that_nothing_reads(options, words):
    with pytest.raises(LossError, match=rf"^SpladeLoss.*{words}"):
        SpladeLoss(None, MultipleNegativesRankingLoss(), **({"document_regularizer_weight": 0.1} | options))


def test_refuses_columns_in_which_there_are_no_documents():
    with pytest.raises(LossError, match=r"^SpladeLoss.use_document_regularizer_only: expected True around a loss of"):
        losskit.build({"name": "splade", "document_regularizer_weight": 0.1, "loss": "batch-hard-triplet"})
    loss = losskit.build({"name": "splade", "document_regularizer_weight": 0.1, "loss": "mse"})
    column = torch.ones(2, 3)
    with pytest.raises(
        LossError, match=r"^the batch for SpladeLoss: expected documents to regularize, got none. Fix: set"
    ):
        loss.compute_loss_from_embeddings([column], column)


def test_refuses_a_regularized_loss_inside():
    inner = followed_on(None)
    loss = SpladeLoss(None, inner, 0.1)
    with pytest.raises(LossError, match=r"^SpladeLoss.loss: expected one without regularizers of its own, got"):
        loss.compute_loss_from_embeddings(embeddings(2))


@pytest.mark.parametrize(
    ("found", "words"), [(lambda _, documents: documents.embedding, r"float32 of shape"), (lambda *_: 1.0, "float")]
)
def test_refuses_a_penalty_that_is_no_scalar(found, words):
    loss = SpladeLoss(None, MultipleNegativesRankingLoss(), 0.1, document_regularizer=found)
    with pytest.raises(LossError, match=rf"^SpladeLoss.document_regularizer: expected a scalar, got {words}"):
        loss.compute_loss_from_embeddings([torch.ones(2, 3)] * 2)


def test_an_empty_schedule_is_the_usual_one():
    loss = SpladeLoss(None, MultipleNegativesRankingLoss(), {})
    loss.set_clock(Clock(step=1, progress=0.5))
    value = loss.compute_loss_from_embeddings([torch.ones(2, 3)] * 2)["document_regularizer_loss"]
    assert value.item() == pytest.approx(0.5 * 3)


def test_refuses_an_unknown_regularizer():
    with pytest.raises(losskit.NotFoundError, match="flopps"):
        SpladeLoss(None, MultipleNegativesRankingLoss(), 0.1, document_regularizer="flopps")
