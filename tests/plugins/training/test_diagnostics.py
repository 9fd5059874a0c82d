import logging
import math

import pytest
import torch

from losskit import Output
from losskit.losses import MultipleNegativesRankingLoss
from losskit_plugins.training.diagnostics import Diagnostics, effective_negatives


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def observed(loss, columns, labels=None, rows=None):
    diagnostics = Diagnostics(loss)
    for observer in loss.observers:
        observer(columns, labels, rows or slice(0, columns[0].tuples))
    return diagnostics


@pytest.fixture
def loss(encoder):
    return MultipleNegativesRankingLoss(encoder, scale=5.0)


def random_columns(*sizes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 4, generator=generator) for size in sizes]


def test_similarities_equal_loops(loss):
    anchors, positives, negatives = random_columns(3, 3, 3)
    values = observed(loss, [Output(anchors), Output(positives), Output(negatives)]).measure()
    a, p, n = anchors.tolist(), positives.tolist(), negatives.tolist()
    mine = [cosine(a[i], p[i]) for i in range(3)]
    others = [[cosine(a[i], p[j]) for j in range(3) if j != i] + [cosine(a[i], each) for each in n] for i in range(3)]
    effective = []
    for row in others:
        total = sum(math.exp(5 * s) for s in row)
        effective.append(math.exp(-sum(math.exp(5 * s) / total * math.log(math.exp(5 * s) / total) for s in row)))
    assert values["mean_positive_similarity"] == pytest.approx(sum(mine) / 3, abs=1e-6)
    assert values["mean_negative_similarity"] == pytest.approx(sum(map(sum, others)) / 15, abs=1e-6)
    assert values["effective_negatives"] == pytest.approx(sum(effective) / 3, abs=1e-5)


def test_of_a_list_the_documents_labelled_above_zero_are_positives(loss):
    queries, documents = random_columns(2, 5)
    columns = [Output(queries), Output(documents, lists=(3, 2))]
    values = observed(loss, columns, labels=torch.tensor([0.0, 2.0, 0.0, 1.0, 0.0])).measure()
    q, d = queries.tolist(), documents.tolist()
    mine = [cosine(q[0], d[1]), cosine(q[1], d[3])]
    others = [cosine(q[0], d[0]), cosine(q[0], d[2]), cosine(q[1], d[4])]
    assert values["mean_positive_similarity"] == pytest.approx(sum(mine) / 2, abs=1e-6)
    assert values["mean_negative_similarity"] == pytest.approx(sum(others) / 3, abs=1e-6)


def test_only_own_rows_are_measured(loss):
    anchors, positives = random_columns(4, 4)
    values = observed(loss, [Output(anchors), Output(positives)], rows=slice(2, 4)).measure()
    a, p = anchors.tolist(), positives.tolist()
    assert values["mean_positive_similarity"] == pytest.approx((cosine(a[2], p[2]) + cosine(a[3], p[3])) / 2, abs=1e-6)


def test_effective_negatives_are_all_or_one():
    where = torch.tensor([[True, True, True, False]])
    assert effective_negatives(torch.zeros(1, 4), where, scale=20.0) == pytest.approx(3.0)
    assert effective_negatives(torch.tensor([[9.0, 0.0, 0.0, 99.0]]), where, scale=20.0) == pytest.approx(1.0)


def test_collapse_is_warned_about_once_and_by_name(loss, caplog):
    same = torch.ones(3, 4)
    diagnostics = observed(loss, [Output(same), Output(same)])
    with caplog.at_level(logging.WARNING, logger="losskit"):
        diagnostics.measure()
        diagnostics.measure()
    assert len(caplog.records) == 1
    assert "MultipleNegativesRankingLoss have collapsed" in caplog.text


def test_nearness_without_collapse_is_not_warned_about(loss, caplog):
    anchors, positives = random_columns(3, 3)
    observed(loss, [Output(anchors), Output(positives)]).measure()
    assert not caplog.records


def test_one_column_one_row_or_nothing_gives_nothing(loss):
    anchors, positives = random_columns(1, 1)
    assert observed(loss, [Output(anchors)]).measure() == {}
    assert observed(loss, [Output(anchors), Output(positives)]).measure() == {}
    assert Diagnostics(loss).measure() == {}


def test_the_active_dimensions_of_sparse_embeddings_are_counted(loss, encoder):
    queries, documents = torch.tensor([[1.0, 0, 0], [1, 2, 3]]), torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 1, 0]])
    columns = [Output(queries), Output(documents, lists=(1, 2))]
    assert "active_dims_query" not in observed(loss, columns).measure()
    encoder.family = "sparse"
    found = observed(loss, columns).measure()
    assert found["active_dims_query"] == 2
    assert found["active_dims_document"] == 1
    assert observed(loss, columns, rows=slice(1, 2)).measure()["active_dims_query"] == 3
    assert observed(loss, [Output(documents)]).measure() == {"active_dims_document": 1.0}
    assert observed(loss, [Output(None, lists=(1, 1))], rows=slice(0, 2)).measure() == {}
    three = observed(loss, [Output(documents), Output(documents), Output(torch.ones(3, 3))]).measure()
    assert three["active_dims_document"] == 2


def test_cross_encoder_scores_are_no_similarities(loss, encoder):
    encoder.family = "cross-encoder"
    assert observed(loss, [Output(torch.ones(3)), Output(torch.ones(3))]).measure() == {}
