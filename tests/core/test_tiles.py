"""Sums over tiles of scores: equal to the whole matrix, whatever the tile and the similarity."""

from __future__ import annotations

import pytest
import torch

from losskit import Output, build
from losskit.math import contrastive, found_scores, over_tiles, tiles
from losskit.testing import differentiate, require_equal


class Distance:
    """Euclidean, from products."""

    def __call__(self, a, b):
        return -(a.embedding[:, None] - b.embedding[None]).square().sum(-1).clamp(min=1e-30).sqrt()

    def of_products(self, products, rows, columns):
        return -(rows + columns - 2 * products).clamp(min=1e-30).sqrt()


SIMILARITIES = {name: build(name, kind="similarity") for name in ("cosine", "dot", "manhattan")}
SIMILARITIES["products"] = Distance()


def margin(scores, part):
    return (scores - 0.1).relu().square().sum() + scores[:, 0].sin().sum()


@pytest.mark.parametrize("rows_per_tile", [1, 3, 100])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_equals_the_whole_matrix(name, rows_per_tile, monkeypatch):
    similarity = SIMILARITIES[name]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (7, 5))
    monkeypatch.setattr(contrastive, "TILE_BYTES", rows_per_tile * 5 * 8)
    whole = differentiate(margin(similarity(Output(a), Output(b)), slice(0, 7)) * 3, [a, b])
    parts = []

    def reduce(scores, part):
        parts.append(part)
        return margin(scores, part), (scores > 0).sum()

    value, count = over_tiles(Output(a), Output(b), reduce, similarity=similarity)
    require_equal(name, whole, differentiate(value * 3, [a, b]))
    assert count == (similarity(Output(a), Output(b)) > 0).sum()
    assert len(parts) == -(-7 // rows_per_tile)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_record_with_itself(name):
    similarity = SIMILARITIES[name]
    a = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    record = Output(a)
    off = ~torch.eye(6, dtype=torch.bool)  # a distance of 0 has no gradient to compare

    def reduce(scores, part):
        return scores.masked_fill(~off[part], 0.0).sin().sum()

    whole = differentiate(reduce(similarity(record, Output(a)), slice(0, 6)), [a])
    require_equal(name, whole, differentiate(over_tiles(record, record, reduce, similarity=similarity), [a]))


@pytest.mark.parametrize("name", SIMILARITIES)
def test_tiles_are_the_matrix(name, monkeypatch):
    similarity = SIMILARITIES[name]
    monkeypatch.setattr(contrastive, "TILE_BYTES", 2 * 5 * 8)
    a, b = torch.randn(7, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    found = list(tiles(Output(a), Output(b), similarity))
    assert [part.stop - part.start for part, _ in found] == [2, 2, 2, 1]
    joined = torch.cat([scores for _, scores in found])
    assert not joined.requires_grad
    torch.testing.assert_close(joined, similarity(Output(a), Output(b)).detach())


def farthest_and_nearest(scores, part):
    places = torch.stack([scores.argmin(1), scores.argmax(1)], 1)
    scores.fill_(float("nan"))  # a tile may be overwritten
    return places


@pytest.mark.parametrize("rows_per_tile", [3, 100])
@pytest.mark.parametrize("alone", [False, True], ids=["two records", "one record"])
@pytest.mark.parametrize("name", [*SIMILARITIES, "euclidean"])
def test_found_scores_are_those_of_the_matrix(name, alone, rows_per_tile, monkeypatch):
    similarity = build(name, kind="similarity") if name == "euclidean" else SIMILARITIES[name]
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(n, 4, generator=generator, dtype=torch.float64).requires_grad_() for n in (7, 5))
    monkeypatch.setattr(contrastive, "TILE_BYTES", rows_per_tile * 5 * 8)

    def pairwise(a, others):
        return torch.stack([similarity(a, other).diagonal() for other in others], 1)

    rows = Output(a)
    columns = rows if alone else Output(b)
    leaves = [a] if alone else [a, b]
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    scores = similarity(rows, columns)
    # An item is nearest to itself: at a distance of 0, which has no gradient.
    keep = weights * torch.tensor([1.0, 0.0]) if alone else weights
    whole = differentiate((scores.gather(1, farthest_and_nearest(scores.detach().clone(), None)) * keep).sum(), leaves)
    found = found_scores(rows, columns, farthest_and_nearest, similarity=similarity, pairwise=pairwise)
    assert found.shape == (7, 2)
    require_equal(name, whole, differentiate((found * keep).sum(), leaves))


def test_a_constant_result_has_no_gradient():
    a = torch.randn(3, 2, requires_grad=True)
    record = Output(a)
    value = over_tiles(record, record, lambda scores, part: scores.new_zeros(()), similarity=SIMILARITIES["dot"])
    value.backward()
    assert not a.grad.any()
