"""Makes what the recipes of this folder read beside the data sets themselves: splits, binary labels, margins, lists.

python docs/recipes/prepare.py DATA OUT MODEL

DATA is the folder of data sets, OUT where the files go, MODEL the folder of all-MiniLM-L6-v2: the teacher, and what
finds the candidates of the lists.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import losskit
from losskit_plugins.data.beir import read_collection
from losskit_plugins.data.lines import write_lines
from losskit_plugins.mining import candidates, labelled_lists

TEST_ROWS = 200
CANDIDATES = 20
EVERY = 5


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a compressed JSON lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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


def lists(folder: Path, model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, list) of claims with their nearest abstracts; for training those that bear on the claim among them."""
    splits = {split: read_collection(folder, split) for split in ("train", "test")}
    corpus = splits["train"].corpus
    places = {name: place for place, name in enumerate(corpus)}
    queries = [text for found in splits.values() for text in found.queries.values()]
    nearest = iter(candidates(losskit.load(model), queries, list(corpus.values()), CANDIDATES))
    for split, found in splits.items():
        relevant = [{places[name]: label for name, label in found.qrels[query].items()} for query in found.queries]
        rows = labelled_lists(
            list(found.queries.values()), list(corpus.values()), list(islice(nearest, len(relevant))), relevant,
            keep_relevant=split == "train",
        )  # fmt: skip
        yield from ((split, row) for row in rows)


def pairs(folder: Path) -> Iterator[dict[str, str]]:
    """Every title with its abstract, and every training claim with the abstracts that bear on it."""
    for row in read(folder / "corpus.jsonl.gz"):
        yield {"query": row["title"], "document": row["text"]}
    claims = read_collection(folder, "train")
    for query, text in claims.queries.items():
        for document, label in claims.qrels[query].items():
            if label > 0:
                yield {"query": text, "document": claims.corpus[document]}


def thinned(row: dict[str, Any]) -> dict[str, Any]:
    """A list with all that is relevant, and of the rest one document of each few."""
    others = [place for place, label in enumerate(row["labels"]) if not label]
    left = set(others) - set(others[::EVERY])
    kept = [place for place in range(len(row["labels"])) if place not in left]
    return {**row, **{name: [row[name][place] for place in kept] for name in ("documents", "labels")}}


def apart(rows: Iterable[dict[str, Any]], others: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lists whose relevant documents stand in none of the others, so that knowing them again is of no use there."""
    known = {document for row in others for document in row["documents"]}
    for row in rows:
        if not any(
            label and document in known for document, label in zip(row["documents"], row["labels"], strict=True)
        ):
            yield row


def main() -> None:
    """Write every file."""
    data, out, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    made = {"tatoeba": list(translations(data / "tatoeba")), "scifact-lists": list(lists(data / "scifact", model))}
    for name, rows in made.items():
        for split in ("train", "test"):
            write_lines(out / f"{name}-{split}.jsonl", (row for found, row in rows if found == split))
    encoder = losskit.load(model)
    encoder.transformer.save_pretrained(out / "transformer")
    encoder.tokenizer.save(out / "transformer")
    short = [thinned(row) for split, row in made["scifact-lists"] if split == "train"]
    test = (row for split, row in made["scifact-lists"] if split == "test")
    write_lines(out / "scifact-short-lists-train.jsonl", short)
    write_lines(out / "scifact-apart-lists-train.jsonl", apart(short, test))
    write_lines(out / "snli-binary.jsonl", binary(read(data / "snli" / "dev_pairs.jsonl.gz")))
    write_lines(out / "snli-margins.jsonl", margins(read(data / "snli" / "dev_triplets.jsonl.gz"), model))
    write_lines(out / "scifact-pairs.jsonl", pairs(data / "scifact"))
    scored = read(data / "stsb_open" / "train.jsonl.gz")
    sentences = dict.fromkeys(text for row in scored for text in (row["sentence1"], row["sentence2"]))
    write_lines(out / "stsb-sentences.jsonl", ({"text": text} for text in sentences))


if __name__ == "__main__":
    main()
