"""margin-mse and distill-kl-div: the laws, the formulas in loops, ragged lists, and what they refuse."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch

from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.distill_kl_div import DistillKLDivLoss, distill_kl_div
from losskit_plugins.losses.margin_mse import MarginMSELoss, margin_mse

FAMILIES = ["dense", "sparse", "cross-encoder"]
SUBJECTS = [
    *subjects(MarginMSELoss, families=FAMILIES, negatives=2),
    *subjects(MarginMSELoss, families=["dense", "cross-encoder"], weights=True),
    *subjects(DistillKLDivLoss, families=FAMILIES, negatives=2),
    *subjects(
        partial(DistillKLDivLoss, student_temperature=2.0, teacher_temperature=0.5),
        families=["dense", "cross-encoder"],
        weights=True,
    ),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


ROWS = 4


def embeddings(columns):
    generator = torch.Generator().manual_seed(columns)
    drawn = torch.randn(columns, ROWS, 3, generator=generator, dtype=torch.float64)
    return [column.clone().requires_grad_() for column in drawn]


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def margins_in_loops(scores, targets):
    """mean over queries of the mean over negatives."""
    total = 0.0
    for row, wanted in zip(scores, targets, strict=True):
        errors = [(row[0] - s - y).square() for s, y in zip(row[1:], wanted, strict=True)]
        total = total + sum(errors) / max(1, len(errors))
    return total / len(scores)


def dots(columns, scale=1.0):
    query, *documents = columns
    return [[scale * sum(query[i] * d[i]) for d in documents] for i in range(ROWS)]


@pytest.mark.parametrize("negatives", [1, 3])
def test_margins_and_scores_of_a_teacher(negatives):
    columns = embeddings(2 + negatives)
    teacher = numbers(ROWS, 1 + negatives)
    margins = torch.stack([teacher[:, 0] - teacher[:, 1 + k] for k in range(negatives)], 1)
    expected = differentiate(margins_in_loops(dots(columns, 0.3), margins.tolist()), columns)
    loss = MarginMSELoss(scale=0.3)
    forms = [margins, teacher, teacher.flatten()] + ([margins.flatten()] if negatives == 1 else [])
    for labels in forms:
        got = differentiate(loss.compute_loss_from_embeddings(columns, labels), columns)
        require_equal(f"labels of shape {list(labels.shape)}", expected, got)


def softmax(values):
    raised = [torch.as_tensor(value, dtype=torch.float64).exp() for value in values]
    return [each / sum(raised) for each in raised]


def divergence_in_loops(scores, teacher, t_s, t_t):
    total = 0.0
    for row, wanted in zip(scores, teacher, strict=True):
        q, p = softmax([s / t_s for s in row]), softmax([y / t_t for y in wanted])
        total = total + t_s**2 * sum(a * (a.log() - b.log()) for a, b in zip(p, q, strict=True) if a > 0)
    return total / len(scores)


@pytest.mark.parametrize(
    ("options", "t_s", "t_t"),
    [
        ({}, 1.0, 1.0),
        ({"temperature": 2.0}, 2.0, 2.0),
        ({"temperature": 2.0, "student_temperature": 0.5}, 0.5, 2.0),
        ({"temperature": 2.0, "teacher_temperature": 3.0}, 2.0, 3.0),
    ],
    ids=str,
)
def test_divergence(options, t_s, t_t):
    columns = embeddings(4)
    teacher = numbers(ROWS, 3)
    expected = differentiate(divergence_in_loops(dots(columns), teacher.tolist(), t_s, t_t), columns)
    for labels in (teacher, teacher.flatten()):
        got = DistillKLDivLoss(**options).compute_loss_from_embeddings(columns, labels)
        require_equal("loops", expected, differentiate(got, columns))


def test_excluded_candidates_have_the_probability_zero():
    columns = embeddings(4)
    teacher = numbers(ROWS, 3).index_fill(1, torch.tensor([1]), float("-inf"))
    expected = divergence_in_loops(dots(columns), teacher.tolist(), 1.0, 1.0)
    got = DistillKLDivLoss().compute_loss_from_embeddings(columns, teacher)
    require_equal("excluded", differentiate(expected, columns), differentiate(got, columns))
    scores = torch.randn(1, 2, requires_grad=True)
    for where in (None, torch.ones(1, 2, dtype=torch.bool)):
        value = distill_kl_div(scores, torch.full((1, 2), float("-inf")), where=where)
        value.sum().backward()
        assert value == 0
        assert not scores.grad.any()


LISTS = (3, 1, 2)
SCORES = [0.5, -1.0, 2.0, 0.3, 1.0, -0.5]
TEACHER = [1.0, 0.0, 2.5, 0.7, 0.2, 0.1]


def rows_of(values):
    rest = iter(values)
    return [[next(rest) for _ in range(count)] for count in LISTS]


@pytest.mark.parametrize(
    ("cls", "kind"), [(MarginMSELoss, "margins"), (MarginMSELoss, "scores"), (DistillKLDivLoss, "")]
)
def test_ragged_lists_of_a_cross_encoder(cls, kind):
    leaf = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(TEACHER, dtype=torch.float64)
    if cls is MarginMSELoss:
        margins = [[row[0] - y for y in row[1:]] for row in rows_of(TEACHER)]
        expected = margins_in_loops(rows_of(leaf), margins)
        if kind == "margins":
            labels = torch.tensor([y for row in margins for y in row], dtype=torch.float64)
    else:
        expected = divergence_in_loops(rows_of(leaf), rows_of(TEACHER), 1.0, 1.0)
    got = cls().compute([Output(leaf, lists=LISTS)], labels, slice(0, 3))
    require_equal("lists", differentiate(expected, [leaf]), differentiate(got, [leaf]))


def test_sample_weights_of_ragged_lists():
    weights, per_query = torch.tensor([2.0, 5.0, 0.5]), []
    labels = torch.tensor(TEACHER)
    for row in range(3):
        column = Output(torch.tensor(SCORES), lists=LISTS)
        per_query.append(DistillKLDivLoss().compute([column], labels, slice(row, row + 1)))
    items = torch.cat([weight.expand(count) for weight, count in zip(weights, LISTS, strict=True)])
    column = Output(torch.tensor(SCORES), lists=LISTS, parts={"weight": items})
    expected = sum(weight * value for weight, value in zip(weights, per_query, strict=True)) / 3
    torch.testing.assert_close(DistillKLDivLoss().compute([column], labels, slice(0, 3)), expected)


def test_masked_and_unmasked_forms_agree():
    scores, labels = numbers(2, 5, 4)
    where = torch.ones(5, 4, dtype=torch.bool)
    torch.testing.assert_close(margin_mse(scores, labels), margin_mse(scores, labels, where=where))
    torch.testing.assert_close(distill_kl_div(scores, labels), distill_kl_div(scores, labels, where=where))


def test_single_documents_cost_nothing():
    scores = torch.randn(3, 1, requires_grad=True)
    for function in (margin_mse, distill_kl_div):
        for where in (None, torch.ones(3, 1, dtype=torch.bool)):
            assert not function(scores, torch.randn(3, 1), where=where).any()


@pytest.mark.parametrize("cls", [MarginMSELoss, DistillKLDivLoss])
def test_lists_without_documents_cost_nothing(cls):
    scores = torch.empty(0, requires_grad=True)
    value = cls().compute([Output(scores, lists=(0, 0))], torch.empty(0), slice(0, 2))
    value.backward()
    assert value.item() == 0
    assert scores.grad is not None


def test_a_collapsed_teacher_is_warned_of_once(caplog):
    labels, excluded = torch.tensor([[0.0, 150.0]] * 4), torch.tensor([[0.0, -torch.inf]] * 4)
    loss = DistillKLDivLoss(teacher_temperature=0.5)
    with caplog.at_level(logging.WARNING, "losskit"):
        for _ in range(2):
            loss.compute_loss_from_embeddings(embeddings(3), labels)
        DistillKLDivLoss(student_temperature=0.5, teacher_temperature=2.0).compute_loss_from_embeddings(
            embeddings(3), labels
        )
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), excluded)
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("DistillKLDivLoss: teacher_temperature 0.5 gives candidates probability 0")
    assert "span up to 150 within a list; raise it above 1.5" in message


@pytest.mark.parametrize("option", ["temperature", "student_temperature", "teacher_temperature"])
@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_temperatures_are_positive_numbers(option, value):
    with pytest.raises(LossError, match=rf"DistillKLDivLoss\.{option}: expected a positive number"):
        DistillKLDivLoss(**{option: value})


def test_a_teacher_that_gives_no_number_is_refused():
    labels = torch.tensor([[0.0, float("nan")]] * 4)
    with pytest.raises(LossError, match="labels for DistillKLDivLoss: expected numbers, got NaN"):
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), labels)


def test_a_teacher_without_preferences_teaches_nothing(caplog):
    labels = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0], [5.0, 5.0]])
    with caplog.at_level(logging.WARNING, "losskit"):
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), labels)
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), labels.flatten())
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), labels + torch.tensor([0.0, 0.1]))
    assert len(caplog.records) == 2
    assert all("the teacher's scores are equal within every list" in record.message for record in caplog.records)


@pytest.mark.parametrize("cls", [MarginMSELoss, DistillKLDivLoss])
def test_one_document_per_query_teaches_nothing(cls, caplog):
    with caplog.at_level(logging.WARNING, "losskit"):
        value = cls().compute_loss_from_embeddings(embeddings(2), numbers(ROWS, 1))
    assert value == 0
    assert "every list has one document" in caplog.text


def test_refuses_what_does_not_fit():
    with pytest.raises(LossError, match=r"MarginMSELoss: expected margins, scores of shape .*, got \[4, 5\]"):
        MarginMSELoss().compute_loss_from_embeddings(embeddings(4), torch.zeros(4, 5))
    with pytest.raises(LossError, match=r"MarginMSELoss: expected margins, scores of shape .*, got \[4\]"):
        MarginMSELoss().compute_loss_from_embeddings(embeddings(4), torch.zeros(4))
    with pytest.raises(LossError, match="labels for DistillKLDivLoss: expected numbers, got NaN"):
        DistillKLDivLoss().compute_loss_from_embeddings(embeddings(3), torch.full((4, 2), float("nan")))
    for option in ("temperature", "student_temperature", "teacher_temperature"):
        with pytest.raises(LossError, match=rf"DistillKLDivLoss.{option}: expected a positive number, got 0"):
            DistillKLDivLoss(**{option: 0})
