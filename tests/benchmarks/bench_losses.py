"""Time and memory of the loss stage beside sentence-transformers 6.2, for every dense loss.

A fake encoder hands embeddings to the loss, so that what is measured is all that comes after it, forward and backward.
Times are taken in turns in one process: medians, and the median of the paired ratios with a 95 % interval. Memory is
the peak above the inputs of one step in a fresh process, the gradients of the embeddings included. A size at which the
original would take more than a minute or 12 GB is measured for ours only.

    python tests/benchmarks/bench_losses.py --sizes 64 256 1024 --memory 256
    python tests/benchmarks/bench_losses.py --out docs/measurements/losses.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from beside import ALLOWANCE_MS, HEADER, PROVIDERS, compared, figures, in_turns, means, peak, write
from torch import Tensor, nn

DIMENSION = 384
SIZES = (64, 256, 1024, 4096, 16384)


class Fake(nn.Module):
    """Gives what stands in its features: as an encoder of either library, and as a guide."""

    family, similarity, dimension, normalized = "dense", "cosine", DIMENSION, False
    max_seq_length = 128
    device = torch.device("cpu")

    def __init__(self, key: str = "anchor", tokenizer: Any = None) -> None:
        super().__init__()
        self.key = key
        self.tokenizer = tokenizer
        self.own = nn.Parameter(torch.zeros(1))  # says on which device it is

    def __deepcopy__(self, memo: Any) -> Fake:
        return Fake("second")

    def get_embedding_dimension(self) -> int:
        return DIMENSION

    def preprocess(self, texts: Sequence[str], *, role: str = "text", prompt: str | None = None) -> dict[str, Tensor]:
        return {self.key: GUIDED[int(texts[0])]}

    def forward(self, features: dict[str, Any], needs: Sequence[str] = ()) -> dict[str, Any]:
        return {**features, "sentence_embedding": features[self.key]}


GUIDED: list[Tensor] = []
"""What the guide makes of each column."""


@dataclass(frozen=True)
class Case:
    """A loss of both libraries on the same data.

    Args:
        theirs: from the module of the incumbent's losses and a model.
        ours: from `losskit.build` and a model.
        columns: of embeddings.
        labels: from the batch size.
        largest: the greatest batch that the original is measured at.
        second: whether features hold the embeddings of a second tower.
        guide: whether features hold those of a guide.
    """

    theirs: Callable[[Any, Fake], nn.Module]
    ours: Callable[[Callable[..., Any], Fake], nn.Module]
    columns: int = 2
    labels: Callable[[int], Tensor] | None = None
    largest: int = 16384
    second: bool = False
    guide: bool = False


def plain(original: str, name: str, **options: Any) -> dict[str, Any]:
    """Both constructors where they take nothing but the model."""
    return {
        "theirs": lambda losses, model: getattr(losses, original)(model),
        "ours": lambda build, model: build({"name": name, **options}, model),
    }


def scores(size: int) -> Tensor:
    return torch.randint(0, 21, (size,)) / 20


def classes(size: int) -> Tensor:
    return torch.randint(0, max(1, size // 4), (size,))


def topics(size: int) -> Tensor:
    return torch.randint(0, 10, (size,))


def matryoshka(losses: Any, model: Fake) -> nn.Module:
    inner = losses.MultipleNegativesRankingLoss(model)
    made: nn.Module = losses.MatryoshkaLoss(model, inner, [384, 256, 128, 64, 32])
    return made


ALL_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")

CASES: dict[str, Case] = {
    "multiple-negatives-ranking": Case(**plain("MultipleNegativesRankingLoss", "multiple-negatives-ranking")),
    "multiple-negatives-ranking, 1 negative": Case(
        **plain("MultipleNegativesRankingLoss", "multiple-negatives-ranking"), columns=3
    ),
    "multiple-negatives-symmetric-ranking": Case(
        **plain("MultipleNegativesSymmetricRankingLoss", "multiple-negatives-symmetric-ranking")
    ),
    "improved-contrastive": Case(
        lambda losses, model: losses.MultipleNegativesRankingLoss(model, directions=ALL_DIRECTIONS),
        lambda build, model: build("improved-contrastive", model),
        largest=4096,
    ),
    "gist": Case(
        lambda losses, model: losses.GISTEmbedLoss(model, Fake("guide", model.tokenizer)),
        lambda build, model: build({"name": "gist", "guide": Fake("guide")}, model),
        largest=256,
        guide=True,
    ),
    "mega-batch-margin": Case(
        lambda losses, model: losses.MegaBatchMarginLoss(model, use_mini_batched_version=False),
        lambda build, model: build("mega-batch-margin", model),
    ),
    "cosent": Case(**plain("CoSENTLoss", "cosent"), labels=scores),
    "angle": Case(**plain("AnglELoss", "angle"), labels=scores),
    "cosine-similarity": Case(**plain("CosineSimilarityLoss", "cosine-similarity"), labels=scores),
    "contrastive": Case(**plain("ContrastiveLoss", "contrastive"), labels=lambda size: torch.randint(0, 2, (size,))),
    "online-contrastive": Case(
        **plain("OnlineContrastiveLoss", "online-contrastive"), labels=lambda size: torch.randint(0, 2, (size,))
    ),
    "triplet": Case(**plain("TripletLoss", "triplet"), columns=3),
    "batch-all-triplet, 4 per class": Case(
        **plain("BatchAllTripletLoss", "batch-all-triplet"), columns=1, labels=classes, largest=4096
    ),
    "batch-all-triplet, 10 classes": Case(
        **plain("BatchAllTripletLoss", "batch-all-triplet"), columns=1, labels=topics, largest=1024
    ),
    "batch-hard-triplet": Case(
        **plain("BatchHardTripletLoss", "batch-hard-triplet"), columns=1, labels=classes, largest=4096
    ),
    "batch-hard-soft-margin-triplet": Case(
        **plain("BatchHardSoftMarginTripletLoss", "batch-hard-soft-margin-triplet"),
        columns=1,
        labels=classes,
        largest=4096,
    ),
    "batch-semi-hard-triplet, 4 per class": Case(
        **plain("BatchSemiHardTripletLoss", "batch-semi-hard-triplet"), columns=1, labels=classes, largest=4096
    ),
    "batch-semi-hard-triplet, 10 classes": Case(
        **plain("BatchSemiHardTripletLoss", "batch-semi-hard-triplet"), columns=1, labels=topics, largest=4096
    ),
    "softmax": Case(
        lambda losses, model: losses.SoftmaxLoss(model, DIMENSION, 3),
        lambda build, model: build({"name": "softmax", "num_labels": 3}, model),
        labels=lambda size: torch.randint(0, 3, (size,)),
    ),
    "mse": Case(**plain("MSELoss", "mse"), columns=1, labels=lambda size: torch.randn(size, DIMENSION)),
    "embed-distill": Case(
        **plain("EmbedDistillLoss", "embed-distill"), columns=1, labels=lambda size: torch.randn(size, DIMENSION)
    ),
    "margin-mse": Case(**plain("MarginMSELoss", "margin-mse"), columns=3, labels=torch.randn),
    "margin-mse, 5 negatives": Case(
        **plain("MarginMSELoss", "margin-mse"), columns=7, labels=lambda size: torch.randn(size, 5)
    ),
    "distill-kl-div, 8 documents": Case(
        **plain("DistillKLDivLoss", "distill-kl-div"), columns=9, labels=lambda size: torch.randn(size, 8)
    ),
    "global-orthogonal-regularization": Case(
        **plain("GlobalOrthogonalRegularizationLoss", "global-orthogonal-regularization")
    ),
    "contrastive-tension": Case(
        **plain("ContrastiveTensionLoss", "contrastive-tension"),
        labels=lambda size: (torch.rand(size) < 0.125).float(),
        second=True,
    ),
    "contrastive-tension-in-batch-negatives": Case(
        **plain("ContrastiveTensionLossInBatchNegatives", "contrastive-tension-in-batch-negatives"),
        columns=1,
        second=True,
    ),
    "matryoshka(multiple-negatives-ranking), 5 sizes": Case(
        matryoshka,
        lambda build, model: build(
            {"name": "matryoshka", "dims": [384, 256, 128, 64, 32], "loss": "multiple-negatives-ranking"}, model
        ),
        largest=4096,
    ),
}


def tokenizer() -> Any:
    """The original's gist compares the vocabularies of model and guide."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


