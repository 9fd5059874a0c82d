"""Global orthogonal regularization, as loss and as regularizer: the laws, the formula in loops, both Gram matrices."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import losskit
from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects, total
from losskit_plugins.losses.global_orthogonal_regularization import GlobalOrthogonalRegularizationLoss
from losskit_plugins.regularizers.global_orthogonal import GlobalOrthogonalRegularizer, off_diagonal_sums

SUBJECTS = [
    *subjects(GlobalOrthogonalRegularizationLoss),
    *subjects(partial(GlobalOrthogonalRegularizationLoss, similarity="dot", aggregation="sum"), families=["dense"]),
    *subjects(partial(GlobalOrthogonalRegularizationLoss, similarity="manhattan", mean_weight=0.5), families=["dense"]),
]
REGULARIZERS = [
    *subjects(GlobalOrthogonalRegularizer, kind="regularizer"),
    *subjects(partial(GlobalOrthogonalRegularizer, 0.5, None, similarity="euclidean"), kind="regularizer"),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


@pytest.mark.parametrize("law", laws("regularizer"), ids=str)
@pytest.mark.parametrize("subject", REGULARIZERS, ids=[f"{i}-{each}" for i, each in enumerate(REGULARIZERS)])
def test_laws_of_the_regularizer(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(vectors):
    """Both terms with the cosine."""
    items, dimension = vectors.shape
    sums = [torch.zeros((), dtype=vectors.dtype) for _ in range(2)]
    for i in range(items):
        for j in range(items):
            if i != j:
                s = vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm())
                sums = [sums[0] + s, sums[1] + s * s]
    means = [each / (items * (items - 1)) for each in sums]
    return means[0] ** 2, torch.clamp(means[1] - 1 / dimension, min=0)


def columns_of(items, dimension=3):
    generator = torch.Generator().manual_seed(items)
    drawn = torch.randn(2, items, dimension, dtype=torch.float64, generator=generator) + 0.5
    return [column.clone().requires_grad_() for column in drawn]


@pytest.mark.parametrize("items", [2, 5, 6, 11])  # on both sides of twice the dimension
def test_equals_the_formula_in_loops(items):
    columns = columns_of(items)
    for aggregation, factor in (("sum", 1.0), ("mean", 0.5)):
        (first, one), (second, other) = map(by_loops, columns)
        expected = differentiate(factor * (2.0 * (first + second) + 3.0 * (one + other)), columns)
        got = GlobalOrthogonalRegularizationLoss(None, 2.0, 3.0, aggregation).compute_loss_from_embeddings(columns)
        assert list(got) == ["gor_mean", "gor_second_moment"]
        require_equal("the loss", expected, differentiate(total(got), columns))
        penalty = GlobalOrthogonalRegularizer(2.0, 3.0, aggregation)(*map(Output, columns))
        require_equal("the regularizer", expected, differentiate(penalty, columns))
    expected = differentiate(sum(by_loops(columns[0])), columns[:1])
    alone = GlobalOrthogonalRegularizer()(None, Output(columns[0]))
    require_equal("documents alone", expected, differentiate(alone, columns[:1]))


def test_a_similarity_without_transform_gives_the_same_as_one_with():
    class Cosine:
        def __call__(self, a, b):
            return torch.nn.functional.cosine_similarity(a.embedding[:, None], b.embedding[None], dim=-1)

        def pairwise(self, a, b):
            return torch.nn.functional.cosine_similarity(a.embedding, b.embedding, dim=-1)

    columns = columns_of(9)
    results = [
        differentiate(
            GlobalOrthogonalRegularizationLoss(similarity=each).compute_loss_from_embeddings(columns), columns
        )
        for each in (None, Cosine())
    ]
    require_equal("tiles beside the Gram matrix", *results)


def test_sums_of_unequal_lengths():
    vectors = columns_of(20)[0]
    for power in (1, 2):
        scores = vectors @ vectors.T
        expected = (scores - scores.diagonal().diag()).pow(power).sum()
        got = off_diagonal_sums(vectors)[power - 1]
        require_equal("sums", differentiate(expected, [vectors]), differentiate(got, [vectors]))


def test_a_weight_of_zero_leaves_its_term_out():
    columns = columns_of(4)
    assert list(GlobalOrthogonalRegularizationLoss(mean_weight=0.0).compute_loss_from_embeddings(columns)) == [
        "gor_second_moment"
    ]
    assert list(
        GlobalOrthogonalRegularizationLoss(second_moment_weight=None).compute_loss_from_embeddings(columns)
    ) == ["gor_mean"]


def test_one_row_teaches_nothing(caplog):
    columns = columns_of(1)
    found = differentiate(GlobalOrthogonalRegularizationLoss().compute_loss_from_embeddings(columns), columns)
    assert found.value == 0
    assert not any(gradient.any() for gradient in found.gradients)
    assert "one row has no other to be orthogonal to" in caplog.text


def test_refuses_what_does_not_fit():
    for name in ("GlobalOrthogonalRegularizationLoss", "GlobalOrthogonalRegularizer"):
        kind = "loss" if name.endswith("Loss") else "regularizer"
        make = {"loss": GlobalOrthogonalRegularizationLoss, "regularizer": GlobalOrthogonalRegularizer}[kind]
        with pytest.raises(LossError, match=rf"{name}.mean_weight: expected it or second_moment_weight other than 0"):
            make(mean_weight=0, second_moment_weight=None)
        with pytest.raises(LossError, match=rf"{name}.aggregation: expected mean or sum, got 'max'"):
            make(aggregation="max")
    with pytest.raises(LossError, match=r"labels for GlobalOrthogonalRegularizationLoss: expected none"):
        GlobalOrthogonalRegularizationLoss().compute_loss_from_embeddings(columns_of(3), torch.zeros(3))


def test_it_is_registered_as_both():
    assert isinstance(losskit.build("global-orthogonal", kind="regularizer"), GlobalOrthogonalRegularizer)
    assert losskit.get("loss", "global-orthogonal-regularization").class_name == "GlobalOrthogonalRegularizationLoss"
