"""losskit.math: tiled scoring, cosines, ragged lists and safe reductions against plain formulas."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from losskit import LossError, Output
from losskit.math import (
    Block,
    contrastive,
    inner_products,
    masked_log_softmax,
    masked_mean,
    masked_softmax,
    normalize,
    pad_lists,
    pairwise_cosine,
    products,
    promoted,
    softmax_cross_entropy,
    tiles,
    tuple_index,
)
from losskit.testing import differentiate, require_equal

INFINITY = float("inf")
DOT = SimpleNamespace(transform=lambda record: record.embedding)


def euclidean(a, b):
    return -(a.embedding[:, None] - b.embedding).square().sum(-1)


def vectors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def plain(blocks, targets, weights, scores, scale):
    """The formula on held matrices."""
    tiles = []
    for block in blocks:
        tile = scores(block.rows, block.columns) * scale
        added = 0.0 if block.adjust is None else block.adjust(tile.detach(), slice(0, len(tile)))
        tiles.append(tile + added)
    logits = torch.cat(tiles, dim=1)
    total = 0.0
    for row, (target, weight) in enumerate(zip(targets, weights, strict=True)):
        total = total + weight * (logits[row].exp().sum().log() - logits[row, target])
    return total


def without_diagonal(logits, part):
    own = torch.arange(logits.shape[1]) == torch.arange(part.start, part.stop)[:, None]
    return torch.zeros_like(logits).masked_fill_(own, -INFINITY)


SIMILARITIES = {
    "fused": (DOT, lambda a, b: a.embedding @ b.embedding.T),
    "called": (euclidean, euclidean),
}


@pytest.mark.parametrize("tile_rows", [1, 2, 100])
@pytest.mark.parametrize("learned", [False, True], ids=["number", "parameter"])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_softmax_cross_entropy_equals_the_formula(monkeypatch, name, learned, tile_rows):
    a, b = vectors(5, 3), vectors(7, 3, seed=1)
    similarity, scores = SIMILARITIES[name]
    first, second = Output(a), Output(b)
    blocks = [Block(first, second), Block(first, first, without_diagonal)]
    monkeypatch.setattr(contrastive, "TILE_BYTES", tile_rows * 12 * 8)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True) if learned else 0.7
    targets, weights = torch.tensor([1, 0, 6, 6, 2]), torch.tensor([1.0, 0.5, 0.0, 2.0, 0.1], dtype=torch.float64)
    leaves = [a, b, scale] if learned else [a, b]
    got = softmax_cross_entropy(blocks, targets, weights, similarity=similarity, scale=scale)
    expected = plain(blocks, targets, weights, scores, scale)
    require_equal(name, differentiate(expected, leaves), differentiate(got, leaves))


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_softmax_cross_entropy_is_the_mean_unless_rows_are_weighted(name, rows):
    similarity, scores = SIMILARITIES[name]
    a, b = vectors(4, 3)[:rows], vectors(5, 3, seed=1)
    blocks, targets = [Block(Output(a), Output(b))], torch.tensor([2, 0, 4, 1])[:rows]
    got = softmax_cross_entropy(blocks, targets, similarity=similarity)
    shares = torch.full((rows,), 1 / max(1, rows), dtype=torch.float64)
    expected = plain(blocks, targets, shares, scores, 1.0) if rows else got.detach() * 0
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.detach(), expected.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_softmax_cross_entropy_without_gradients_keeps_none(name):
    with torch.no_grad():
        a = Output(vectors(3, 2))
        value = softmax_cross_entropy(
            [Block(a, a)], torch.arange(3), torch.ones(3).double(), similarity=SIMILARITIES[name][0]
        )
    assert not value.requires_grad


def test_one_side_may_be_fixed():
    a, b = vectors(3, 2), vectors(4, 2).detach()
    blocks = [Block(Output(a), Output(b))]
    got = softmax_cross_entropy(blocks, torch.arange(3), torch.ones(3).double(), similarity=DOT)
    expected = plain(blocks, torch.arange(3), torch.ones(3).double(), SIMILARITIES["fused"][1], 1.0)
    require_equal("fixed candidates", differentiate(expected, [a]), differentiate(got, [a]))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_second_derivative_is_refused(name):
    a = vectors(3, 2)
    record = Output(a)
    blocks = [Block(record, record)]
    value = softmax_cross_entropy(blocks, torch.arange(3), torch.ones(3).double(), similarity=SIMILARITIES[name][0])
    with pytest.raises(LossError, match="a second derivative of a loss: expected a backward without create_graph"):
        torch.autograd.grad(value, a, create_graph=True)


def test_a_graph_can_be_walked_twice():
    a = vectors(3, 2)
    record = Output(a)
    value = softmax_cross_entropy([Block(record, record)], torch.arange(3), torch.ones(3).double(), similarity=DOT)
    first = torch.autograd.grad(2 * value, a, retain_graph=True)
    second = torch.autograd.grad(value, a)
    torch.testing.assert_close(first[0], 2 * second[0])


def test_no_score_overflows():
    a = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    record = Output(a)
    value = softmax_cross_entropy([Block(record, record)], torch.arange(2), torch.ones(2), similarity=DOT)
    value.backward()
    assert value == 0
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_normalize_equals_the_formula(shape):
    a, weights = vectors(*shape), vectors(*shape, seed=1).detach()
    expected = (a / a.square().sum(-1, keepdim=True).sqrt() * weights).sum()
    require_equal("normalize", differentiate(expected, [a]), differentiate((normalize(a) * weights).sum(), [a]))


def test_pairwise_cosine_equals_the_formula():
    a, b, weights = vectors(4, 3), vectors(4, 3, seed=1), vectors(4, seed=2).detach()
    cosines = [(x @ y) / (x.norm() * y.norm()) for x, y in zip(a, b, strict=True)]
    expected = (torch.stack(cosines) * weights).sum()
    got = (pairwise_cosine(a, b) * weights).sum()
    require_equal("cosines", differentiate(expected, [a, b]), differentiate(got, [a, b]))


@pytest.mark.parametrize("length", [0.0, 1e-13])
def test_vectors_without_direction_pass_no_gradient(length):
    a = torch.tensor([[length, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    b = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    unit, cosines = normalize(a), pairwise_cosine(a, b)
    assert unit[0].tolist() == [0.0, 0.0]
    assert cosines[0] == 0
    (unit.sum() + cosines.sum()).backward()
    assert not a.grad[0].any()
    assert not b.grad[0].any()
    assert a.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    # Squared and summed in float16 these would be infinite.
    a = torch.full((1, 4), 60000.0, dtype=dtype, requires_grad=True)
    assert normalize(a).dtype == pairwise_cosine(a, a).dtype == promoted(a).dtype == torch.float32
    torch.testing.assert_close(pairwise_cosine(a, a), torch.ones(1))
    pairwise_cosine(a, a).sum().backward()
    assert a.grad.dtype == dtype
    assert a.grad.isfinite().all()


def test_promoted_leaves_full_precision_alone():
    for dtype in (torch.float32, torch.float64, torch.long):
        tensor = torch.ones(2, dtype=dtype)
        assert promoted(tensor) is tensor


@pytest.mark.parametrize("lists", [(2, 0, 3), (0, 0), (3, 3), (1,)])
def test_pad_lists_puts_each_item_at_its_place(lists):
    values = torch.arange(sum(lists), dtype=torch.float64).requires_grad_()
    padded, where = pad_lists(values, lists, fill=-1.0)
    assert where.shape == padded.shape == (len(lists), max(lists))
    position = 0
    for row, count in enumerate(lists):
        assert where[row].tolist() == [True] * count + [False] * (max(lists) - count)
        for column in range(max(lists)):
            assert padded[row, column] == (position + column if column < count else -1.0)
        position += count
    padded.sum().backward()
    assert values.grad.tolist() == [1.0] * sum(lists)


def test_lists_without_items_are_all_padding():
    padded, where = pad_lists(torch.tensor([3.0, 1.0]), (0, 2, 0))
    assert where.tolist() == [[False, False], [True, True], [False, False]]
    assert padded.tolist() == [[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]]


def test_tuple_index_names_the_owner():
    assert tuple_index((2, 0, 1), 3, torch.device("cpu")).tolist() == [0, 0, 2]
    assert tuple_index(None, 3, torch.device("cpu")).tolist() == [0, 1, 2]
    assert tuple_index((0, 0), 0, torch.device("cpu")).tolist() == []


WHERE = torch.tensor([[True, True, False], [False, False, False]])


def test_masked_log_softmax_equals_the_formula():
    scores = vectors(2, 3)
    got = masked_log_softmax(scores, WHERE)
    log_z = (scores[0, 0].exp() + scores[0, 1].exp()).log()
    zero = torch.zeros((), dtype=torch.float64)
    expected = torch.stack([scores[0, 0] - log_z, scores[0, 1] - log_z, zero, zero, zero, zero])
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    a, b = (expected * weights).sum(), (got.flatten() * weights).sum()
    require_equal("log-softmax", differentiate(a, [scores]), differentiate(b, [scores]))
    torch.testing.assert_close(masked_softmax(scores, WHERE)[0, :2], expected[:2].exp())
    assert masked_softmax(scores, WHERE).sum(-1).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize("fill", [INFINITY, -INFINITY, float("nan")])
@pytest.mark.parametrize("reduce", [masked_mean, masked_softmax, masked_log_softmax])
def test_nothing_comes_through_a_mask(reduce, fill):
    scores = torch.tensor([[1.0, 2.0, fill], [fill, fill, fill]], requires_grad=True)
    value = reduce(scores, WHERE)
    assert value.isfinite().all()
    value.sum().backward()
    assert scores.grad.isfinite().all()
    assert not scores.grad[~WHERE].any()


def test_masked_mean_equals_the_formula():
    values = vectors(2, 3)
    expected = (values[0, 0] + values[0, 1]) / 2
    require_equal("mean", differentiate(expected, [values]), differentiate(masked_mean(values, WHERE), [values]))
    assert masked_mean(values, WHERE, dim=1).tolist() == [pytest.approx(expected.item()), 0.0]


def test_tiles_cut_items_of_a_record_with_lists(monkeypatch):
    """Rows of a softmax are items; a record's own indexing counts its tuples."""
    a, b = vectors(6, 3), vectors(4, 3, seed=1)
    targets, weights = torch.tensor([0, 1, 2, 3, 0, 1]), torch.full((6,), 1 / 6, dtype=torch.float64)
    monkeypatch.setattr(contrastive, "TILE_BYTES", 2 * 4 * 8)
    blocks = [Block(Output(a, lists=(2, 1, 3)), Output(b))]
    scores = euclidean(Output(a), Output(b))
    expected = torch.nn.functional.cross_entropy(scores, targets)
    value = softmax_cross_entropy(blocks, targets, weights, similarity=euclidean)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, a)[0], torch.autograd.grad(expected, a)[0])