def prepare(name: str, provider: str, size: int) -> Callable[[], Any]:
    """One step on random embeddings of like pairs."""
    case = CASES[name]
    torch.manual_seed(0)
    # The same embeddings for both, none of them alike by chance: pairs have a cosine of about 0.6.
    base = torch.randn(size, DIMENSION)
    leaves = [(base + torch.randn(size, DIMENSION)).requires_grad_() for _ in range(case.columns)]
    labels = None if case.labels is None else case.labels(size)
    features: list[dict[str, Any]] = [{"anchor": leaf} for leaf in leaves]
    if case.second:
        seconds = [(leaf.detach() + torch.randn(size, DIMENSION)).requires_grad_() for leaf in leaves]
        for each, second in zip(features, seconds, strict=True):
            each["second"] = second
        leaves += seconds
    if case.guide:
        GUIDED[:] = [leaf.detach() + torch.randn(size, DIMENSION) for leaf in leaves]
        for place, each in enumerate(features):
            each.update({"guide": GUIDED[place]} if provider == "original" else {"texts": [str(place)]})
    model = Fake(tokenizer=tokenizer() if case.guide and provider == "original" else None)
    loss = make(case, provider, model)

    def step() -> Any:
        for leaf in leaves:
            leaf.grad = None
        value = loss([dict(each) for each in features], labels)
        (torch.stack(list(value.values())).sum() if isinstance(value, dict) else value).backward()
        return value

    return step


