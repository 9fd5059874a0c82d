"""Multiple negatives ranking: the laws, the formula in loops, and what it refuses."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch

from losskit import LossError, Output
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss

EVERY_DIRECTION = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
JOINT = [
    ("query_to_doc", *(name for name, chosen in zip(EVERY_DIRECTION[1:], picks, strict=True) if chosen))
    for picks in product((False, True), repeat=3)
]
PARTITIONS = [
    *(("joint", directions) for directions in JOINT),
    ("per_direction", ("query_to_doc",)),
    ("per_direction", ("query_to_doc", "doc_to_query")),
]
HARDNESS = [None, "in_batch_negatives", "hard_negatives", "all_negatives"]
STRENGTH = 3.0


class MaxSim:
    """Late interaction, as a stranger's similarity: no transform, and a mask to mind."""

    def __call__(self, a, b):
        scores = torch.einsum("itd,jsd->ijts", a.embedding.float(), b.embedding.float())
        if a.embedding.dtype == torch.float64:
            scores = torch.einsum("itd,jsd->ijts", a.embedding, b.embedding)
        best = scores.masked_fill(~b.mask[None, :, None, :], -torch.inf).amax(-1)
        return best.masked_fill(~a.mask[:, None, :], 0.0).sum(-1)

    def pairwise(self, a, b):
        return self(a, b).diagonal()


