"""Files of every format give the same rows; what is wrong with them is named with its line."""

import csv
import gzip
import json

import pytest

from losskit.errors import DataError
from losskit_plugins.data.formats import READERS, format_of, read_rows

ROWS = [
    {"text": 'He said "no", twice', "other": "NA"},
    {"text": "", "other": "001"},
    {"text": "line\u2028separator and ümlaut", "other": "None"},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path, rows):
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_parquet(path, rows):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {"jsonl": write_jsonl, "json": write_json, "csv": write_csv, "tsv": write_tsv, "parquet": write_parquet}


def test_every_format_is_written_here():
    assert READERS.keys() - WRITERS.keys() == {"svmlight"}  # which has rows of its own, see test_svmlight.py


def refusal(path, text, name="data.jsonl"):
    file = path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as caught:
        list(read_rows(file, format_of(file)))
    return str(caught.value).replace(str(file), name)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_rows_come_as_they_were_written(tmp_path, name, packed):
    file = tmp_path / f"rows.{name}"
    WRITERS[name](file, ROWS)
    if packed:
        file = tmp_path / f"rows.{name}.gz"
        file.write_bytes(gzip.compress((tmp_path / f"rows.{name}").read_bytes()))
    assert [dict(row) for _, row in read_rows(file, format_of(file))] == ROWS


def test_json_by_name_may_hold_lines(tmp_path):
    file = tmp_path / "rows.json"
    write_jsonl(file, ROWS)
    assert [dict(row) for _, row in read_rows(file, "json")] == ROWS


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\r\n1,2\r\n")
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbfa\tb\r\n1\t2\r\n")
    for name in ("csv", "tsv"):
        assert list(read_rows(tmp_path / f"a.{name}", name)) == [("line 2", {"a": "1", "b": "2"})]


def test_places_count_lines_and_empty_lines_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [place for place, _ in read_rows(tmp_path / "a.jsonl", "jsonl")] == ["line 1", "line 3"]
    (tmp_path / "a.csv").write_text('a\n"two\nlines"\nlast\n')
    assert list(read_rows(tmp_path / "a.csv", "csv")) == [("line 2", {"a": "two\nlines"}), ("line 4", {"a": "last"})]


def test_csv_fields_may_be_long(tmp_path):
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f"a\n{long}\n")
    assert next(read_rows(tmp_path / "a.csv", "csv"))[1] == {"a": long}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data.jsonl: expected rows, got an empty file"),
        ("\n \n", "data.jsonl: expected rows, got none"),
        ('{"a": 1}\n{"a": 1\n', "data.jsonl, line 2: expected JSON, got Expecting ',' delimiter at column 8"),
        ('{"a": 1}\n[1]\n', "data.jsonl, line 2: expected an object of columns, got list"),
        (b'{"a": "\xff"}\n', "data.jsonl: expected text in UTF-8, got byte 0xff"),
    ],
)
def test_malformed_lines(tmp_path, text, message):
    assert refusal(tmp_path, text) == message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[{"a": 1},\n{"a"}]', "a.json, line 2: expected JSON, got Expecting ':' delimiter at column 5"),
        ("a.json", "[1]", "a.json, row 1: expected an object of columns, got int"),
        ("a.csv", "a,b\n1,2\n1\n", "a.csv, line 3: expected 2 fields as in the header, got 1"),
        ("a.csv", "a,a\n1,2\n", "a.csv, line 1: expected column names, each once, got a twice"),
        ("a.csv", "a,b\n", "a.csv: expected rows, got none"),
        (
            "a.csv",
            'a,b\n"x" y,2\n',
            "a.csv, line 2: expected fields quoted as CSV does, got ',' expected after '\"'. "
            "Fix: put a field that holds quotation marks in quotes, and write each mark twice",
        ),
        ("a.tsv", "a\tb\n1\t2\t3\n", "a.tsv, line 2: expected 2 fields as in the header, got 3"),
        (
            "a.parquet",
            "no parquet at all",
            "a.parquet: expected a parquet file, got a damaged one (Parquet magic bytes",
        ),
    ],
)
def test_malformed_files(tmp_path, name, text, message):
    assert refusal(tmp_path, text, name).startswith(message)


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000])
def test_what_python_cannot_read_is_the_files_fault(tmp_path, value):
    message = refusal(tmp_path, f'{{"a": 1}}\n{{"a": {value}}}\n')
    assert message.startswith("data.jsonl, line 2: expected JSON that Python can read, got ")


def test_damaged_gzip(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 10_000)
    for damaged in (whole[: len(whole) // 2], whole[:-6] + b"\0\0" + whole[-4:], b"not packed"):
        message = refusal(tmp_path, damaged, "a.jsonl.gz")
        assert message.startswith("a.jsonl.gz: expected a gzip file, got a damaged one (")
        assert message.endswith("Fix: copy or download it again")


def test_missing_file_folder_and_suffix(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        list(read_rows(tmp_path / "nowhere.jsonl", "jsonl"))
    with pytest.raises(DataError, match=r"expected a file, got a folder\. Fix: .* format: beir"):
        list(read_rows(tmp_path, "jsonl"))
    with pytest.raises(DataError, match=r"expected a suffix among \.jsonl.*Fix: say format: jsonl"):
        format_of(tmp_path / "data.txt.gz")
    assert format_of(tmp_path / "data.txt", "csv") == "csv"
