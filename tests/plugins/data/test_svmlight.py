"""svmlight: the lines of a query as one row; what is wrong with a line is named with its number."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

import pytest

from losskit import Format
from losskit.errors import DataError
from losskit.recipe import EvalSource, TrainSource
from losskit_plugins.data.files import load, match_evaluation, peek
from losskit_plugins.data.formats import format_of, read_rows

LISTS = [Format(["query", "documents"], "scores")]
SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "ltr_lightgbm"

TEXT = """\
# judged by hand
2 qid:10 1:0.5 3:-1e-2 # doc 7

0 qid:10 2:4
1.5 qid:a:b 4:1
0 qid:2
"""
ROWS = [
    ("line 2", {"query": "10", "documents": [[0.5, 0.0, -0.01], [0.0, 4.0, 0.0]], "labels": [2.0, 0.0]}),
    ("line 5", {"query": "a:b", "documents": [[0.0, 0.0, 0.0, 1.0]], "labels": [1.5]}),
    ("line 6", {"query": "2", "documents": [[0.0]], "labels": [0.0]}),
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.svm", TEXT.encode()),
        ("a.svm.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a.svmlight", b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()),
    ],
)
def test_the_lines_of_a_query_are_a_row(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert format_of(tmp_path / name) == "svmlight"
    assert list(read_rows(tmp_path / name, "svmlight")) == ROWS


def test_a_file_is_read_no_further_than_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.svm"
    file.write_text("1 qid:1 1:1\n0 qid:2 1:1\nbroken\n")
    assert [place for place, _ in islice(read_rows(file, "svmlight"), 1)] == ["line 1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 1:0.5", "line 2: expected qid:ID after the label, got 1:0.5"),
        ("1", "line 2: expected qid:ID after the label, got nothing"),
        ("1 qid: 1:0.5", "line 2: expected qid:ID after the label, got qid:"),
        ("good qid:1 1:0.5", "line 2, the label: expected a finite number, got 'good'"),
        ("nan qid:1 1:0.5", "line 2, the label: expected a finite number, got 'nan'"),
        ("1 qid:1 1:0.5 2:x", "line 2, feature 2: expected a finite number, got 'x'"),
        ("1 qid:1 1:inf", "line 2, feature 1: expected a finite number, got 'inf'"),
        ("1 qid:1 1", "line 2, feature 1: expected a finite number, got ''"),
        ("1 qid:1 3:1 2:1", "line 2: expected features in rising order, each once, got 2 after 3"),
        ("1 qid:1 3:1 3:1", "line 2: expected features in rising order, each once, got 3 after 3"),
        ("1 qid:1 0:1", "line 2: expected feature:value, features from 1 to 100000, got '0:1'"),
        ("1 qid:1 -1:1", "line 2: expected feature:value, features from 1 to 100000, got '-1:1'"),
        ("1 qid:1 price:1", "line 2: expected feature:value, features from 1 to 100000, got 'price:1'"),
        ("1 qid:1 100001:1", "line 2: expected feature:value, features from 1 to 100000, got '100001:1'"),
        (
            "1 qid:2 1:1\n0 qid:1 1:1",
            "line 3: expected the lines of a query one after another, got qid:1 again, after other queries. "
            "Fix: sort the file by qid",
        ),
    ],
)
def test_refuses_malformed_lines(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.svm"
    file.write_text(f"0 qid:1 1:1\n{line}\n")
    with pytest.raises(DataError) as caught:
        list(read_rows(file, "svmlight"))
    assert str(caught.value) == f"{file}, {message}"


def test_refuses_a_file_of_comments(tmp_path: Path) -> None:
    (tmp_path / "a.svm").write_text("# nothing\n")
    with pytest.raises(DataError, match="expected rows, got none"):
        list(read_rows(tmp_path / "a.svm", "svmlight"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not there")
@pytest.mark.parametrize(("part", "queries", "documents"), [("train", 201, 3005), ("test", 50, 768)])
def test_every_value_of_a_real_file(part: str, queries: int, documents: int) -> None:
    file = SHARED / f"{part}.svm.gz"
    rows = [row for _, row in read_rows(file, "svmlight")]
    assert (len(rows), sum(len(row["documents"]) for row in rows)) == (queries, documents)
    written = [
        (row["query"], label, {place: value for place, value in enumerate(document, start=1) if value})
        for row in rows
        for document, label in zip(row["documents"], row["labels"], strict=True)
    ]
    with gzip.open(file, "rt") as lines:
        for line, (query, label, features) in zip(lines, written, strict=True):
            first, qid, *pairs = line.split()
            named = {int(name): float(value) for name, value in (pair.split(":") for pair in pairs)}
            assert (float(first), qid) == (label, f"qid:{query}")
            assert features == {name: value for name, value in named.items() if value}


class TestAsData:
    """Rows of features beside rows of texts, of whatever file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "a.svm"
        path.write_text(TEXT)
        return path

    def test_columns_are_found_by_name_and_values_stored_as_float32(self, file: Path) -> None:
        rows, matched = load(TrainSource(path=str(file)), LISTS)
        assert matched.summary() == "query = query, documents = documents, label (scores) = labels"
        assert matched.columns[1].features
        assert rows["documents"][0] == [pytest.approx(document) for document in ROWS[0][1]["documents"]]
        assert rows.features["documents"].feature.feature.dtype == "float32"

    def test_a_limit_counts_queries(self, file: Path) -> None:
        assert len(peek(TrainSource(path=str(file), limit=2)).rows) == 2

    def test_it_can_be_evaluated_on(self, file: Path) -> None:
        matched = match_evaluation(EvalSource(path=str(file)))
        assert matched is not None
        assert matched.inputs == ("query", "documents")

    def test_json_may_hold_features_as_well(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text('{"query": "q", "documents": [[1, 2.5], [0, 1]], "labels": [1, 0]}\n')
        rows, _ = load(TrainSource(path=str(file)), LISTS)
        assert rows[0]["documents"] == [[1.0, 2.5], [0.0, 1.0]]

    @pytest.mark.parametrize(
        "documents",
        ["[[1, 2], [3]]", "[[1], [null]]", '[["a"], ["b"]]', "[[1], [1e39]]", "[[], []]", "[]", '["a", "b"]'],
    )
    def test_refuses_what_is_no_table(self, tmp_path: Path, documents: str) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(
            '{"query": "q", "documents": [[1], [0]], "labels": [1, 0]}\n'
            f'{{"query": "q", "documents": {documents}, "labels": [1, 0]}}\n'
        )
        wanted = "a list of documents, each a list of finite numbers, all of one length"
        with pytest.raises(DataError, match=rf"a\.jsonl, line 2, column 'documents': expected {wanted}, got \["):
            load(TrainSource(path=str(file)), LISTS)

    def test_refuses_features_among_texts(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text(
            '{"query": "q", "documents": ["a", "b"], "labels": [1, 0]}\n'
            '{"query": "q", "documents": [[1], [0]], "labels": [1, 0]}\n'
        )
        with pytest.raises(DataError, match="line 2, column 'documents': expected a list of texts, got"):
            load(TrainSource(path=str(file)), LISTS)

    def test_refuses_another_number_of_labels(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text('{"query": "q", "documents": [[1], [0]], "labels": [1]}\n')
        with pytest.raises(DataError, match="expected 2 numbers, one for each document"):
            load(TrainSource(path=str(file)), LISTS)
