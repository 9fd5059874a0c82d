"""ListNet: the laws, the formula in loops, ragged and empty lists, on encoders of both sorts."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import Format, LossError, Output, RecipeError, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.list_net import ListNetLoss, list_net

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
COLUMNS = Format(["query", "positive", "negative*"], labels="scores", outputs=1)
SUBJECTS = [
    *subjects(ListNetLoss, families=["dense", "sparse", "cross-encoder"], form=LISTS),
    *subjects(ListNetLoss, families=["dense", "cross-encoder"], form=COLUMNS, negatives=2),
    *subjects(partial(ListNetLoss, activation="sigmoid"), families=["cross-encoder"], form=LISTS),
    *subjects(partial(ListNetLoss, similarity="euclidean", scale=2.0), families=["dense"], form=LISTS, weights=True),
]
COUNTS = (3, 1, 0, 2)


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(scores, labels):
    """The loss of lists of scores; an empty list costs nothing."""
    total = torch.zeros((), dtype=torch.float64)
    for own, wanted in zip(scores, labels, strict=True):
        if len(own):
            log_z = sum(score.exp() for score in own).log()
            z = sum(label.exp() for label in wanted)
            total = total - sum(y.exp() / z * (s - log_z) for s, y in zip(own, wanted, strict=True))
    return total / len(scores)


def test_equals_the_formula_in_loops_on_a_cross_encoder():
    scores = torch.randn(sum(COUNTS), dtype=torch.float64, requires_grad=True)
    labels = torch.randn(sum(COUNTS), dtype=torch.float64)
    got = ListNetLoss().compute([Output(scores, lists=COUNTS)], labels, slice(0, 4))
    expected = by_loops(scores.split(list(COUNTS)), labels.split(list(COUNTS)))
    require_equal("loops", differentiate(expected, [scores]), differentiate(got, [scores]))


def test_equals_the_formula_in_loops_on_a_bi_encoder():
    queries = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    documents = torch.randn(sum(COUNTS), 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(sum(COUNTS), dtype=torch.float64)
    got = ListNetLoss(scale=3.0).compute([Output(queries), Output(documents, lists=COUNTS)], labels, slice(0, 4))
    scores = [
        [3 * (query @ document) / (query.norm() * document.norm()) for document in own]
        for query, own in zip(queries, documents.split(list(COUNTS)), strict=True)
    ]
    leaves = [queries, documents]
    require_equal(
        "loops", differentiate(by_loops(scores, labels.split(list(COUNTS))), leaves), differentiate(got, leaves)
    )


def test_columns_are_lists_of_equal_length():
    columns = [torch.randn(3, 5, dtype=torch.float64) for _ in range(4)]
    labels = torch.rand(3, 3, dtype=torch.float64)
    as_columns = ListNetLoss().compute_loss_from_embeddings(columns, labels)
    documents = torch.stack(columns[1:], dim=1).flatten(0, 1)
    records = [Output(columns[0]), Output(documents, lists=(3, 3, 3))]
    torch.testing.assert_close(as_columns, ListNetLoss().compute(records, labels.flatten(), slice(0, 3)))


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)])
def test_empty_lists_cost_nothing(counts):
    scores = torch.randn(sum(counts), dtype=torch.float64, requires_grad=True)
    value = ListNetLoss().compute([Output(scores, lists=counts)], torch.zeros(sum(counts)), slice(0, 2))
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()


def test_no_rows_cost_nothing():
    scores = torch.randn(3, requires_grad=True)
    value = ListNetLoss().compute([Output(scores, lists=(2, 1))], torch.zeros(3), slice(1, 1))
    value.backward()
    assert value == 0
    assert not scores.grad.any()


def test_raw_texts_come_with_labels_per_row():
    toy = ToyEncoder("cross-encoder")
    texts = [["q one", "q two"], [["a", "b b", "c"], ["d"]]]
    labels = [torch.tensor([1.0, 0.0, 0.5]), torch.tensor([1.0])]
    loss = ListNetLoss(toy)
    scores = toy(toy.preprocess([("q one", "a"), ("q one", "b b"), ("q one", "c"), ("q two", "d")])).embedding
    expected = by_loops(scores.split([3, 1]), [each.double() for each in labels])
    torch.testing.assert_close(loss(texts, labels), expected)


def test_refuses_what_does_not_fit():
    with pytest.raises(LossError, match="similarity: expected None with a cross-encoder, which gives scores itself"):
        ListNetLoss(ToyEncoder("cross-encoder"), similarity="dot")
    with pytest.raises(
        LossError, match=r"activation: expected a function, or one of identity, sigmoid, tanh, relu, got 'gelu'"
    ):
        ListNetLoss(activation="gelu")
    with pytest.raises(RecipeError, match=r"expected 'identity', 'sigmoid', 'tanh' or 'relu', got 'gelu'$"):
        build({"name": "list-net", "activation": "gelu"})
    two_outputs = ToyEncoder("cross-encoder", outputs=2)
    with pytest.raises(LossError, match="expected one score per pair, got 2 per pair"):
        ListNetLoss(two_outputs)([["q"], [["a", "b"]]], [torch.tensor([1.0, 0.0])])
    with pytest.raises(
        LossError, match=r"labels for ListNetLoss: expected scores of shape \[2\] or \[1, 2\], got \[3\]"
    ):
        ListNetLoss(ToyEncoder("cross-encoder"))([["q"], [["a", "b"]]], [torch.zeros(3)])


def test_documents_without_a_probability_cost_nothing():
    scores = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1.0, -torch.inf, 0.5], [-torch.inf] * 3], dtype=torch.float64)
    share = torch.tensor([1.0, 0.5], dtype=torch.float64).softmax(0)
    expected = -(share * scores[0].log_softmax(0)[[0, 2]]).sum() / 2
    expected = differentiate(expected, [scores])
    for where in (None, torch.ones(2, 3, dtype=torch.bool)):
        value = list_net(scores, labels, where=where).mean()
        require_equal("by hand", expected, differentiate(value, [scores]))


def test_sample_weights_are_those_of_lists():
    scores, labels = torch.randn(2, 6, dtype=torch.float64)
    weights = torch.tensor([2.0, 0.5, 7.0, 3.0])
    items = torch.cat([weight.expand(count) for weight, count in zip(weights, COUNTS, strict=True)])
    got = ListNetLoss().compute([Output(scores, lists=COUNTS, parts={"weight": items})], labels, slice(0, 4))
    rows = zip(weights, scores.split(list(COUNTS)), labels.split(list(COUNTS)), strict=True)
    torch.testing.assert_close(got, sum(weight * by_loops([own], [wanted]) for weight, own, wanted in rows) / 4)
