"""Metrics against formulas written in loops, for encoders of every family."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from losskit.errors import DataError, ModelError
from losskit.recipe import EvalSource
from losskit_plugins.data.beir import Collection
from losskit_plugins.evaluation import (
    ClassedTexts,
    Pairs,
    RankedLists,
    Retrieval,
    ScoredPairs,
    embedded,
    evaluate,
    read_evaluation,
)
from losskit_plugins.evaluation.activity import activity_names
from losskit_plugins.evaluation.ranking import mean_ndcg, measure, top

VECTORS = {"n": (0.0, 1.0), "ne": (0.6, 0.8), "e": (1.0, 0.0), "se": (0.8, -0.6), "s": (0.0, -1.0), "zero": (0.0, 0.0)}


class Compass:
    """Encodes directions as unit vectors, in the shape of each family."""

    def __init__(self, family="dense", scores=None):
        self.family, self.scores, self.encoded = family, scores, []
        self.similarity = "maxsim" if family == "multi-vector" else "cosine"

    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        self.encoded.append((role, list(texts)))
        if self.family == "cross-encoder":
            return np.array([self.scores(*pair) if self.scores else cosine(*pair) for pair in texts])
        vectors = np.array([VECTORS[text] for text in texts], np.float32)
        if self.family == "multi-vector":  # documents have a second token, nearer where the first points away
            return [vector[None] * np.array([[1.0], [0.5]][: 1 + (role == "document")]) for vector in vectors]
        return csr_array(vectors) if self.family == "sparse" else vectors


def without_activity(encoder, data):
    """The metrics of any family."""
    return {name: value for name, value in evaluate(encoder, data).items() if name not in activity_names(data.roles)}


def cosine(a, b):
    return sum(x * y for x, y in zip(VECTORS[a], VECTORS[b], strict=True))


CORPUS = {"d1": "n", "d2": "ne", "d3": "e", "d4": "s"}
EVERY_FAMILY = [Compass(), Compass("sparse"), Compass("multi-vector"), Compass("cross-encoder")]


@pytest.mark.parametrize("encoder", EVERY_FAMILY, ids=lambda each: each.family)
class TestEveryFamily:
    def test_spearman(self, encoder):
        first, second, gold = ["n", "n", "n", "n"], ["n", "ne", "e", "s"], [5.0, 3.0, 4.0, 0.0]
        # Ranks of the similarities 1, 0.8, 0, -1 are 4, 3, 2, 1 and those of the labels 4, 2, 3, 1.
        squares = (4 - 4) ** 2 + (3 - 2) ** 2 + (2 - 3) ** 2 + (1 - 1) ** 2
        found = without_activity(encoder, ScoredPairs(first, second, gold))
        assert found == {"spearman": pytest.approx(1 - 6 * squares / (4 * (4**2 - 1)))}

    def test_accuracy_of_triplets(self, encoder):
        data = Pairs(["n", "e", "s"], [["ne"], ["s"], ["se"]], [["e"], ["ne"], ["n", "e"]])
        assert without_activity(encoder, data) == {"accuracy": pytest.approx(2 / 3)}

    def test_a_tie_is_no_success(self, encoder):
        assert without_activity(encoder, Pairs(["n"], [["e"]], [["e"]])) == {"accuracy": 0.0}

    def test_lists(self, encoder):
        data = RankedLists(["n", "e"], [["e", "ne", "s"], ["n", "e"]], [[2.0, 0.0, 0.5], [0.0, 1.0]])
        # The first list is ranked ne, e, s: labels 0, 2, 0.5; the second e, n: labels 1, 0.
        first = (2 / math.log2(3) + 0.5 / math.log2(4)) / (2 + 0.5 / math.log2(3))
        assert without_activity(encoder, data) == {
            "ndcg@10": pytest.approx((first + 1) / 2), "mrr@10": pytest.approx((1 / 2 + 1) / 2),
        }  # fmt: skip

    def test_lists_with_nothing_relevant_are_left_out(self, encoder):
        data = RankedLists(["n", "n"], [["ne", "s"], ["e", "s"]], [[1.0, 0.0], [0.0, 0.0]])
        assert evaluate(encoder, data, ["mrr@10"]) == {"mrr@10": 1.0}
        with pytest.raises(DataError, match="expected a document with a label above 0"):
            evaluate(encoder, RankedLists(["n"], [["e"]], [[0.0]]))

    def test_an_empty_list_is_left_out(self, encoder):
        data = RankedLists(["n", "n"], [["ne", "s"], []], [[1.0, 0.0], []])
        assert evaluate(encoder, data, ["mrr@10"]) == {"mrr@10": 1.0}

    def test_exponential_gain_where_it_is_asked_for(self, encoder):
        data = RankedLists(["n", "e"], [["e", "ne", "s"], ["n", "e"]], [[3.0, 1.0, 0.5], [0.0, 0.0]])
        # The first list is ranked ne, e, s: labels 1, 3, 0.5; the second has nothing relevant.
        gains = [2**1 - 1, 2**3 - 1, 2**0.5 - 1]
        found = sum(gain / math.log2(rank) for rank, gain in enumerate(gains, start=2))
        best = sum(gain / math.log2(rank) for rank, gain in enumerate(sorted(gains, reverse=True), start=2))
        assert evaluate(encoder, data, ["ndcg-exp@10"]) == {"ndcg-exp@10": pytest.approx(found / best)}
        assert without_activity(encoder, data).keys() == {"ndcg@10", "mrr@10"}


@pytest.mark.parametrize("encoder", EVERY_FAMILY[:3], ids=lambda each: each.family)
class TestRetrieval:
    def test_metrics_of_a_collection(self, encoder):
        qrels = {"q1": {"d2": 1, "d4": 2}, "q2": {"d3": 1, "d1": 0}}
        data = Retrieval(Collection(CORPUS, {"q1": "n", "q2": "e"}, qrels))
        # q1 ranks d1 d2 d3 d4, q2 ranks d3 d2 then d1 and d4 of which d1 is the nearer.
        ndcg = (1 / math.log2(3) + 2 / math.log2(5)) / (2 + 1 / math.log2(3))
        assert without_activity(encoder, data) == {
            "ndcg@10": pytest.approx((ndcg + 1) / 2), "mrr@10": pytest.approx((1 / 2 + 1) / 2), "recall@10": 1.0,
        }  # fmt: skip

    def test_only_ten_documents_count(self, encoder):
        corpus = {f"n{index}": "n" for index in range(10)} | {"far": "s"}
        data = Retrieval(Collection(corpus, {"q": "n"}, {"q": {"far": 1}}))
        assert evaluate(encoder, data, ["retrieval"]) == {"ndcg@10": 0.0, "mrr@10": 0.0, "recall@10": 0.0}

    def test_chunks_change_nothing(self, encoder, monkeypatch):
        qrels = {"q1": {"d2": 1, "d4": 2}, "q2": {"d3": 1}, "q3": {"d1": 1}}
        data = Retrieval(Collection(CORPUS, {"q1": "n", "q2": "e", "q3": "se"}, qrels))
        whole = without_activity(encoder, data)
        for cells in (1, 3, 5):
            monkeypatch.setattr(embedded, "CELLS", cells)
            assert without_activity(encoder, data) == whole

    def test_pairs_are_retrieved_among_the_positives_of_all_rows(self, encoder):
        data = Pairs(["n", "s", "n", "e"], [["ne"], ["n"], ["e"], ["e"]], [[]] * 4)
        # Candidates ne, n, e. Anchor n: n, ne, e with ne and e relevant; s: e, ne, n with n; e: e first.
        ndcg_n = (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
        assert without_activity(encoder, data) == {
            "ndcg@10": pytest.approx((ndcg_n + 1 / math.log2(4) + 1) / 3),
            "mrr@10": pytest.approx((1 / 2 + 1 / 3 + 1) / 3),
            "recall@10": 1.0,
            "accuracy": pytest.approx(1 / 4),
        }

    def test_an_encoder_that_gives_everything_one_score_gains_nothing(self, encoder):
        data = Pairs(["zero", "s"], [["e"], ["s"]], [[]] * 2)
        assert evaluate(encoder, data, ["accuracy"]) == {"accuracy": 0.5}


def test_roles_and_each_text_encoded_once():
    encoder = Compass()
    evaluate(encoder, Pairs(["n", "n"], [["e"], ["s"]], [["s"], ["e"]]))
    assert encoder.encoded == [("query", ["n"]), ("document", ["e", "s"])]


def test_constant_scores_have_no_order():
    encoder = Compass("cross-encoder", scores=lambda *_: 0.5)
    assert evaluate(encoder, ScoredPairs(["n", "n"], ["e", "s"], [0.0, 1.0])) == {"spearman": 0.0}


class TestClassedTexts:
    def test_the_nearest_other_text_decides(self, monkeypatch):
        # n: ne is nearest; ne: n and then e; e: ne and se at 0.6 and 0.8; se: e; s: se.
        data = ClassedTexts(["n", "ne", "e", "se", "s"], ["up", "up", "down", "down", "down"])
        assert evaluate(Compass(), data) == {"accuracy": 1.0}
        assert evaluate(Compass(), ClassedTexts(data.texts, ["up", "up", "up", "down", "down"])) == {"accuracy": 0.6}
        monkeypatch.setattr(embedded, "CELLS", 5)
        assert without_activity(Compass("sparse"), data) == {"accuracy": 1.0}
        assert evaluate(Compass("multi-vector"), data) == {"accuracy": 1.0}

    def test_equally_near_ones_must_agree(self):
        assert evaluate(Compass(), ClassedTexts(["zero", "zero", "zero"], ["a", "a", "b"])) == {"accuracy": 0.0}

    def test_refuses_what_cannot_be_measured(self):
        with pytest.raises(DataError, match=r"expected two or more, with two texts in one of them, got 1, the largest"):
            ClassedTexts(["n", "e"], ["a", "a"])
        with pytest.raises(DataError, match="expected an encoder that embeds texts"):
            evaluate(Compass("cross-encoder"), ClassedTexts(["n", "e", "s"], ["a", "a", "b"]))

    def test_is_read_from_a_file(self, tmp_path):
        path = tmp_path / "classes.jsonl"
        rows = [("n", "up"), ("ne", "up"), ("e", "down"), ("se", "down")]
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        task = read_evaluation(EvalSource(path=str(path)))
        assert isinstance(task, ClassedTexts)
        assert evaluate(Compass(), task) == {"accuracy": 1.0}


class TestRefusals:
    def test_scores_that_are_not_finite(self):
        encoder = Compass("cross-encoder", scores=lambda *_: math.nan)
        with pytest.raises(ModelError, match="expected finite numbers, got NaN or infinity"):
            evaluate(encoder, ScoredPairs(["n", "n"], ["e", "s"], [0.0, 1.0]))

    def test_labels_that_are_all_equal(self):
        with pytest.raises(DataError, match="expected different ones, got one value"):
            ScoredPairs(["n"], ["e"], [1.0])

    def test_a_cross_encoder_on_a_corpus(self):
        data = Retrieval(Collection({"d": "n"}, {"q": "n"}, {"q": {"d": 1}}))
        with pytest.raises(
            DataError, match=r"expected an encoder that embeds, got a cross-encoder\. Fix: evaluate it on lists"
        ):
            evaluate(Compass("cross-encoder"), data)

    def test_a_cross_encoder_on_plain_pairs(self):
        with pytest.raises(DataError, match="expected a negative in every row"):
            evaluate(Compass("cross-encoder"), Pairs(["n"], [["e"]], [[]]))

    def test_a_cross_encoder_of_classes(self):
        encoder = Compass("cross-encoder", scores=lambda *_: [0.1, 0.9])
        with pytest.raises(DataError, match="expected a cross-encoder with one score per pair, got 2 classes"):
            evaluate(encoder, ScoredPairs(["n", "n"], ["e", "s"], [0.0, 1.0]))

    @pytest.mark.parametrize(
        ("documents", "labels", "message"),
        [
            ([["e", "s"]], [[1.0, math.nan]], "expected finite numbers from 0, got nan"),
            ([["e", "s"]], [[math.inf, 1.0]], "expected finite numbers from 0, got inf"),
            ([["e", "s"]], [[1.0]], "evaluation list 1: expected 2 labels, one for each document, got 1"),
            ([["e"], ["s"]], [[1.0]], r"the evaluation lists: expected as many .*, got \[1, 2, 1\]"),
        ],
    )
    def test_refuses_labels_that_do_not_fit_the_documents(self, documents, labels, message):
        with pytest.raises(DataError, match=message):
            RankedLists(["n"], documents, labels)

    def test_labels_too_large_for_the_exponential_gain(self):
        data = RankedLists(["n"], [["e", "s"]], [[1001.0, 0.0]])
        assert evaluate(Compass(), data, ["ndcg@10"]) == {"ndcg@10": 1.0}
        with pytest.raises(
            DataError, match=r"labels for ndcg-exp@10: expected numbers up to 1000, got 1001\. Fix: take"
        ):
            evaluate(Compass(), data, ["ndcg-exp@10"])

    def test_features_where_texts_are_embedded(self):
        data = RankedLists(["n"], [[[1.0, 2.0], [0.0, 1.0]]], [[1.0, 0.0]])
        with pytest.raises(DataError, match=r"text 1 of 2: expected a string, got \[1\.0, 2\.0\]\. Fix: for rows of"):
            evaluate(Compass(), data)

    def test_metrics(self):
        data = ScoredPairs(["n", "n"], ["e", "s"], [0.0, 1.0])
        with pytest.raises(DataError) as caught:
            evaluate(Compass(), data, ["sperman"])
        assert str(caught.value) == (
            "metric 'sperman': expected of ScoredPairs: spearman, active-dims-text, flops, sparsity. "
            "Fix: did you mean 'spearman'?"
        )
        with pytest.raises(DataError, match=r"metric 'ndcg@10': expected of ScoredPairs: spearman"):
            evaluate(Compass(), data, ["retrieval"])


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12)


@given(scores=SCORES, relevant=st.dictionaries(st.integers(0, 11), st.integers(0, 2)), count=st.integers(1, 5))
def test_top_is_a_full_sort_cut_off(scores, relevant, count):
    places = sorted(range(len(scores)), key=lambda place: (-scores[place], relevant.get(place, 0), place))
    assert top(np.array(scores, np.float32), relevant, count) == places[:count]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=15).filter(any))
def test_ndcg_of_lists_is_that_of_ir_measures(relevances):
    names = [f"d{index}" for index in range(len(relevances))]
    found = measure(["ndcg@10"], {"q": dict(zip(names, relevances, strict=True))}, {"q": names})
    assert mean_ndcg([relevances]) == pytest.approx(found["ndcg@10"])


class TestReading:
    def source(self, path, rows, **given):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return EvalSource(path=str(path), **given)

    def test_scored_pairs(self, tmp_path):
        rows = [{"a": "n", "b": "e", "score": 1}, {"a": "n", "b": "s", "score": 0}]
        source = self.source(tmp_path / "a.jsonl", rows, columns={"text_1": "a", "text_2": "b"})
        assert read_evaluation(source) == ScoredPairs(["n", "n"], ["e", "s"], [1.0, 0.0])

    def test_pairs_and_triplets(self, tmp_path):
        rows = [{"anchor": "n", "positive": ["e", "s"], "negative_1": "ne", "negative_2": "se"}]
        assert read_evaluation(self.source(tmp_path / "a.jsonl", rows)) == Pairs(["n"], [["e", "s"]], [["ne", "se"]])
        rows = [{"anchor": "n", "positive": "e"}]
        assert read_evaluation(self.source(tmp_path / "b.jsonl", rows)) == Pairs(["n"], [["e"]], [[]])

    def test_lists(self, tmp_path):
        rows = [{"query": "n", "documents": ["e", "s"], "scores": [1, 0]}]
        expected = RankedLists(["n"], [["e", "s"]], [[1.0, 0.0]])
        assert read_evaluation(self.source(tmp_path / "a.jsonl", rows)) == expected
        rows = [{"query": "n", "positive": "e", "negative_1": "s", "scores": [1, 0]}]
        assert read_evaluation(self.source(tmp_path / "b.jsonl", rows)) == expected

    def test_beir(self, tmp_path):
        (tmp_path / "qrels").mkdir()
        (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "n"}\n')
        (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "e"}\n')
        (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
        found = read_evaluation(EvalSource(path=str(tmp_path), split="dev"))
        assert found == Retrieval(Collection({"d": "n"}, {"q": "e"}, {"q": {"d": 1}}))

    def test_what_cannot_be_evaluated(self, tmp_path):
        with pytest.raises(DataError, match=r"for evaluation, got words\. Fix: say which column is which"):
            read_evaluation(self.source(tmp_path / "a.jsonl", [{"words": "n"}]))
        rows = [{"anchor": "n", "positive": "e"}]
        with pytest.raises(
            DataError, match="metric 'spearman': expected of Pairs: ndcg@10, mrr@10, recall@10, accuracy"
        ):
            read_evaluation(self.source(tmp_path / "b.jsonl", rows, metrics=["spearman"]))
