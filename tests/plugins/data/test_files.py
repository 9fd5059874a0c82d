"""Sources are looked at without heavy imports, then read, checked and cached."""
# ruff: noqa: E501  tables of messages

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from losskit.card import Format
from losskit.errors import DataError
from losskit.recipe import EvalSource, Source
from losskit_plugins.data import beir
from losskit_plugins.data.files import files_of, load, match_evaluation, match_source, peek

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
PAIRS = [Format(["anchor", "positive", "negative*"])]
SCORED = [Format(["text", "text"], "score")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scored(path, *scores):
    return Source(path=write(path, [{"text_1": f"a{i}", "text_2": "b", "score": s} for i, s in enumerate(scores)]))


class TestRead:
    def test_rows_keep_the_names_of_the_data_and_unused_columns_are_left_out(self, tmp_path):
        file = write(tmp_path / "a.jsonl", [{"q": "x", "p": "y", "id": 3}, {"q": "", "p": "z"}])
        rows, matched = load(Source(path=file, columns={"anchor": "q", "positive": "p"}), PAIRS)
        assert rows[:] == {"q": ["x", ""], "p": ["y", "z"]}
        assert matched.unused == ("id",)

    def test_limit(self, tmp_path):
        source = scored(tmp_path / "a.jsonl", 1, 2, 3)
        rows, _ = load(source.model_copy(update={"limit": 2}), SCORED)
        assert len(rows) == 2

    def test_types_do_not_depend_on_the_first_rows(self, tmp_path):
        rows, _ = load(scored(tmp_path / "a.jsonl", *[1] * 50, 0.5), SCORED)
        assert rows["score"][-1] == 0.5

    def test_texts_of_csv_that_look_like_numbers_stay_texts(self, tmp_path):
        (tmp_path / "a.csv").write_text("text_1,text_2,score\n001,NA,1\n2.0,None,0.5\n")
        rows, _ = load(Source(path=str(tmp_path / "a.csv")), SCORED)
        assert rows[:] == {"text_1": ["001", "2.0"], "text_2": ["NA", "None"], "score": [1.0, 0.5]}

    def test_lists_and_classes(self, tmp_path):
        lists = write(tmp_path / "l.jsonl", [{"query": "q", "documents": ["a", "b"], "scores": [1, 0]}])
        assert load(Source(path=lists), [Format(["query", "documents"], "scores")])[0][0]["scores"] == [1.0, 0.0]
        classes = write(tmp_path / "c.jsonl", [{"text": "a", "label": "dog"}, {"text": "b", "label": "cat"}])
        assert load(Source(path=classes), [Format(["text"], "class")])[1].label.classes == ("cat", "dog")

    def test_lists_that_are_empty_in_the_first_row(self, tmp_path):
        rows = [
            {"anchor": "a", "positive": ["p"], "negative": []},
            {"anchor": "b", "positive": ["q"], "negative": ["n"]},
        ]
        assert load(Source(path=write(tmp_path / "l.jsonl", rows)), PAIRS)[0].to_list() == rows

    def test_changed_file_is_read_again(self, tmp_path):
        assert len(load(scored(tmp_path / "a.jsonl", 1, 2), SCORED)[0]) == 2
        assert len(load(scored(tmp_path / "a.jsonl", 1, 2, 3), SCORED)[0]) == 3

    def test_unchanged_file_is_cached(self, tmp_path):
        first, _ = load(scored(tmp_path / "a.jsonl", 1, 2), SCORED)
        again, _ = load(Source(path=str(tmp_path / "a.jsonl")), SCORED)
        assert first.cache_files == again.cache_files

    @pytest.mark.parametrize(
        ("last", "message"),
        [
            (float("nan"), "line 30, column 'score': expected a finite number, got nan"),
            ("high", "line 30, column 'score': expected a finite number, got 'high'"),
        ],
    )
    def test_bad_value_far_down(self, tmp_path, last, message):
        with pytest.raises(DataError) as caught:
            load(scored(tmp_path / "a.jsonl", *[1.0] * 29, last), SCORED)
        assert str(caught.value) == f"{tmp_path / 'a.jsonl'}, {message}"

    def test_mixed_types_in_a_column_of_classes(self, tmp_path):
        file = write(tmp_path / "c.jsonl", [{"text": "a", "label": "dog"}, {"text": "b", "label": 3}])
        with pytest.raises(DataError, match=r"line 2, column 'label': expected str as in the rows before, got 3"):
            load(Source(path=file), [Format(["text"], "class")])

    def test_damage_far_down(self, tmp_path):
        whole = gzip.compress(b"".join(b'{"anchor": "%d", "positive": "b"}\n' % i for i in range(20_000)))
        (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"a\.jsonl\.gz: expected a gzip file, got a damaged one"):
            load(Source(path=str(tmp_path / "a.jsonl.gz")), PAIRS)

    def test_cache_that_cannot_be_written(self, tmp_path, monkeypatch):
        import datasets

        (tmp_path / "file").touch()
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file" / "cache")
        with pytest.raises(DataError, match=r"cache folder .*: expected one that can be written, got Not a directory"):
            load(scored(tmp_path / "a.jsonl", 1, 2), SCORED)

    def test_progress_bars_are_left_as_they_were(self, tmp_path, capfd):
        import datasets

        before = datasets.are_progress_bars_disabled()
        load(scored(tmp_path / "a.jsonl", 1, 2), SCORED)
        assert datasets.are_progress_bars_disabled() == before
        assert capfd.readouterr() == ("", "")


class TestPeek:
    def test_columns_of_all_rows_that_were_seen(self, tmp_path):
        seen = peek(Source(path=write(tmp_path / "a.jsonl", [{"a": 1}, {"a": 2, "b": 3}])))
        assert seen.columns == ("a", "b")
        assert seen.rows == ({"a": 1}, {"a": 2, "b": 3})

    def test_mistakes_show_before_anything_heavy_is_imported(self, tmp_path):
        code = (
            "import sys\nfrom losskit.card import Format\nfrom losskit.errors import DataError\n"
            "from losskit.recipe import EvalSource, Source\nfrom losskit_plugins.data.files import match_source\n"
            f"for name in ('nowhere.jsonl', 'a.jsonl'):\n    try: match_source(Source(path={str(tmp_path)!r} + '/' + name), "
            "[Format(['text'])])\n    except DataError as error: print(error)\n"
            "print({'torch', 'transformers', 'datasets', 'pyarrow', 'pandas'} & set(sys.modules))"
        )
        write(tmp_path / "a.jsonl", [{"a": "x"}])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        missing, columns, modules = done.stdout.strip().splitlines()
        assert missing.endswith("nowhere.jsonl: no such file")
        assert "expected text for the loss, got a" in columns
        assert modules == "set()"


@pytest.fixture
def folder(tmp_path):
    """Three documents, three queries, judgements of two splits."""
    path = tmp_path / "collection"
    (path / "qrels").mkdir(parents=True)
    corpus = [{"_id": "d1", "title": "One", "text": "first"}, {"_id": "d2", "title": "", "text": "second"},
              {"_id": "d3", "text": "third"}]  # fmt: skip
    write(path / "corpus.jsonl", corpus)
    write(path / "queries.jsonl", [{"_id": f"q{i}", "text": f"query {i}"} for i in (1, 2, 3)])
    (path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq2\td3\t0\n")
    (path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n")
    return path


class TestEvaluation:
    def test_formats_of_evaluation_data(self, tmp_path, folder):
        scored(tmp_path / "a.jsonl", 1, 2)
        assert match_evaluation(EvalSource(path=str(tmp_path / "a.jsonl"))).label.kind == "score"
        assert match_evaluation(EvalSource(path=str(folder), split="test")) is None
        with pytest.raises(DataError, match="for evaluation, got words"):
            match_evaluation(EvalSource(path=write(tmp_path / "b.jsonl", [{"words": "x"}])))


class TestBeir:
    def test_training_pairs_are_the_judgements_above_0(self, folder):
        rows, matched = load(Source(path=str(folder), split="train"), PAIRS)
        assert rows[:] == {"anchor": ["query 1"] * 2, "positive": ["One first", "second"]}
        assert matched.unused == ("score", "query_id", "document_id")

    def test_collection(self, folder):
        found = beir.read_collection(folder, "train")
        assert found.corpus == {"d1": "One first", "d2": "second", "d3": "third"}
        assert found.queries == {"q1": "query 1", "q2": "query 2"}
        assert found.qrels == {"q1": {"d1": 1, "d2": 2}, "q2": {"d3": 0}}

    def test_packed_corpus_and_files(self, folder):
        corpus = folder / "corpus.jsonl"
        (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes()))
        corpus.unlink()
        source = Source(path=str(folder), format="beir", split="test")
        assert [file.name for file in files_of(source)] == ["corpus.jsonl.gz", "queries.jsonl", "test.tsv"]
        assert match_source(source, PAIRS).inputs == ("anchor", "positive")

    def test_the_only_split_needs_no_name(self, folder):
        (folder / "qrels" / "test.tsv").unlink()
        assert len(beir.read_collection(folder, None).queries) == 2

    @pytest.mark.parametrize(
        ("split", "message"),
        [
            (None, "expected one of test, train, got no split. Fix: say which one, as split: train"),
            ("trian", "expected one of test, train, got 'trian'. Fix: did you mean 'train'?"),
        ],
    )
    def test_splits(self, folder, split, message):
        with pytest.raises(DataError) as caught:
            beir.read_collection(folder, split)
        assert str(caught.value) == f"split of {folder}: {message}"

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td9\t1\n", "line 2: expected the id of a document, got 'd9'"),
            ("qrels/train.tsv", "query-id\tcorpus-id\tscore\nq9\td1\t1\n", "line 2: expected the id of a query, got 'q9'"),
            ("qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tyes\n", "line 2, 'score': expected an integer, got 'yes'"),
            ("qrels/train.tsv", "a\tb\nq1\td1\n", "line 1: expected columns query-id, corpus-id, score, got no query-id"),
            ("queries.jsonl", '{"_id": 1, "text": "x"}\n', "line 1, '_id': expected a string, got 1"),
            ("corpus.jsonl", '{"_id": "d1"}\n', "line 1, 'text': expected a string, got nothing"),
        ],
    )  # fmt: skip
    def test_malformed_files(self, folder, name, text, message):
        (folder / name).write_text(text)
        with pytest.raises(DataError) as caught:
            beir.read_collection(folder, "train")
        assert str(caught.value) == f"{folder / name}, {message}"

    def test_missing_parts(self, folder, tmp_path):
        (folder / "queries.jsonl").unlink()
        with pytest.raises(DataError, match=r"queries\.jsonl: no such file"):
            beir.read_collection(folder, "train")
        with pytest.raises(DataError, match="expected a folder in BEIR layout, got nothing there"):
            beir.read_collection(tmp_path / "nowhere", "train")


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not beside the repository")
class TestRealData:
    def test_scifact(self):
        rows, _ = load(Source(path=str(DATA / "scifact"), split="train"), PAIRS)
        assert len(rows) == 919
        found = beir.read_collection(DATA / "scifact", "test")
        assert (len(found.corpus), len(found.queries), sum(map(len, found.qrels.values()))) == (5183, 300, 339)

    def test_stsb(self):
        columns = {"text_1": "sentence1", "text_2": "sentence2"}
        rows, matched = load(Source(path=str(DATA / "stsb_open" / "train.jsonl.gz"), columns=columns), SCORED)
        assert len(rows) == 2999
        assert matched.unused == ("genre", "source", "year")
        assert (min(rows["score"]), max(rows["score"])) == (0.0, 5.0)

    def test_triplets_classes_and_parallel_sentences(self):
        rows, matched = load(Source(path=str(DATA / "snli" / "dev_triplets.jsonl.gz")), PAIRS)
        assert (len(rows), matched.inputs) == (381, ("anchor", "positive", "negative"))
        _, matched = load(Source(path=str(DATA / "banking77" / "train.jsonl.gz")), [Format(["text"], "class")])
        assert len(matched.label.classes) == 77
        columns = {"anchor": "english", "positive": "deu"}
        assert len(load(Source(path=str(DATA / "tatoeba" / "eng-deu.tsv"), columns=columns), PAIRS)[0]) == 1000
