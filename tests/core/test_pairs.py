"""Pairwise similarities against loops, whole and in chunks, with one other and with several."""

from __future__ import annotations

import math
import warnings
from functools import partial

import pytest
import torch

from losskit.errors import LossError
from losskit.math import pairs, pairwise_angle, pairwise_cosine, pairwise_distance, pairwise_dot
from losskit.testing import differentiate, require_equal


def dot(x, y):
    return sum(p * q for p, q in zip(x, y, strict=True))


def cosine(x, y):
    return dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()


def angle(x, y):
    """Of complex entries whose real parts are the first half: |Re + Im| of their cosine."""
    x, y = (v if len(v) % 2 == 0 else torch.cat([v, v.new_zeros(1)]) for v in (x, y))
    half = len(x) // 2
    product = sum(
        torch.complex(x[i], x[i + half]) * torch.complex(y[i], y[i + half]).conj() for i in range(half)
    ) / torch.sqrt(dot(x, x) * dot(y, y))
    return (product.real + product.imag).abs()


def euclidean(x, y):
    return sum((p - q).square() for p, q in zip(x, y, strict=True)).sqrt()


def manhattan(x, y):
    return sum((p - q).abs() for p, q in zip(x, y, strict=True))


KINDS = {
    "dot": (pairwise_dot, dot),
    "cosine": (pairwise_cosine, cosine),
    "angle": (pairwise_angle, angle),
    "euclidean": (pairwise_distance, euclidean),
    "manhattan": (partial(pairwise_distance, order=1.0), manhattan),
}


def vectors(count, rows=7, width=6):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, width, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(count)]


@pytest.fixture(params=["whole", "chunks"])
def chunked(request, monkeypatch):
    if request.param == "chunks":  # of three rows, the last of one
        monkeypatch.setattr(pairs, "WHOLE_BYTES", 0)
        monkeypatch.setattr(pairs, "CHUNK_BYTES", 3 * 6 * 8)


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("name", KINDS)
def test_equals_the_formula_in_loops(name, others):
    function, formula = KINDS[name]
    a, *rest = columns = vectors(1 + others)
    expected = torch.stack([torch.stack([formula(x, y) for x, y in zip(a, b, strict=True)]) for b in rest], 1)
    got = function(*columns)
    assert got.shape == ((7,) if others == 1 else (7, others))
    weights = torch.arange(1.0, 1 + expected.numel(), dtype=torch.float64).view_as(expected)
    require_equal(
        name,
        differentiate((expected.sin() * weights).sum(), columns),
        differentiate((got.sin() * weights.view_as(got)).sum(), columns),
    )


def test_angle_of_an_odd_width():
    columns = vectors(2, width=5)
    expected = torch.stack([angle(x, y) for x, y in zip(*columns, strict=True)]).sum()
    require_equal("odd", differentiate(expected, columns), differentiate(pairwise_angle(*columns).sum(), columns))


def test_angle_is_at_most_the_square_root_of_two():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, -1.0]])
    assert float(pairwise_angle(a, b)) == pytest.approx(math.sqrt(2))


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("name", KINDS)
def test_zero_and_equal_vectors_have_finite_gradients(name):
    function, _ = KINDS[name]
    zero = torch.zeros(7, 6, requires_grad=True)
    other = torch.ones(7, 6, requires_grad=True)
    for a, b in ((zero, zero), (zero, other), (other, other)):
        for gradient in torch.autograd.grad(function(a, b).sum(), [a, b]):
            assert gradient.isfinite().all()
    assert not torch.autograd.grad(function(zero, zero).sum(), zero)[0].any()
    if name in ("euclidean", "manhattan"):
        same = other.detach().clone().requires_grad_()
        assert not any(each.any() for each in torch.autograd.grad(function(other, same).sum(), [other, same]))


@pytest.mark.usefixtures("chunked")
@pytest.mark.parametrize("name", KINDS)
def test_runs_on_meta_and_compiled(name):
    function, _ = KINDS[name]
    columns = vectors(3)
    away = [torch.empty_like(column, device="meta").requires_grad_() for column in columns]
    function(*away).sum().backward()
    assert all(column.grad.is_meta for column in away)
    torch.compiler.reset()
    compiled = torch.compile(lambda *given: function(*given).sin().sum(), backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tracing an autograd.Function gives torch's own
        got = differentiate(compiled(*columns), columns)
    require_equal(name, differentiate(function(*columns).sin().sum(), columns), got)


def test_half_precision_is_computed_in_float32():
    a, b = (column.detach().bfloat16().requires_grad_() for column in vectors(2))
    value = pairwise_cosine(a, b)
    assert value.dtype == torch.float32
    value.sum().backward()
    assert a.grad.dtype == torch.bfloat16


def test_gradients_cannot_be_differentiated_again():
    a, b = vectors(2)
    with pytest.raises(LossError, match="a second derivative of a loss"):
        torch.autograd.grad(pairwise_dot(a, b).sum(), a, create_graph=True)
