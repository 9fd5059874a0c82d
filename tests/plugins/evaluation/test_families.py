"""Scores of sparse and of token embeddings against loops, and what sparse ones cost."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import losskit
from losskit.errors import DataError, ModelError
from losskit.testing import ToyEncoder
from losskit_plugins.data.beir import Collection
from losskit_plugins.evaluation import ClassedTexts, Pairs, RankedLists, Retrieval, ScoredPairs, embedded, evaluate
from losskit_plugins.evaluation.embedded import SparseVectors, TokenVectors, Vectors, all_scores, pair_scores
from losskit_plugins.evaluation.scoring import Scorer


class SumOfBest:
    """Per query token the highest inner product with a token of the document, summed, in loops."""

    def __init__(self):
        self.held = []

    def one(self, a, b):
        return sum(max(float(x @ y) for y in b) for x in a)

    def texts(self, record):
        return [tokens[mask] for tokens, mask in zip(record.embedding, record.mask, strict=True)]

    def __call__(self, a, b):
        self.held += [a.embedding.numel(), b.embedding.numel()]
        return torch.tensor([[self.one(x, y) for y in self.texts(b)] for x in self.texts(a)])

    def pairwise(self, a, b):
        self.held += [a.embedding.numel(), b.embedding.numel()]
        return torch.tensor([self.one(x, y) for x, y in zip(self.texts(a), self.texts(b), strict=True)])


def sparse(*shape, seed):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.where(values > 0.6, values, np.float32(0))


def tokens(*lengths, seed):
    source = np.random.default_rng(seed)
    return TokenVectors([source.standard_normal((length, 4)).astype(np.float32) for length in lengths])


def similarity(name):
    return losskit.get("similarity", name).load()()


def whole(blocks, queries):
    rows, scores = zip(*blocks, strict=True)
    assert [place for each in rows for place in range(each.start, each.stop)] == list(range(len(queries)))
    return np.concatenate(scores)


@pytest.mark.parametrize("cells", [1, 60, 200, 1 << 22])
class TestBlocks:
    @pytest.mark.parametrize("name", ["dot", "cosine", "euclidean", "manhattan"])
    def test_sparse_vectors_are_compared_as_dense_ones(self, name, cells, monkeypatch):
        monkeypatch.setattr(embedded, "CELLS", cells)
        a, b = sparse(7, 20, seed=0), sparse(11, 20, seed=1)
        a[2] = 0
        found = whole(all_scores(similarity(name), SparseVectors(csr_array(a)), SparseVectors(csr_array(b))), a)
        expected = whole(all_scores(similarity(name), Vectors(a), Vectors(b)), a)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        places = np.array([0, 2, 6, 6, 1]), np.array([10, 3, 0, 5, 4])
        found = pair_scores(similarity(name), SparseVectors(csr_array(a)), SparseVectors(csr_array(b)), places)
        np.testing.assert_allclose(found, expected[places], atol=1e-6)

    def test_tokens_are_compared_as_in_loops(self, cells, monkeypatch):
        monkeypatch.setattr(embedded, "CELLS", cells)
        a, b, best = tokens(3, 1, 5, seed=0), tokens(2, 9, 1, 4, 4, 7, seed=1), SumOfBest()
        expected = [[sum(max(x @ y for y in document) for x in query) for document in b.values] for query in a.values]
        np.testing.assert_allclose(whole(all_scores(best, a, b), a.values), expected, rtol=1e-5)
        places = np.array([2, 0, 1, 1]), np.array([0, 5, 5, 3])
        found = pair_scores(best, a, b, places)
        np.testing.assert_allclose(found, np.array(expected)[places], rtol=1e-5)
        # A block never holds more than so many numbers, except for a single text that does.
        assert max(best.held) <= max(cells, 9 * 4)


def test_sparse_products_never_make_all_documents_dense(monkeypatch):
    monkeypatch.setattr(embedded, "CELLS", 400)
    made, dense = [], csr_array.toarray
    monkeypatch.setattr(csr_array, "toarray", lambda self: made.append(self.shape) or dense(self))
    documents = SparseVectors(csr_array(sparse(100, 20, seed=1)))
    whole(all_scores(similarity("cosine"), SparseVectors(csr_array(sparse(6, 20, seed=0))), documents), range(6))
    assert max(rows * columns for rows, columns in made) <= 400


def test_token_vectors_are_padded_to_the_longest():
    vectors = TokenVectors([np.ones((2, 3), np.float32), np.full((1, 3), 2, np.float32)])
    record = vectors.record(np.array([0, 1]))
    assert record.embedding.tolist() == [[[1.0] * 3] * 2, [[2.0] * 3, [0.0] * 3]]
    assert record.mask.tolist() == [[True, True], [True, False]]


TERMS = {
    "cat": {0: 2.0}, "cats": {0: 1.0, 1: 1.0}, "dog": {2: 1.0}, "dogs": {2: 3.0, 3: 0.5, 4: 0.5}, "": {},
}  # fmt: skip


class Bag:
    """Texts as weights of five terms; `explicit` stores zeros as well."""

    family, similarity = "sparse", "dot"

    def __init__(self, explicit=False):
        self.explicit = explicit

    def encode(self, texts, *, role="text", **_):
        dense = np.array([[TERMS[text].get(term, 0.0) for term in range(5)] for text in texts])
        if not self.explicit:
            return csr_array(dense)
        return csr_array((dense.ravel(), np.tile(np.arange(5), len(texts)), np.arange(0, dense.size + 1, 5)))


# Queries cat and dog: 1 term each, terms 0 and 2 each in half of them. Documents cats and dogs: 2 and 3 terms, terms 0
# and 2 each in half of them. So 0.5 * 0.5 + 0.5 * 0.5 products, and 7 of 20 entries.
EXPECTED = {
    "active-dims-query": 1.0, "active-dims-document": 2.5, "flops": 0.5, "sparsity": pytest.approx(13 / 20)
}  # fmt: skip


@pytest.mark.parametrize("encoder", [Bag(), Bag(explicit=True)], ids=["compact", "explicit"])
class TestActivity:
    @pytest.mark.parametrize(
        "data",
        [
            Retrieval(Collection({"1": "cats", "2": "dogs"}, {"a": "cat", "b": "dog"}, {"a": {"1": 1}, "b": {"2": 1}})),
            RankedLists(["cat", "dog"], [["cats", "dogs"], ["dogs", "cats"]], [[1.0, 0.0], [1.0, 0.0]]),
            Pairs(["cat", "dog"], [["cats"], ["dogs"]], [[], []]),
            Pairs(["cat", "dog"], [["cats"], ["dogs"]], [["dogs"], ["cats"]]),
        ],
        ids=["retrieval", "lists", "pairs", "triplets"],
    )
    def test_of_queries_and_documents(self, data, encoder):
        found = evaluate(encoder, data)
        assert set(found.items()) >= {(name, 1.0) for name in data.default_metrics(Scorer(encoder))}
        assert {name: found[name] for name in EXPECTED} == EXPECTED
        assert evaluate(encoder, data, ["sparse"]) == EXPECTED
        assert list(evaluate(encoder, data, ["flops", "active-dims-query"])) == ["flops", "active-dims-query"]

    def test_counts_a_text_once_that_is_encoded_twice(self, encoder):
        data = Pairs(["cat", "dog"], [["cats"], ["dogs"]], [["dogs"], ["cat"]])
        found = evaluate(encoder, data, ["mrr@10", "accuracy", "active-dims-document"])
        assert found["active-dims-document"] == (2 + 3 + 1) / 3

    def test_of_texts_without_roles(self, encoder):
        # cat, dog, cats, dogs: terms 0 and 2 in half of them, the others in a quarter.
        expected = {"active-dims-text": 7 / 4, "flops": 2 * 0.5**2 + 3 * 0.25**2, "sparsity": pytest.approx(13 / 20)}
        data = ClassedTexts(["cat", "dog", "cats", "dogs"], ["a", "b", "a", "b"])
        assert evaluate(encoder, data) == {"accuracy": 1.0, **expected}
        data = ScoredPairs(["cat", "dog"], ["cats", "dogs"], [1.0, 2.0])
        assert evaluate(encoder, data) == {"spearman": pytest.approx(1.0), **expected}

    def test_of_nothing_but_zeros(self, encoder):
        found = evaluate(encoder, Pairs(["", "cat"], [["cats"], [""]], [[], []]), ["sparse"])
        assert found == {
            "active-dims-query": 0.5, "active-dims-document": 1.0, "flops": 0.25, "sparsity": pytest.approx(17 / 20)
        }  # fmt: skip


def test_a_dense_array_of_a_sparse_encoder_is_counted_too():
    toy = ToyEncoder("sparse", seed=0)
    dense = SimpleNamespace(family="sparse", similarity="dot", encode=lambda texts, **_: toy.encode(texts).toarray())
    data = ScoredPairs(["a b", "c"], ["d", "e f g"], [0.0, 1.0])
    active = (dense.encode(["a b", "c", "d", "e f g"]) != 0).sum(axis=1)
    assert evaluate(dense, data, ["active-dims-text"]) == {"active-dims-text": active.mean()}


def test_refuses_to_count_the_dimensions_of_a_dense_encoder():
    data = ScoredPairs(["a", "b"], ["b", "c"], [0.0, 1.0])
    with pytest.raises(DataError, match="metric 'flops': expected a sparse encoder, got one of the family dense"):
        evaluate(ToyEncoder(), data, ["spearman", "flops"])


def test_refuses_a_similarity_of_another_family():
    encoder = SimpleNamespace(family="multi-vector", similarity="cosine", encode=lambda texts, **_: [np.ones((1, 2))])
    with pytest.raises(
        ModelError,
        match="similarity 'cosine' of the evaluated encoder: expected one for encoders of the family multi-vector, got",
    ):
        evaluate(encoder, ScoredPairs(["a", "a"], ["a", "a"], [0.0, 1.0]))


def test_refuses_a_similarity_that_looks_at_all_documents_at_once():
    encoder = SimpleNamespace(family="multi-vector", similarity="xtr", encode=lambda texts, **_: [np.ones((1, 2))])
    with pytest.raises(ModelError, match="similarity 'xtr' of the evaluated encoder: expected one that compares a que"):
        evaluate(encoder, ScoredPairs(["a", "a"], ["a", "a"], [0.0, 1.0]))


def test_what_is_active_is_counted_once_per_text_whatever_else_is_asked_for():
    encoder = ToyEncoder("sparse", seed=0)
    data = Pairs(["a star", "a kettle", "a star"], [["far"], ["water"], ["far"]], [["near"], ["dry"], ["near"]])
    alone = evaluate(encoder, data, ["sparse"])
    assert alone == {name: value for name, value in evaluate(encoder, data).items() if name != "accuracy"}
    classes = ClassedTexts(["far", "far", "near", "dry"], ["x", "x", "x", "y"])
    rows = [np.count_nonzero(encoder.encode([text]).toarray()) for text in ("far", "near", "dry")]
    assert evaluate(encoder, classes)["active-dims-text"] == pytest.approx(np.mean(rows))
