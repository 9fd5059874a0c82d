"""Rows written are rows read, and a failure leaves what was there."""

import json

import pytest

from losskit.errors import DataError
from losskit_plugins.data.formats import read_rows
from losskit_plugins.data.lines import write_lines

ROWS = [{"query": "größer\u2028", "documents": ["a\nb", "c"], "labels": [0, 1]}, {"text": ""}]


def test_reads_back(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert write_lines(path, iter(ROWS)) == 2
    assert [row for _, row in read_rows(path, "jsonl")] == ROWS
    assert list(path.parent.iterdir()) == [path]


def test_replaces_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old", encoding="utf-8")
    assert write_lines(path, []) == 0
    assert path.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(
    ("row", "error"),
    [({"x": float("nan")}, ValueError), ({"x": object()}, TypeError), (None, ZeroDivisionError)],
    ids=["nan", "object", "rows"],
)
def test_after_an_error_everything_is_as_it_was(tmp_path, row, error):
    path = tmp_path / "rows.jsonl"
    path.write_text("old", encoding="utf-8")

    def rows():
        yield ROWS[0]
        yield row or {"x": 1 / 0}

    with pytest.raises(error):
        write_lines(path, rows())
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text(json.dumps(ROWS), encoding="utf-8")
    with pytest.raises(DataError, match="expected a file that can be written"):
        write_lines(tmp_path / "file" / "rows.jsonl", ROWS)
