"""Time and memory of the losses on scores beside sentence-transformers 6.2: 32 queries of 8 to 512 documents.

Lists are ragged, from half to the full length. With the model `scores` a table of scores takes the place of the
encoder, and what is measured is all that comes after it, forward and backward; with `cross-encoder` a transformer of
two layers with random weights reads 16 tokens per pair. Neither library tokenises: tokens are at hand. Times are those
of one processor, taken in turns in one process: medians, and the median of the paired ratios with a 95 % interval.
Memory is the peak above the inputs of one step in a fresh process.

    python tests/benchmarks/bench_ranking.py --losses lambda rank-net --models scores --documents 8 128
    python tests/benchmarks/bench_ranking.py --out docs/measurements/ranking.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from beside import ALLOWANCE_MS, HEADER, PROVIDERS, Step, compared, figures, in_turns, means, peak, write
from torch import Tensor, nn

QUERIES = 32
DOCUMENTS = (8, 32, 128, 512)
MODELS = ("scores", "cross-encoder")
TOKENS, WORDS, CLASSES = 16, 1000, 3
LARGEST_CACHED = 128
"""Documents up to which gradient caching is timed."""


class Table(nn.Module):
    """Scores of pairs as a parameter, looked up by the pair's number."""

    def __init__(self, pairs: int, outputs: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.randn(pairs, outputs))

    def features(self, part: slice) -> dict[str, Tensor]:
        return {"number": torch.arange(part.start, part.stop)}

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.scores[features["number"]]


class Transformer(nn.Module):
    """Two layers over random tokens, and a head on the first of them."""

    def __init__(self, pairs: int, outputs: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        self.bert = BertModel(BertConfig(vocab_size=WORDS, **sizes), add_pooling_layer=False)
        self.head = nn.Linear(32, outputs)
        self.tokens = torch.randint(0, WORDS, (pairs, TOKENS))

    def features(self, part: slice) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[part], "attention_mask": torch.ones_like(self.tokens[part])}

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        tokens = {"input_ids": features["input_ids"], "attention_mask": features["attention_mask"]}
        return self.head(self.bert(**tokens).last_hidden_state[:, 0])


class Scorer(nn.Module):
    """A cross-encoder of either library, whose pairs have their features at hand: they are asked for in order."""

    family, similarity, dimension, normalized = "cross-encoder", "", None, False
    device = torch.device("cpu")
    num_labels = 1  # before the incumbent's property, which cannot be set

    def __init__(self, inside: nn.Module, outputs: int) -> None:
        nn.Module.__init__(self)
        self.inside = inside
        self.num_labels = outputs
        self.asked = 0

    def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, Tensor]:
        start, self.asked = self.asked, self.asked + len(pairs)
        return self.inside.features(slice(start, self.asked))

    def forward(self, features: Mapping[str, Any], **_: Any) -> dict[str, Tensor]:
        return {"scores": self.inside(features)}


@cache
def incumbent_scorer() -> type[Scorer]:
    """The scorer as a subclass of the incumbent's CrossEncoder, which some of its losses insist on."""
    from sentence_transformers import CrossEncoder

    class IncumbentScorer(Scorer, CrossEncoder):
        """Nothing of a CrossEncoder but its type."""

    return IncumbentScorer


@dataclass(frozen=True)
class Batch:
    """What both libraries read.

    Args:
        columns: texts, which nobody reads.
        labels: for the original, those of lists one tensor per query.
        counts: how many documents each query has; None: one, of pairs.
        outputs: of the model.
    """

    columns: list[Any]
    labels: Any
    counts: tuple[int, ...] | None
    outputs: int = 1

    @property
    def pairs(self) -> int:
        return len(self.columns[0]) if self.counts is None else sum(self.counts)