Loss = MultipleNegativesRankingLoss
SUBJECTS = [
    *subjects(Loss, families=["dense", "sparse"]),
    *subjects(Loss, families=["dense"], negatives=0),
    *subjects(Loss, families=["dense"], negatives=3, weights=True),
    *subjects(Loss, families=["dense"], lists=("positive",), weights=True),
    *subjects(
        partial(Loss, directions=EVERY_DIRECTION, hardness_mode="all_negatives", hardness_strength=2.0),
        families=["dense"],
    ),
    *subjects(partial(Loss, directions=EVERY_DIRECTION[::2], partition_mode="per_direction"), families=["dense"]),
    *subjects(partial(Loss, similarity="euclidean", directions=EVERY_DIRECTION), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


@pytest.mark.parametrize("law", [law for law in laws("loss") if law.id not in ("config", "compiles")], ids=str)
@pytest.mark.parametrize("subject", subjects(partial(Loss, similarity=MaxSim()), families=["multi-vector"]), ids=str)
def test_laws_of_late_interaction(subject, law):
    # A similarity given as an object has no name to be configured by.
    result = law(subject)
    assert result.fine, result


def cosine(a, b):
    return (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()


def by_loops(anchors, positives, negatives, *, scale, directions, partition, mode, strength, weights):
    """The loss of anchors [n, d], a list of positives per anchor, and columns of a list of negatives per anchor."""
    documents = [(owner, True, vector) for owner, own in enumerate(positives) for vector in own]
    documents += [(owner, False, vector) for column in negatives for owner, own in enumerate(column) for vector in own]
    total = 0.0
    for i, anchor in enumerate(anchors):
        losses = []
        for place, (owner, is_positive, positive) in enumerate(documents):
            if not is_positive or owner != i:
                continue
            logits = {name: [] for name in directions}
            for other, (of, other_is_positive, document) in enumerate(documents):
                if of == i and other_is_positive and other != place:
                    continue
                similarity = cosine(anchor, document)
                penalised = {
                    None: False,
                    "in_batch_negatives": of != i,
                    "hard_negatives": of == i and not other_is_positive,
                    "all_negatives": other != place,
                }[mode]
                logits["query_to_doc"].append(scale * similarity + penalised * strength * similarity.detach())
                if "doc_to_doc" in logits and of != i:
                    logits["doc_to_doc"].append(scale * cosine(positive, document))
            for j, query in enumerate(anchors):
                if "query_to_query" in logits and j != i:
                    logits["query_to_query"].append(scale * cosine(anchor, query))
                if "doc_to_query" in logits:
                    logits["doc_to_query"].append(scale * cosine(positive, query))
            if partition == "joint":
                log_z = sum(logit.exp() for each in logits.values() for logit in each).log()
            else:
                log_z = sum(sum(logit.exp() for logit in each).log() for each in logits.values()) / len(logits)
            losses.append(log_z - scale * cosine(anchor, positive))
        total = total + weights[i] * sum(losses) / len(losses)
    return total / len(anchors)


@pytest.mark.parametrize(
    ("counts", "second"),
    [(None, (1, 1, 1)), ((2, 1, 3), (2, 0, 1))],
    ids=["one positive", "several positives and lists of negatives"],
)
@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("mode", HARDNESS)
@pytest.mark.parametrize(
    ("partition", "directions"), PARTITIONS, ids=lambda value: "+".join(value) if isinstance(value, tuple) else value
)
def test_equals_the_formula_in_loops(partition, directions, mode, negatives, counts, second):
    generator = torch.Generator().manual_seed(7)

    def vectors(n):
        return torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_()

    anchors, positives = vectors(3), vectors(sum(counts or (1, 1, 1)))
    lists = [(1, 1, 1), second][:negatives]
    columns = [vectors(sum(own)) for own in lists]
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    loss = Loss(
        scale=2.5, directions=directions, partition_mode=partition, hardness_mode=mode,
        hardness_strength=0.0 if mode is None else STRENGTH,
    )  # fmt: skip
    records = [Output(anchors, parts={"weight": weights}), Output(positives, lists=counts)]
    records += [Output(column, lists=own) for column, own in zip(columns, lists, strict=True)]
    leaves = [anchors, positives, *columns]
    expected = by_loops(
        anchors, positives.split(list(counts or (1, 1, 1))),
        [column.split(list(own)) for column, own in zip(columns, lists, strict=True)],
        scale=2.5, directions=directions, partition=partition, mode=mode, strength=STRENGTH, weights=weights,
    )  # fmt: skip
    got = loss.compute(records, None, slice(0, 3))
    require_equal("loops", differentiate(expected, leaves), differentiate(got, leaves))


def test_options_without_effect_are_named(caplog):
    for options in ({"hardness_mode": "all_negatives"}, {"hardness_strength": 2.0}):
        Loss(**options)
        assert "hardness_mode and hardness_strength have an effect only together" in caplog.text
        caplog.clear()
    assert Loss(directions=("query_to_doc", "query_to_doc")).directions == ("query_to_doc",)


def test_an_anchor_without_positives_adds_nothing():
    anchors = torch.randn(2, 4, dtype=torch.float64)
    positives = torch.randn(2, 4, dtype=torch.float64)
    got = Loss().compute([Output(anchors), Output(positives, lists=(2, 0))], None, slice(0, 2))
    one = Loss().compute([Output(anchors[:1]), Output(positives, lists=(2,))], None, slice(0, 1))
    torch.testing.assert_close(got, one / 2)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_no_rows_cost_nothing(similarity):
    columns = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    value = Loss(similarity=similarity).compute([Output(column) for column in columns], None, slice(2, 2))
    value.backward()
    assert value == 0
    assert all(not column.grad.any() for column in columns)


def test_the_scale_defaults_to_that_of_the_similarity():
    embeddings = [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    for similarity, scale in (("cosine", 20.0), ("dot", 1.0), ("euclidean", 1.0)):
        default = Loss(similarity=similarity).compute_loss_from_embeddings(embeddings)
        explicit = Loss(similarity=similarity, scale=scale).compute_loss_from_embeddings(embeddings)
        assert default == explicit


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    embeddings = [torch.full((3, 8), 6e4, dtype=dtype, requires_grad=True) for _ in range(2)]
    value = Loss(similarity="cosine").compute_loss_from_embeddings(embeddings)
    value.backward()
    torch.testing.assert_close(value, torch.tensor(3.0).log())
    assert all(embedding.grad.isfinite().all() for embedding in embeddings)


def test_refuses_impossible_options():
    for options, words in (
        ({"scale": 0.0}, "MultipleNegativesRankingLoss.scale: expected a positive number, got 0.0"),
        ({"hardness_strength": -1.0}, "hardness_strength: expected 0 or more, got -1.0"),
        ({"scale": float("nan")}, "scale: expected a positive number, got nan"),
        ({"directions": ("query_to_doc", "sideways")}, "directions: expected 'query_to_doc' or .*, got 'sideways'"),
        ({"partition_mode": "both"}, "partition_mode: expected 'joint' or 'per_direction', got 'both'"),
        ({"hardness_mode": "all"}, "hardness_mode: expected None or 'in_batch_negatives' or .*, got 'all'"),
        ({"directions": ("doc_to_query",)}, "directions: expected query_to_doc among them"),
        ({"directions": EVERY_DIRECTION, "partition_mode": "per_direction"}, "needs partition_mode='joint'"),
    ):
        with pytest.raises(LossError, match=words):
            Loss(**options)


def test_refuses_a_batch_that_does_not_fit():
    loss, embedding = Loss(), torch.randn(3, 4)
    with pytest.raises(LossError, match=r"expected columns \(anchor, positive, negative\*\), got 1 columns"):
        loss.compute_loss_from_embeddings([embedding])
    with pytest.raises(LossError, match="expected none, for it learns from the columns alone"):
        loss.compute_loss_from_embeddings([embedding, embedding], torch.zeros(3))
    with pytest.raises(LossError, match=r"expected as many rows in every column, got \[3, 2\]"):
        loss.compute_loss_from_embeddings([embedding, embedding[:2]])
    with pytest.raises(LossError, match=r"MultipleNegativesRankingLoss.model: expected an encoder, got None"):
        loss([{"input_ids": torch.zeros(1, 1)}] * 2)


def test_nan_embeddings_give_a_nan_loss():
    embedding = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    assert Loss().compute_loss_from_embeddings([embedding, embedding]).isnan()


def test_sample_weights_come_with_the_features():
    toy = ToyEncoder()
    loss = Loss(toy)
    features = [toy.preprocess(texts) for texts in (["a b", "c"], ["d", "e f"])]
    features[0]["weight"] = torch.tensor([2.0, 0.0])
    embeddings = [toy(each).embedding for each in features]
    first = loss.compute([Output(e) for e in embeddings], None, slice(0, 1))
    torch.testing.assert_close(loss(features), first)
