"""binary-cross-entropy and score-mse: the laws, the formulas in loops, lists, sample weights, and what they refuse."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from losskit import Format, LossError, Output, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy
from losskit_plugins.losses.score_mse import ScoreMSELoss, score_mse

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
COLUMNS = Format(["query", "positive", "negative+"], labels="scores", outputs=1)
SUBJECTS = [
    *subjects(BinaryCrossEntropyLoss, families=["cross-encoder"], negatives=2),
    *subjects(partial(BinaryCrossEntropyLoss, scale=3.0), families=["dense"], form=LISTS),
    *subjects(
        partial(BinaryCrossEntropyLoss, pos_weight=2.5, activation="tanh"),
        families=["dense", "cross-encoder"],
        form=LISTS,
        weights=True,
    ),
    *subjects(ScoreMSELoss, families=["dense", "sparse"], form=LISTS),
    *subjects(ScoreMSELoss, families=["dense"], form=COLUMNS, negatives=2),
    *subjects(partial(ScoreMSELoss, activation="sigmoid", scale=0.5), families=["cross-encoder"], weights=True),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


COUNTS = (3, 1, 0, 2)
LABELS = [0.0, 1.0, 0.25, 1.0, 0.5, 0.0]


def entropy(score, label, pos_weight):
    positive = 1 / (1 + (-score).exp())
    return -(pos_weight * label * positive.log() + (1 - label) * (1 - positive).log())


def error(score, label):
    return (score - label) * (score - label)


LOSSES = {
    "binary-cross-entropy": (BinaryCrossEntropyLoss, partial(entropy, pos_weight=1.0)),
    "pos-weight": (partial(BinaryCrossEntropyLoss, pos_weight=3.0), partial(entropy, pos_weight=3.0)),
    "score-mse": (ScoreMSELoss, error),
}
EACH = pytest.mark.parametrize(("make", "formula"), LOSSES.values(), ids=list(LOSSES))


def numbers(*shape):
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)
    return drawn.requires_grad_()


def in_loops(formula, scores, weights=None):
    """mean over documents of w l, the weight being that of the query."""
    weights = weights or [1.0] * len(COUNTS)
    factors = [weight for weight, count in zip(weights, COUNTS, strict=True) for _ in range(count)]
    terms = [w * formula(s, y) for w, s, y in zip(factors, scores, LABELS, strict=True)]
    return sum(terms) / len(terms)


@EACH
def test_lists_of_a_cross_encoder(make, formula):
    scores = numbers(6)
    got = make().compute([Output(scores, lists=COUNTS)], torch.tensor(LABELS), slice(0, 4))
    require_equal("lists", differentiate(in_loops(formula, scores), [scores]), differentiate(got, [scores]))


@EACH
def test_lists_of_a_bi_encoder(make, formula):
    queries, documents = numbers(4, 5), numbers(6, 5, 1)[:, :, 0].detach().requires_grad_()
    columns = [Output(queries), Output(documents, lists=COUNTS)]
    got = make(similarity="dot", scale=0.5).compute(columns, torch.tensor(LABELS), slice(0, 4))
    of_query = [0, 0, 0, 1, 3, 3]
    scores = [0.5 * sum(queries[row] * document) for row, document in zip(of_query, documents, strict=True)]
    leaves = [queries, documents]
    require_equal("lists", differentiate(in_loops(formula, scores), leaves), differentiate(got, leaves))


@EACH
def test_sample_weights_are_those_of_the_query(make, formula):
    weights, scores = [2.0, 0.5, 7.0, 3.0], numbers(6)
    of_documents = torch.tensor([2.0, 2.0, 2.0, 0.5, 3.0, 3.0])
    column = Output(scores, lists=COUNTS, parts={"weight": of_documents})
    got = make().compute([column], torch.tensor(LABELS), slice(0, 4))
    expected = in_loops(formula, scores, weights)
    require_equal("weights", differentiate(expected, [scores]), differentiate(got, [scores]))
    vectors = [Output(scores.detach()[[0, 3, 0, 4], None], parts={"weight": torch.tensor(weights)})]
    vectors.append(Output(torch.ones(6, 1, dtype=torch.float64), lists=COUNTS))
    of_queries = [scores.detach()[row] for row in (0, 0, 0, 3, 4, 4)]
    got = make(similarity="dot").compute(vectors, torch.tensor(LABELS), slice(0, 4))
    torch.testing.assert_close(got, in_loops(formula, of_queries, weights))


@EACH
@pytest.mark.parametrize("shape", [(6,), (6, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool], ids=str)
def test_pairs(make, formula, shape, dtype):
    a, b = numbers(6, 5), numbers(6, 5, 1)[:, :, 0].detach().requires_grad_()
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    got = make(similarity="dot").compute_loss_from_embeddings([a, b], labels.to(dtype).view(shape))
    expected = sum(formula(sum(x * y), label) for x, y, label in zip(a, b, labels.tolist(), strict=True)) / 6
    require_equal("pairs", differentiate(expected, [a, b]), differentiate(got, [a, b]))


@EACH
def test_columns_are_lists_of_equal_length(make, formula):
    columns = [numbers(3, 5).detach() + place for place in range(4)]
    labels = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    documents = torch.stack(columns[1:], dim=1).flatten(0, 1)
    records = [Output(columns[0]), Output(documents, lists=(3, 3, 3))]
    expected = make().compute(records, labels.flatten(), slice(0, 3))
    for given in (labels, labels.flatten()):
        torch.testing.assert_close(make().compute_loss_from_embeddings(columns, given), expected)
    torch.testing.assert_close(make().compute(records, labels, slice(0, 3)), expected)


@EACH
def test_padded_and_flat_lists_agree(make, formula):
    scores, labels = numbers(6).detach(), torch.tensor(LABELS)
    padded = torch.full((4, 3), 9.0, dtype=torch.float64)
    wanted, where = padded.clone(), torch.zeros(4, 3, dtype=torch.bool)
    rest = iter(range(6))
    for row, count in enumerate(COUNTS):
        for place in range(count):
            item = next(rest)
            padded[row, place], wanted[row, place], where[row, place] = scores[item], labels[item], True
    flat = make().compute([Output(scores, lists=COUNTS)], labels, slice(0, 4))
    torch.testing.assert_close(make().score(padded, wanted, where), flat)


@EACH
@pytest.mark.parametrize("rows", [slice(2, 3), slice(1, 1)], ids=["a query without documents", "no rows"])
def test_nothing_costs_nothing(make, formula, rows):
    scores = numbers(6)
    column = Output(scores, lists=COUNTS, parts={"weight": torch.ones(6)})
    value = make().compute([column], torch.tensor(LABELS), rows)
    value.backward()
    assert value == 0
    assert not scores.grad.any()
    assert make().denominator([column], None, rows) == 0


def test_denominator_counts_documents():
    column = Output(torch.zeros(6), lists=COUNTS)
    assert BinaryCrossEntropyLoss().denominator([column], None, slice(0, 2)) == 4
    assert BinaryCrossEntropyLoss().denominator([Output(torch.zeros(5, 2))] * 2, None, slice(1, 4)) == 3


def test_large_logits_stay_exact():
    scores = torch.tensor([1e4, -1e4, 1e4, -1e4], dtype=torch.float64, requires_grad=True)
    values = binary_cross_entropy(scores, torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64), pos_weight=2.0)
    assert values.tolist() == [0.0, 2e4, 1e4, 0.0]
    values.sum().backward()
    assert scores.grad.tolist() == [0.0, -2.0, 1.0, 0.0]


def test_an_activation_is_any_function():
    scores, labels = numbers(6).detach(), torch.tensor(LABELS)
    column = Output(scores, lists=COUNTS)
    expected = score_mse((scores + 1).log1p().nan_to_num(0.0), labels.double()).mean()

    def own(scores):
        return (scores + 1).log1p().nan_to_num(0.0)

    for activation in (own, type("Own", (nn.Module,), {"forward": lambda self, scores: own(scores)})()):
        got = ScoreMSELoss(activation=activation).compute([column], labels, slice(0, 4))
        torch.testing.assert_close(got, expected)


def test_what_an_activation_rounds_is_not_averaged_in_half_precision():
    scores, labels = torch.linspace(0, 1, 5000), torch.zeros(5000)
    loss = ScoreMSELoss(activation=lambda scores: scores.half())
    got = loss.compute([Output(scores, lists=(5000,))], labels, slice(0, 1))
    torch.testing.assert_close(got, scores.half().float().square().mean())


@pytest.mark.parametrize("counts", [(2, 2), (3, 1)])
@pytest.mark.parametrize(
    ("activation", "got"),
    [
        (lambda scores: scores[:, None], r"float64 of shape \[4, 1\]"),
        (lambda scores: scores.sum(), r"float64 of shape \[\]"),
        (lambda scores: scores.long(), r"int64 of shape \[4\]"),
        (lambda scores: None, "NoneType"),
    ],
)
def test_an_activation_gives_a_number_for_each_score(activation, got, counts):
    column, labels = Output(numbers(4), lists=counts), torch.zeros(4)
    expected = r"the activation of scores: expected floating numbers of shape \[4\] from such scores, got "
    for name in ("score-mse", "list-mle"):
        loss = build({"name": name, "activation": activation})
        with pytest.raises(LossError, match=expected + got):
            loss.compute([column], labels, slice(0, 2))


@pytest.mark.parametrize("family", ["dense", "cross-encoder"])
def test_labels_of_rows_are_none_of_documents(family):
    loss, labels = BinaryCrossEntropyLoss(ToyEncoder(family)), torch.tensor([0.0, 1.0])
    batch = [loss.model.preprocess(["q", "r"]), {**loss.model.preprocess(["a", "b", "c"]), "lists": (2, 1)}]
    raw = [["q", "r"], [["a", "b"], ["c"]]]
    message = "^labels for BinaryCrossEntropyLoss: expected one for each of 3 documents, got 2. Fix: give each document"
    with pytest.raises(LossError, match=message):
        loss(raw if family == "cross-encoder" else batch, labels)


def test_lists_without_documents_have_no_labels_to_refuse():
    assert BinaryCrossEntropyLoss(ToyEncoder("cross-encoder"))([["q"], [[]]], [torch.tensor([])]) == 0


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ([0.0, 1.5], "some from 0 to 1.5"),
        ([-1.0, 1.0], "some from -1 to 1"),
        ([math.nan, 1.0], "some from nan to nan"),
        ([-math.inf, 1.0], "some from -inf to 1"),
    ],
    ids=str,
)
def test_refuses_labels_that_are_no_probabilities(labels, got):
    loss = BinaryCrossEntropyLoss(ToyEncoder("cross-encoder"))
    message = rf"labels for BinaryCrossEntropyLoss: expected numbers in \[0, 1\], got {got}\. Fix: scale them"
    with pytest.raises(LossError, match=message):
        loss([["q"], [["a", "b"]]], [torch.tensor(labels)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_refuses_a_teacher_that_gives_no_number(value):
    with pytest.raises(LossError, match=r"labels for ScoreMSELoss: expected numbers, got (NaN|infinity)"):
        ScoreMSELoss(ToyEncoder("cross-encoder"))([["q"], ["d"]], torch.tensor([value]))


def test_refuses_what_does_not_fit():
    for value in (0, -1.0, math.inf):
        with pytest.raises(LossError, match=r"BinaryCrossEntropyLoss.pos_weight: expected a positive number, got"):
            BinaryCrossEntropyLoss(pos_weight=value)
    for value in ("gelu", 3, ["tanh"]):
        with pytest.raises(
            LossError, match=r"activation: expected a function, or one of identity, sigmoid, tanh, relu"
        ):
            ScoreMSELoss(activation=value)
    two_outputs = ToyEncoder("cross-encoder", outputs=2)
    with pytest.raises(LossError, match="expected one score per pair, got 2 per pair"):
        BinaryCrossEntropyLoss(two_outputs)([["q"], ["d"]], torch.ones(1))