def ragged(documents: int) -> Batch:
    """Lists from half to the full length, with grades from 0 to 3."""
    drawn = torch.randint(documents // 2, documents + 1, (QUERIES - 1,)).tolist()
    counts = (documents, *drawn)
    labels = [torch.randint(0, 4, (count,)).float() for count in counts]
    return Batch([["q"] * QUERIES, [["d"] * count for count in counts]], labels, counts)


def pairs(documents: int) -> Batch:
    """As many pairs, each with a label in [0, 1]."""
    rows = ragged(documents).pairs
    return Batch([["q"] * rows, ["d"] * rows], torch.rand(rows), None)


def classes(documents: int) -> Batch:
    """As many pairs, each with a class."""
    rows = ragged(documents).pairs
    return Batch([["q"] * rows, ["d"] * rows], torch.randint(0, CLASSES, (rows,)), None, CLASSES)


def margins(documents: int) -> Batch:
    """A column for each document, with a teacher's scores."""
    labels = torch.randn(QUERIES, documents)
    return Batch([["q"] * QUERIES, *[["d"] * QUERIES] * documents], labels, (documents,) * QUERIES)


def drawn(documents: int) -> Batch:
    """A column for each document, but for four that are drawn from the batch."""
    texts = [[f"{column} {row}" for row in range(QUERIES)] for column in range(1 + documents - 4)]
    return Batch(texts, None, (documents,) * QUERIES)


@dataclass(frozen=True)
class Case:
    """A loss of both libraries on the same data.

    Args:
        theirs: the name of the incumbent's class.
        ours: the expression of ours.
        batch: the data.
        options: of the incumbent's, given its module of losses.
        execution: of ours.
    """

    theirs: str
    ours: str | dict[str, Any]
    batch: Callable[[int], Batch] = ragged
    options: Callable[[Any], dict[str, Any]] = lambda losses: {"mini_batch_size": -1}
    execution: str | dict[str, Any] | None = field(default=None)


def scheme(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda losses: {"mini_batch_size": -1, "weighting_scheme": getattr(losses, name)()}


CACHED = 256
UNSORTED = lambda losses: {"mini_batch_size": -1, "respect_input_order": False}  # noqa: E731
NOTHING = lambda losses: {}  # noqa: E731
CASES: dict[str, Case] = {
    "binary-cross-entropy": Case("BinaryCrossEntropyLoss", "binary-cross-entropy", pairs, NOTHING),
    "cross-entropy": Case("CrossEntropyLoss", "cross-entropy", classes, NOTHING),
    "score-mse": Case("MSELoss", "score-mse", pairs, NOTHING),
    "margin-mse": Case("MarginMSELoss", "margin-mse", margins, NOTHING),
    "cross-multiple-negatives-ranking": Case(
        "MultipleNegativesRankingLoss", "cross-multiple-negatives-ranking", drawn, NOTHING
    ),
    "list-net": Case("ListNetLoss", "list-net"),
    "list-mle": Case("ListMLELoss", "list-mle", options=UNSORTED),
    "p-list-mle": Case("PListMLELoss", "p-list-mle", options=UNSORTED),
    "rank-net": Case("RankNetLoss", "rank-net"),
    "lambda, no-weighting": Case(
        "LambdaLoss", {"name": "lambda", "weighting": "no-weighting"}, options=scheme("NoWeightingScheme")
    ),
    "lambda, ndcg-loss1": Case(
        "LambdaLoss", {"name": "lambda", "weighting": "ndcg-loss1"}, options=scheme("NDCGLoss1Scheme")
    ),
    "lambda, ndcg-loss2": Case(
        "LambdaLoss", {"name": "lambda", "weighting": "ndcg-loss2"}, options=scheme("NDCGLoss2Scheme")
    ),
    "lambda, lambda-rank": Case(
        "LambdaLoss", {"name": "lambda", "weighting": "lambda-rank"}, options=scheme("LambdaRankScheme")
    ),
    "lambda, ndcg-loss2pp": Case("LambdaLoss", "lambda"),
    "adr-mse": Case("ADRMSELoss", "adr-mse"),
    f"lambda, ndcg-loss2pp, {CACHED} pairs at a time": Case(
        "LambdaLoss",
        "lambda",
        options=lambda losses: {"mini_batch_size": CACHED},
        execution={"name": "grad-cache", "mini_batch_size": CACHED},
    ),
}


def prepare(name: str, provider: str, model: str, documents: int) -> Step:
    """One step on random scores, or tokens."""
    case = CASES[name]
    torch.manual_seed(documents)
    batch = case.batch(documents)
    inside = (Table if model == "scores" else Transformer)(batch.pairs, batch.outputs)
    scorer = (incumbent_scorer() if provider == "original" else Scorer)(inside, batch.outputs)
    loss = make(case, provider, scorer)
    labels = batch.labels
    if provider == "ours" and isinstance(labels, list):
        labels = torch.cat(labels)

    def step() -> Tensor:
        scorer.zero_grad()
        scorer.asked = 0
        if provider == "original":
            # A loss of the incumbent's appends to its columns.
            value = loss([list(column) for column in batch.columns], labels)
        else:
            features = scorer.preprocess(range(batch.pairs))
            value = loss([features if batch.counts is None else {**features, "lists": batch.counts}], labels)
        value.backward()
        return value

    return step


def make(case: Case, provider: str, scorer: Scorer) -> nn.Module:
    """The loss of a provider."""
    if provider == "ours":
        from losskit import build

        return build(case.ours, scorer, execution=case.execution)
    from sentence_transformers.cross_encoder import losses

    return getattr(losses, case.theirs)(scorer, **case.options(losses))


def timed(name: str, model: str, documents: int, budget: float) -> dict[str, Any]:
    """The times of a loss; those of gradient caching, which has every forward twice, are not held to a limit."""
    cached = CASES[name].execution is not None
    if cached and documents > LARGEST_CACHED:
        return {}
    steps = {provider: prepare(name, provider, model, documents) for provider in PROVIDERS}
    samples = in_turns(steps, budget, time.process_time)
    found = compared(samples, ALLOWANCE_MS if documents == min(DOCUMENTS) else 0.0)
    return found | ({"slower": False} if cached else {})


def weighed(name: str, model: str, documents: int) -> dict[str, float]:
    """The memory of a loss."""
    return {
        f"{provider}_mb": peak(prepare, (name, provider, model, documents), (name, provider, model, min(DOCUMENTS)))
        for provider in PROVIDERS
    }


def lines(names: list[str], models: list[str], documents: list[int]) -> list[tuple[str, str, int]]:
    """What is measured; gradient caching only where there is an encoder whose activations it saves."""
    return [
        (name, model, size)
        for model in models
        for name in names
        for size in documents
        if model != "scores" or CASES[name].execution is None
    ]


def main() -> None:
    """Print the table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="*", default=list(CASES), help="names of cases, or what they begin with")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--documents", nargs="*", type=int, default=DOCUMENTS, help="of the longest list")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per line")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    wanted = lines(
        [name for name in CASES if name.startswith(tuple(arguments.losses))], arguments.models, arguments.documents
    )
    for provider in PROVIDERS:
        prepare("lambda, ndcg-loss2pp", provider, "cross-encoder", min(DOCUMENTS))  # imports
    memory = {line: weighed(*line) for line in wanted}  # before this process has computed anything
    print(f"{'model':15}{'loss':45}{'documents':>9}{HEADER}")
    rows = []
    for name, model, documents in wanted:
        row = {"loss": name, "model": model, "documents": documents, **memory[name, model, documents]}
        rows.append(row | timed(name, model, documents, arguments.budget))
        print(f"{model:15}{name:45}{documents:9}{figures(rows[-1])}", flush=True)
    for what, share in means(rows).items():
        print(f"geometric mean of the {what}: {share:.2f} times")
    if arguments.out:
        write(arguments.out, rows, ("loss", "model", "documents"), list(CASES))


if __name__ == "__main__":
    main()
