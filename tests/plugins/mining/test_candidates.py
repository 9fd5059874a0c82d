"""Candidates against a search in loops, and the lists that are made of them."""

import numpy as np
import pytest

from losskit.errors import DataError
from losskit.testing import ToyEncoder
from losskit_plugins.evaluation import embedded
from losskit_plugins.mining import candidates, labelled_lists

TEXTS = [f"word{n % 7} word{n % 5} tail{n}" for n in range(40)]
QUERIES = ["word1 word2", "word3 tail11", "tail5"]


def nearest(encoder, query, k):
    """Places of the highest cosines, by sorting them all."""
    [vector] = encoder.encode([query])
    cosines = [
        sum(a * b for a, b in zip(vector, other, strict=True)) / np.linalg.norm(vector) / np.linalg.norm(other)
        for other in encoder.encode(TEXTS)
    ]
    return sorted(range(len(TEXTS)), key=lambda place: -cosines[place])[:k]


class TestCandidates:
    @pytest.mark.parametrize("cells", [1, 100, 1 << 22])
    def test_are_the_nearest_whatever_the_blocks(self, monkeypatch, cells):
        monkeypatch.setattr(embedded, "CELLS", cells)
        encoder = ToyEncoder(seed=0)
        found = candidates(encoder, QUERIES, TEXTS, 6)
        assert found == [nearest(encoder, query, 6) for query in QUERIES]

    def test_of_a_sparse_encoder(self):
        encoder = ToyEncoder("sparse", seed=0)
        [query], documents = (encoder.encode(texts).toarray() for texts in (QUERIES[:1], TEXTS))
        scores = [sum(a * b for a, b in zip(query, document, strict=True)) for document in documents]
        expected = sorted(range(len(TEXTS)), key=lambda place: -scores[place])[:6]
        assert candidates(encoder, QUERIES[:1], TEXTS, 6) == [expected]

    @pytest.mark.parametrize("cells", [1, 1000, 1 << 22])
    def test_of_a_multi_vector_encoder(self, monkeypatch, cells):
        monkeypatch.setattr(embedded, "CELLS", cells)
        encoder = ToyEncoder("multi-vector", seed=0)
        documents = encoder.encode(TEXTS)
        for query, found in zip(encoder.encode(QUERIES), candidates(encoder, QUERIES, TEXTS, 6), strict=True):
            scores = [sum(max(token @ other for other in document) for token in query) for document in documents]
            assert found == sorted(range(len(TEXTS)), key=lambda place: -scores[place])[:6]

    def test_of_equal_similarities_come_in_the_order_of_the_corpus(self):
        assert candidates(ToyEncoder(seed=0), ["a"], ["b", "a", "b", "a", "a"], 4) == [[1, 3, 4, 0]]

    def test_encodes_each_text_once_in_its_role(self):
        encoder = ToyEncoder(seed=0)
        encoded, encode = [], encoder.encode
        encoder.encode = lambda texts, *, role, **options: encoded.append((role, texts)) or encode(texts)
        candidates(encoder, QUERIES, TEXTS, 1)
        assert sorted(encoded) == [("document", TEXTS), ("query", QUERIES)]

    def test_of_a_small_corpus_are_all_of_it(self):
        assert [sorted(found) for found in candidates(ToyEncoder(seed=0), QUERIES, TEXTS[:2], 5)] == [[0, 1]] * 3

    def test_of_no_queries_are_none(self):
        assert candidates(ToyEncoder(seed=0), [], TEXTS, 5) == []

    def test_refuses_an_empty_corpus(self):
        with pytest.raises(DataError, match="the corpus: expected documents, got none"):
            candidates(ToyEncoder(seed=0), QUERIES, [], 5)

    def test_refuses_a_cross_encoder(self):
        with pytest.raises(DataError, match="expected an encoder that embeds, got a cross-encoder"):
            candidates(ToyEncoder("cross-encoder", seed=0), QUERIES, TEXTS, 5)

    def test_refuses_k_below_1(self):
        with pytest.raises(DataError, match="k: expected 1 or more, got 0"):
            candidates(ToyEncoder(seed=0), QUERIES, TEXTS, 0)


class TestLabelledLists:
    CORPUS = tuple("abcdef")

    def rows(self, found, relevant, *, keep_relevant):
        return list(labelled_lists(["q"], self.CORPUS, [found], [relevant], keep_relevant=keep_relevant))

    @pytest.mark.parametrize(
        ("relevant", "documents", "labels"),
        [
            ({}, "dab", [0, 0, 0]),
            ({0: 1}, "dab", [0, 1, 0]),
            ({1: 1, 5: 2}, "dbf", [0, 1, 2]),
            ({4: 1, 5: 1}, "def", [0, 1, 1]),
            ({5: 0}, "dab", [0, 0, 0]),
            ({2: 1, 3: 1, 4: 1, 5: 1}, "dcef", [1, 1, 1, 1]),
        ],
        ids=str,
    )
    def test_for_training_hold_all_that_is_relevant(self, relevant, documents, labels):
        expected = {"query": "q", "documents": list(documents), "labels": labels}
        assert self.rows([3, 0, 1], relevant, keep_relevant=True) == [expected]

    def test_for_evaluation_hold_what_was_found(self):
        expected = {"query": "q", "documents": ["d", "a"], "labels": [0, 3]}
        assert self.rows([3, 0], {0: 3, 5: 1}, keep_relevant=False) == [expected]

    def test_leave_what_they_are_made_of_as_it_is(self):
        found, relevant = [3, 0], {5: 1}
        self.rows(found, relevant, keep_relevant=True)
        assert (found, relevant) == ([3, 0], {5: 1})
