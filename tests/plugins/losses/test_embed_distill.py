"""Embedding distillation, mean squared error included: the laws, the formula in loops, teachers and projections."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import Format, LossError, Output, build
from losskit.batch import preprocess
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.embed_distill import EmbedDistillLoss
from losskit_plugins.losses.mse import MSELoss

TEACHER = {"name": "losskit.testing.toys:ToyEncoder", "seed": 5}
PAIR = Format(["text", "text"], "embedding")
SUBJECTS = [
    *subjects(MSELoss),
    *subjects(MSELoss, families=["dense"], form=PAIR),
    *subjects(partial(MSELoss, projection=8), families=["dense"]),
    *subjects(lambda model: MSELoss(model, teacher=ToyEncoder(seed=5)), families=["dense"]),
    *subjects(
        lambda model: EmbedDistillLoss(model, projection=5, teacher=ToyEncoder(dimension=5, seed=5)), families=["dense"]
    ),
    *(subject for d in ("cosine", "l2") for subject in subjects(partial(EmbedDistillLoss, distance=d))),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(columns, teachers, distance):
    """teachers: per column its targets."""
    values = []
    for column, targets in zip(columns, teachers, strict=True):
        for s, t in zip(column, targets, strict=True):
            squares = sum((x - y) ** 2 for x, y in zip(s, t, strict=True))
            if distance == "mse":
                values.append(squares / len(s))
            elif distance == "l2":
                values.append(squares.sqrt())
            else:
                product = sum(x * y for x, y in zip(s, t, strict=True))
                values.append(1 - product / (sum(x * x for x in s) * sum(y * y for y in t)).sqrt())
    return sum(values) / len(values)


@pytest.mark.parametrize("distance", ["cosine", "mse", "l2"])
@pytest.mark.parametrize("several", [False, True], ids=["one teacher", "one per column"])
def test_equals_the_formula_in_loops(distance, several):
    torch.manual_seed(0)
    columns = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    labels = torch.randn(4, 2, 3, dtype=torch.float64) if several else torch.randn(4, 3, dtype=torch.float64)
    teachers = labels.unbind(1) if several else [labels, labels]
    expected = differentiate(by_loops(columns, teachers, distance), columns)
    loss = EmbedDistillLoss(distance=distance)
    require_equal("loops", expected, differentiate(loss.compute_loss_from_embeddings(columns, labels), columns))
    if distance == "mse":
        same = MSELoss().compute_loss_from_embeddings(columns, labels)
        require_equal("by its own name", expected, differentiate(same, columns))


def test_a_student_that_is_its_teacher_has_learned_all():
    column = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for loss in (MSELoss(), EmbedDistillLoss(), EmbedDistillLoss(distance="l2")):
        found = differentiate(loss.compute_loss_from_embeddings([column], column.detach().clone()), [column])
        assert found.value.abs() < 1e-12
        assert found.gradients[0].abs().max() < 1e-12


def test_a_projection_brings_the_student_to_the_teachers_width():
    torch.manual_seed(0)
    loss = MSELoss(ToyEncoder(dimension=4), projection=2)
    column = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(3, 2, dtype=torch.float64)
    layer = loss.projection_layer
    expected = ((column @ layer.weight.T + layer.bias - labels) ** 2).mean()
    inputs = [column, *layer.parameters()]
    got = differentiate(loss.compute_loss_from_embeddings([column], labels), inputs)
    require_equal("projected", differentiate(expected, inputs), got)
    assert loss.fixed_dimension
    assert set(loss.owned_state()) == {"projection_layer.weight", "projection_layer.bias"}


def test_a_frozen_teacher_reads_the_first_column_for_all():
    model = ToyEncoder(seed=1)
    loss = build({"name": "mse", "teacher": TEACHER}, model)
    assert [form.labels for form in loss.formats] == ["none"]
    texts = [["one two", "three"], ["eins zwei", "drei vier fuenf"]]
    value = loss(preprocess(loss, texts, inputs=["text", "text"]))
    teacher = loss.teacher(loss.teacher.preprocess(texts[0])).embedding
    students = [model(model.preprocess(column)).embedding for column in texts]
    expected = sum(((student - teacher) ** 2).mean() for student in students) / 2
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(parameter.grad is None for parameter in loss.teacher.parameters())
    assert not loss.owned_state()
    assert loss.get_config_dict()["teacher"]["seed"] == 5


def test_matryoshka_cuts_the_labels():
    torch.manual_seed(0)
    columns = [torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    labels = torch.randn(4, 6, dtype=torch.float64)
    loss = build({"name": "matryoshka", "dims": [6, 2], "loss": "mse"})
    value = loss.compute_loss_from_embeddings(columns, labels)
    for size in (6, 2):
        expected = sum(((column[:, :size] - labels[:, :size]) ** 2).mean() for column in columns) / 2
        torch.testing.assert_close(value[f"matryoshka_{size}"], expected)


def test_no_rows_cost_nothing():
    column = torch.randn(3, 4, requires_grad=True)
    value = MSELoss().compute([Output(column)], torch.randn(3, 4), slice(1, 1))
    value.backward()
    assert value == 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, r"labels for MSELoss: expected embedding, got none"),
        (
            torch.zeros(3, 5),
            r"the teacher's embeddings for MSELoss: expected width 4, .*, got 5\. Fix: set projection=5",
        ),
        (torch.zeros(3, 3, 4), r"labels for MSELoss: expected an embedding for each of 2 columns, .*shape \[3, 3, 4\]"),
        (torch.zeros(3), r"labels for MSELoss: expected embedding of shape"),
    ],
)
def test_labels_that_are_no_embeddings_are_refused(labels, said):
    with pytest.raises(LossError, match=said):
        MSELoss().compute_loss_from_embeddings([torch.randn(3, 4), torch.randn(3, 4)], labels)


def test_refuses_what_does_not_fit():
    with pytest.raises(LossError, match=r"EmbedDistillLoss.distance: expected one of cosine, mse, l2, got 'l1'"):
        EmbedDistillLoss(distance="l1")
    with pytest.raises(LossError, match=r"MSELoss.model: expected an encoder that knows the width"):
        MSELoss(projection=3)
    for width in (0, -4):
        with pytest.raises(LossError, match=rf"MSELoss.projection: expected a positive integer, got {width}"):
            MSELoss(ToyEncoder(), projection=width)
    taught = build({"name": "mse", "teacher": TEACHER}, ToyEncoder())
    with pytest.raises(LossError, match=r"labels for MSELoss: expected none, for it learns from the columns alone"):
        taught.compute_loss_from_embeddings([torch.randn(3, 8)], torch.randn(3, 8))