PRODUCTS = {
    "plain": (vectors(5, 3), vectors(7, 3, seed=1)),
    "transposed": (vectors(3, 5).T, vectors(3, 7).T),
    "cut": (vectors(5, 6)[:, 1:4], vectors(7, 6, seed=1)[:, 2:5]),
    "no rows": (vectors(0, 3), vectors(7, 3)),
    "no width": (vectors(5, 0), vectors(7, 0)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", PRODUCTS)
def test_inner_products_equal_the_formula(case, dtype):
    a, b = (each.detach().to(dtype) for each in PRODUCTS[case])
    expected = [[sum(float(x) * float(y) for x, y in zip(row, other, strict=True)) for other in b] for row in a]
    got = inner_products(a, b)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got.float(),
        torch.tensor(expected).reshape(len(a), len(b)).float(),
        rtol=2e-2 if dtype == torch.bfloat16 else 1e-5,
        atol=2e-2 if dtype == torch.bfloat16 else 1e-6,
    )


@pytest.mark.parametrize("failure", [AttributeError, RuntimeError, "wrong", "another type"])
def test_products_do_without_onednn(monkeypatch, failure):
    def operator(a, b, *_):
        if isinstance(failure, str):
            return a @ b.T + 1e-3 if failure == "wrong" else (a @ b.T).double()
        raise failure("no such operator")

    package = SimpleNamespace(_linear_pointwise=SimpleNamespace(default=operator))
    monkeypatch.setattr(products.torch, "ops", SimpleNamespace(mkldnn=package))
    assert products._linear.__wrapped__() is None


def test_wide_tiles_are_worked_through_in_pieces(monkeypatch):
    monkeypatch.setattr(products, "COLUMNS", 2)
    monkeypatch.setattr(contrastive, "TILE_ROWS", 3)
    a, b = vectors(7, 3), vectors(9, 3, seed=1)
    first, second = Output(a), Output(b)
    blocks = [Block(first, second), Block(first, first, without_diagonal)]
    targets, weights = torch.arange(7), torch.ones(7, dtype=torch.float64)
    got = softmax_cross_entropy(blocks, targets, weights, similarity=DOT)
    expected = plain(blocks, targets, weights, SIMILARITIES["fused"][1], 1.0)
    require_equal("in pieces", differentiate(expected, [a, b]), differentiate(got, [a, b]))


def test_tiles_leave_the_readers_gradients_on():
    record = Output(vectors(3, 2))
    for _, scores in tiles(record, record, DOT):
        assert torch.is_grad_enabled()
        assert not scores.requires_grad
