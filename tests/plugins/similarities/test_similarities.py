"""The similarities: the laws, and the formulas in loops."""

from __future__ import annotations

import pytest
import torch

from losskit import Output, get
from losskit.testing import differentiate, laws, require_equal, subjects


def angle(a, b):
    """|Re + Im| of the complex cosine; the halves are real and imaginary parts."""
    half = len(a) // 2
    total = sum(torch.complex(a[i], a[i + half]) * torch.complex(b[i], -b[i + half]) for i in range(half))
    return (total.real + total.imag).abs() / (a.square().sum() * b.square().sum()).sqrt()


FORMULAS = {
    "angle": angle,
    "cosine": lambda a, b: (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt(),
    "dot": lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)),
    "euclidean": lambda a, b: -sum((x - y).square() for x, y in zip(a, b, strict=True)).sqrt(),
    "manhattan": lambda a, b: -sum((x - y).abs() for x, y in zip(a, b, strict=True)),
}
SUBJECTS = {
    f"{name}-{subject}": subject
    for name in FORMULAS
    for subject in subjects(get("similarity", name).load(), kind="similarity", families=["dense", "sparse"])
}


@pytest.mark.parametrize("law", laws("similarity"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula_in_loops(name):
    torch.manual_seed(0)
    a, b = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    weights = torch.randn(3, 5, dtype=torch.float64)
    similarity = get("similarity", name).load()()
    expected = sum(weights[i, j] * FORMULAS[name](x, y) for i, x in enumerate(a) for j, y in enumerate(b))
    got = (similarity(Output(a), Output(b)) * weights).sum()
    require_equal("all pairs", differentiate(expected, [a, b]), differentiate(got, [a, b]))


def test_distances_of_near_vectors_keep_their_digits():
    a = torch.tensor([[1000.0, 1000.0]])
    b = a + torch.tensor([[0.01, 0.0]])
    expected = float(a[0, 0] - b[0, 0])
    for name in ("euclidean", "manhattan"):
        similarity = get("similarity", name).load()()
        assert float(similarity(Output(a), Output(b))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["euclidean", "manhattan"])
def test_the_gradient_at_distance_zero_is_zero(name):
    similarity = get("similarity", name).load()()
    a = torch.ones(2, 3, requires_grad=True)
    (
        similarity(Output(a), Output(torch.ones(2, 3))).sum()
        + similarity.pairwise(Output(a), Output(torch.ones(2, 3))).sum()
    ).backward()
    assert not a.grad.any()


def test_a_zero_vector_is_like_nothing_and_stays_where_it_is():
    similarity = get("similarity", "cosine").load()()
    a = torch.zeros(1, 3, requires_grad=True)
    b = torch.ones(1, 3)
    for value in (similarity(Output(a), Output(b)).sum(), similarity.pairwise(Output(a), Output(b)).sum()):
        value.backward()
        assert value == 0
    assert not a.grad.any()
