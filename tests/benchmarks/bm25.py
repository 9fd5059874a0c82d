"""BM25 on the test split of a BEIR folder, by the same metrics as `losskit train`: what sparse models stand beside.

Terms are stemmed words without English stop words; k1 = 1.5 and b = 0.75 (`pip install losskit[benchmark]`).

    python tests/benchmarks/bm25.py ../shared/data/scifact
"""

from __future__ import annotations

import sys
from pathlib import Path

from losskit_plugins.data.beir import Collection, read_collection
from losskit_plugins.evaluation.ranking import MEASURES, measure, top


def found(collection: Collection) -> dict[str, list[str]]:
    """The best documents of each query, best first."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    documents = list(collection.corpus)
    place = {name: index for index, name in enumerate(documents)}

    def tokens(texts: list[str]) -> list[list[str]]:
        made = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
        return list(made)

    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index(tokens(list(collection.corpus.values())), show_progress=False)
    ranked = {}
    for query, terms in zip(collection.queries, tokens(list(collection.queries.values())), strict=True):
        relevance = {place[name]: value for name, value in collection.qrels[query].items()}
        ranked[query] = [documents[each] for each in top(index.get_scores(terms), relevance)]
    return ranked


def main(folder: str) -> None:
    """Print the metrics."""
    collection = read_collection(Path(folder), "test")
    for name, value in measure(list(MEASURES), collection.qrels, found(collection)).items():
        print(f"{name} {value:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
