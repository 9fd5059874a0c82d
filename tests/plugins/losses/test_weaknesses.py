"""What goes wrong in sentence-transformers 6.2 without an error does not here, for every dense loss and wrapper."""

from __future__ import annotations

import pytest
import torch
from matrix import COMBINATIONS, MODELS, WIDTH, WRAPPERS, combination
from torch.utils._python_dispatch import TorchDispatchMode

import losskit
from losskit import GradCache, LossError, Output
from losskit.clock import Clock
from losskit.features import unload
from losskit.math import normalize
from losskit.testing import ToyEncoder, differentiate, random_batch, require_equal, total
from losskit_plugins.losses.gist import GISTEmbedLoss
from losskit_plugins.losses.mse import MSELoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss

WORKING = [each for each in COMBINATIONS if not each.refused and each.family == "dense"]
ALONE = [each for each in WORKING if not each.wrapper]


def formats(each):
    return losskit.get("loss", each.loss).card.formats


BOUNDED = [each for each in ALONE if all(form.arity[1] is not None for form in formats(each))]
UNLABELLED = [each for each in ALONE if all(form.labels == "none" for form in formats(each))]


@pytest.mark.parametrize("each", BOUNDED, ids=str)
def test_a_column_more_than_declared_is_refused(each):
    columns = 1 + max(form.arity[1] for form in formats(each))
    with pytest.raises(LossError, match=rf"^the batch for .*: expected columns .*, got {columns} columns"):
        each.build().compute_loss_from_embeddings([torch.ones(3, WIDTH)] * columns)


@pytest.mark.parametrize("each", UNLABELLED, ids=str)
def test_labels_that_nobody_reads_are_refused(each):
    columns = max(form.arity[0] for form in formats(each))
    with pytest.raises(LossError, match=r"^labels for .*: expected none, for it learns from the columns alone"):
        each.build().compute_loss_from_embeddings([torch.ones(3, WIDTH)] * columns, torch.ones(3))


def settings(model):
    """All that is set on a model and its parts, beside parameters, buffers and parts."""
    plain = (str, int, float, bool, type(None))
    # What begins with an underscore is torch's and transformers' own.
    return [
        {key: each for key, each in vars(part).items() if key[0] != "_" and (isinstance(each, plain) or callable(each))}
        for part in model.modules()
    ]


@pytest.mark.parametrize("each", WORKING, ids=str)
def test_neither_building_nor_calling_changes_the_model(each):
    model = MODELS.get(each.loss, ToyEncoder)()
    before = settings(model)
    loss = losskit.build(each.expression, model)
    assert settings(model) == before
    batch = each.batches(loss)[0]
    total(loss(batch.features(loss), batch.flat_labels)).backward()
    assert settings(model) == before


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_loss_is_what_it_was_and_can_be_wrapped_again(wrapper):
    outer = combination("multiple-negatives-ranking", wrapper).build(GradCache(mini_batch_size=2))
    *_, (_, inner) = outer.tree()
    batch = random_batch(inner.formats[0])

    def found(loss):
        return differentiate(loss(batch.features(loss)), list(outer.model.parameters()))

    before = found(inner)
    wrapped = found(outer)
    require_equal("the inner loss afterwards", before, found(inner))
    options = combination("multiple-negatives-ranking", wrapper).expression
    inside = {"losses": {"only": inner}} if "losses" in options else {"loss": inner}
    again = losskit.build(options | inside, outer.model)
    again.set_clock(Clock(step=1, progress=0.5))
    require_equal("wrapped again", wrapped, found(again))


@pytest.mark.parametrize("name", ["mse", "embed-distill"])
def test_the_rows_of_a_wrapped_teacher_are_not_taken_for_columns(name):
    """With as many columns as rows, where nothing but the meaning of the axes tells."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(2, 4, generator=generator) for _ in range(2)]
    teacher = torch.randn(2, 4, generator=generator)
    inner = losskit.build(name)
    alone = inner.compute_loss_from_embeddings(columns, teacher)
    row_wise = [[column[row : row + 1] for column in columns] for row in range(2)]
    apart = [inner.compute_loss_from_embeddings(row, teacher[place : place + 1]) for place, row in enumerate(row_wise)]
    torch.testing.assert_close(alone, sum(apart) / 2)
    summed = WeightedSumLoss(None, {"only": inner}).compute_loss_from_embeddings(columns, teacher)
    assert summed == {"only": alone}
    whole = MatryoshkaLoss(None, inner, (4,)).compute_loss_from_embeddings(columns, teacher)
    assert whole == {"matryoshka_4": alone}


def test_matryoshka_leaves_nothing_to_learn_where_the_student_is_its_teacher():
    column = torch.randn(3, 4)
    found = MatryoshkaLoss(None, MSELoss(), (4, 2)).compute_loss_from_embeddings([column], column)
    assert list(found.values()) == [0, 0]


def huge(tensor, length):
    tensor = tensor.detach().float()
    return (tensor * (length / tensor.norm(dim=-1, keepdim=True).clamp(min=1e-6))).requires_grad_()


@pytest.mark.parametrize("each", ALONE, ids=str)
def test_vectors_of_length_1e8_are_finite_in_float32(each):
    """As the laws have it in float64: the square of an inner product is still a number."""
    loss = each.build().float()
    batch = each.batches(loss)[0]
    features, riders = zip(*map(unload, batch.features(loss)), strict=True)
    with torch.no_grad():
        columns = [column.map_embedding(lambda t: huge(t, 1e8)) for column in loss._encoded(features, riders)]
    value = loss.compute(columns, batch.flat_labels, slice(0, batch.rows))
    found = differentiate(value, [column.embedding for column in columns if column.embedding is not None])
    assert found.value.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.gradients)


def test_vectors_whose_squares_overflow_have_no_direction():
    vectors = torch.tensor([[1e30, 1e30], [3.0, 4.0]], requires_grad=True)
    unit = normalize(vectors)
    assert unit.tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    unit[:, 0].sum().backward()
    assert vectors.grad[0].tolist() == [0.0, 0.0]


class Largest(TorchDispatchMode):
    """The most numbers that an operation gave."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def test_a_guide_compares_without_a_vector_for_each_pair():
    rows, width = 48, 32
    columns = [torch.randn(rows, width, requires_grad=True) for _ in range(2)]
    records = [Output(each, parts={"guide": Output(torch.randn(rows, width))}) for each in columns]
    with Largest() as largest:
        GISTEmbedLoss(None, ToyEncoder()).compute(records, None, slice(0, rows)).backward()
    assert rows * rows <= largest.numbers < 4 * rows * rows < rows * rows * width