def make(case: Case, provider: str, model: Fake) -> nn.Module:
    """The loss of a provider."""
    if provider == "ours":
        from losskit import build

        return case.ours(build, model)
    from sentence_transformers.sentence_transformer import losses

    return case.theirs(losses, model)


def providers(name: str, size: int) -> Sequence[str]:
    """Who is measured on a loss at one size."""
    return PROVIDERS if size <= CASES[name].largest else PROVIDERS[1:]


def timed(name: str, size: int, budget: float) -> dict[str, Any]:
    """The times of a loss at one size; without the original's where it was not measured."""
    steps = {provider: prepare(name, provider, size) for provider in providers(name, size)}
    samples = in_turns(steps, budget, time.process_time)
    return compared(samples, ALLOWANCE_MS if size == min(SIZES) else 0.0)


def weighed(name: str, size: int) -> dict[str, Any]:
    """The memory of a loss at one size."""
    return {
        f"{provider}_mb": peak(prepare, (name, provider, size), (name, provider, min(size, 1024)))
        for provider in providers(name, size)
    }


def weigh_all(names: Sequence[str], sizes: Sequence[int]) -> dict[tuple[str, int], dict[str, float]]:
    """The memory of losses at all sizes, before this process has computed anything."""
    for provider in PROVIDERS:
        make(CASES["mse"], provider, Fake())  # imports
    return {(name, size): weighed(name, size) for name in names for size in sizes}


def main() -> None:
    """Print the table, and write it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="*", default=list(CASES), help="names of cases, or what they begin with")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="batch sizes to time")
    parser.add_argument("--memory", nargs="*", type=int, default=(256, 1024, 4096, 16384), help="sizes to weigh at")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per line")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    print(f"{'loss':50}{'batch':>7}{HEADER}")
    names = [name for name in CASES if name.startswith(tuple(arguments.losses))]
    memory = weigh_all(names, arguments.memory)
    rows = []
    for name in names:
        for size in sorted({*arguments.sizes, *arguments.memory}):
            found = {"loss": name, "batch": size, **memory.get((name, size), {})}
            found |= timed(name, size, arguments.budget) if size in arguments.sizes else {}
            rows.append(found)
            print(f"{name:50}{size:7}{figures(found)}", flush=True)
    for what, share in means(rows).items():
        print(f"geometric mean of the {what}: {share:.2f} times")
    if arguments.out:
        write(arguments.out, rows, ("loss", "batch"), list(CASES))


if __name__ == "__main__":
    main()
