"""The BEIR layout: a folder of corpus, queries and relevance judgements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from losskit.errors import DataError, did_you_mean

from .formats import Row, check_file, read_rows

__all__ = ["COLUMNS", "Collection", "files_of", "is_beir", "read_collection", "read_pairs"]

COLUMNS = ("anchor", "positive", "score", "query_id", "document_id")
"""What a folder offers as training data: one row per judgement above 0."""


@dataclass(frozen=True)
class Collection:
    """A retrieval collection of one split.

    Args:
        corpus: document id to title and text.
        queries: query id to text; those with judgements only.
        qrels: query id to document id to relevance.
    """

    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


def is_beir(path: Path) -> bool:
    """Whether a folder looks like it."""
    return path.is_dir() and any((path / f"corpus.jsonl{gz}").exists() for gz in ("", ".gz"))


def files_of(path: Path, split: str | None) -> tuple[Path, Path, Path]:
    """Corpus, queries and judgements of a split; the only one where none is named.

    Raises:
        DataError: one of them is missing, or the split is not there or not named.
    """
    if not path.is_dir():
        raise DataError(
            str(path), expected="a folder in BEIR layout", got="a file" if path.exists() else "nothing there"
        )
    splits = {file.name.partition(".")[0]: file for file in sorted((path / "qrels").glob("*.tsv*"))}
    if split is None and len(splits) == 1:
        split = next(iter(splits))
    if split not in splits:
        names = ", ".join(splits) or "none"
        got = "no split" if split is None else repr(split)
        fix = did_you_mean(split or "", splits) or "say which one, as split: train"
        raise DataError(f"split of {path}", expected=f"one of {names}", got=got, fix=fix)
    return _either(path, "corpus"), _either(path, "queries"), splits[split]


def read_collection(path: Path, split: str | None) -> Collection:
    """The whole collection of a split.

    Raises:
        DataError: a file that is missing or malformed, or a judgement of what is not there.
    """
    corpus_file, queries_file, qrels_file = files_of(path, split)
    corpus = dict(_documents(corpus_file))
    queries = {_string(queries_file, place, row, "_id"): _string(queries_file, place, row, "text")
               for place, row in read_rows(queries_file, "jsonl")}  # fmt: skip
    qrels: dict[str, dict[str, int]] = {}
    for place, query, document, relevance in _judgements(qrels_file):
        for kind, name, known in (("query", query, queries), ("document", document, corpus)):
            if name not in known:
                raise DataError(f"{qrels_file}, {place}", expected=f"the id of a {kind}", got=repr(name))
        qrels.setdefault(query, {})[document] = relevance
    return Collection(corpus, {name: queries[name] for name in qrels}, qrels)


def read_pairs(path: Path, split: str | None) -> Iterator[Row]:
    """The judgements above 0 as rows of `COLUMNS`, in the order of the file of judgements.

    Raises:
        DataError: as `read_collection`.
    """
    found = read_collection(path, split)
    number = 0
    for query, judged in found.qrels.items():
        for document, relevance in judged.items():
            number += 1
            if relevance > 0:
                values = (found.queries[query], found.corpus[document], relevance, query, document)
                yield f"judgement {number}", dict(zip(COLUMNS, values, strict=True))


def _either(path: Path, name: str) -> Path:
    plain, packed = path / f"{name}.jsonl", path / f"{name}.jsonl.gz"
    found = plain if plain.exists() or not packed.exists() else packed
    check_file(found)
    return found


def _documents(file: Path) -> Iterator[tuple[str, str]]:
    for place, row in read_rows(file, "jsonl"):
        title = row.get("title") or ""
        text = _string(file, place, row, "text")
        yield _string(file, place, row, "_id"), f"{title} {text}".strip()


def _string(file: Path, place: str, row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(
            f"{file}, {place}, {key!r}", expected="a string", got="nothing" if value is None else repr(value)
        )
    return value


def _judgements(file: Path) -> Iterator[tuple[str, str, str, int]]:
    for place, row in read_rows(file, "tsv"):
        try:
            yield place, row["query-id"], row["corpus-id"], int(row["score"])
        except KeyError as error:
            raise DataError(
                f"{file}, line 1", expected="columns query-id, corpus-id, score", got=f"no {error.args[0]}"
            ) from None
        except ValueError:
            raise DataError(f"{file}, {place}, 'score'", expected="an integer", got=repr(row["score"])) from None
