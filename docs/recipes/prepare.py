"""Makes what the recipes of this folder read beside the data sets themselves: splits, binary labels, margins.

python docs/recipes/prepare.py DATA OUT MODEL

DATA is the folder of data sets, OUT where the files go, MODEL the folder of the teacher (all-MiniLM-L6-v2).
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import losskit

TEST_ROWS = 200


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def translations(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(split, pair) of three languages, the last rows of each for testing."""
    for path in sorted(folder.glob("eng-*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        for place, (english, other) in enumerate(rows):
            yield "test" if place >= len(rows) - TEST_ROWS else "train", {"english": english, "translation": other}


def binary(rows: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Entailment as 1 and contradiction as 0."""
    for row in rows:
        if row["label"] != "neutral":
            yield {
                "premise": row["premise"],
                "hypothesis": row["hypothesis"],
                "label": int(row["label"] == "entailment"),
            }


def margins(rows: list[dict[str, str]], model: str) -> Iterator[dict[str, Any]]:
    """How much nearer the teacher sees the positive than the negative."""
    teacher = losskit.load(model)
    anchor, positive, negative = (teacher.encode([row[name] for row in rows]) for name in rows[0])
    found = (anchor * positive).sum(1) - (anchor * negative).sum(1)
    for row, margin in zip(rows, found.tolist(), strict=True):
        yield {**row, "margin": margin}


def main() -> None:
    """Write every file."""
    data, out, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    out.mkdir(parents=True, exist_ok=True)
    pairs = list(translations(data / "tatoeba"))
    for split in ("train", "test"):
        write(out / f"tatoeba-{split}.jsonl", (pair for found, pair in pairs if found == split))
    write(out / "snli-binary.jsonl", binary(read(data / "snli" / "dev_pairs.jsonl.gz")))
    write(out / "snli-margins.jsonl", margins(read(data / "snli" / "dev_triplets.jsonl.gz"), model))
    rows = read(data / "stsb_open" / "train.jsonl.gz")
    sentences = dict.fromkeys(text for row in rows for text in (row["sentence1"], row["sentence2"]))
    write(out / "stsb-sentences.jsonl", ({"text": text} for text in sentences))


if __name__ == "__main__":
    main()
