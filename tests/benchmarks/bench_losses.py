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
import ctypes
import gc
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DIMENSION = 384
SIZES = (64, 256, 1024, 4096, 16384)
PROVIDERS = ("original", "ours")
START = multiprocessing.get_context("fork")
M_MMAP_THRESHOLD = -3
ALLOWANCE_MS = 0.02
"""At batch 64: so much may be lost to the call itself."""


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


def times(name: str, size: int, budget: float) -> dict[str, list[float]]:
    """Milliseconds per step of each provider, in turns until the budget in seconds is spent."""
    providers = PROVIDERS if size <= CASES[name].largest else PROVIDERS[1:]
    steps = {provider: prepare(name, provider, size) for provider in providers}
    for step in steps.values():
        step()
    # A sample of short steps is the mean of several.
    start = time.perf_counter()
    steps["ours"]()
    inner = max(1, int(0.003 / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {provider: [] for provider in providers}
    end = time.perf_counter() + budget
    gc.disable()
    while time.perf_counter() < end or len(samples["ours"]) < 3:
        order = list(steps) if len(samples["ours"]) % 2 else list(steps)[::-1]
        for provider in order:
            start = time.perf_counter()
            for _ in range(inner):
                steps[provider]()
            samples[provider].append(1000 * (time.perf_counter() - start) / inner)
    gc.enable()
    return samples


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % of the medians of resamples."""
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(1000))
    return medians[25], medians[974]


def peak(name: str, provider: str, size: int) -> float:
    """MB above the inputs, in a process of its own: forked from one that has only imported."""
    with START.Pool(1) as pool:
        return pool.apply(measure, (name, provider, size))


def measure(name: str, provider: str, size: int) -> float:
    """The rise of this process's peak memory in one step; Linux with glibc only."""
    # Every tensor in pages of its own, which are given back: what is held counts, not how the heap is cut up.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    prepare(name, provider, min(size, 1024))()  # what is loaded on first use is no cost of the loss
    step = prepare(name, provider, size)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) * 1024 / 1e6


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def timed(name: str, size: int, budget: float) -> dict[str, Any]:
    """The times of a loss at one size; without the original's where it was not measured."""
    samples = times(name, size, budget)
    ours = samples["ours"]
    found: dict[str, Any] = {"ours_ms": statistics.median(ours)}
    if "original" in samples:
        theirs = samples["original"]
        allowance = ALLOWANCE_MS if size == 64 else 0.0
        ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
        allowed = [(b - allowance) / a for a, b in zip(theirs, ours, strict=True)]
        found |= {"original_ms": statistics.median(theirs), "ratio": statistics.median(ratios)}
        found |= {"interval": interval(ratios), "slower": interval(allowed)[0] > 1.05}
    return found


def weighed(name: str, size: int) -> dict[str, Any]:
    """The memory of a loss at one size."""
    providers = PROVIDERS if size <= CASES[name].largest else PROVIDERS[1:]
    return {f"{provider}_mb": peak(name, provider, size) for provider in providers}


def show(found: dict[str, Any]) -> None:
    """One line of the table."""
    cells = [f"{found['loss']:50}{found['batch']:7}"]
    for key, width in (("original_ms", 12), ("ours_ms", 11), ("ratio", 7), ("original_mb", 11), ("ours_mb", 9)):
        digits = 1 if key.endswith("mb") else 3
        cells.append(f"{found[key]:{width}.{digits}f}" if key in found else " " * (width - 1) + "-")
    print("".join(cells) + ("  slower" if found.get("slower") else ""), flush=True)


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
    print(f"{'loss':50}{'batch':>7}{'original ms':>12}{'ours ms':>11}{'ratio':>7}{'orig. MB':>11}{'ours MB':>9}")
    names = [name for name in CASES if name.startswith(tuple(arguments.losses))]
    memory = weigh_all(names, arguments.memory)
    rows = []
    for name in names:
        for size in sorted({*arguments.sizes, *arguments.memory}):
            found = {"loss": name, "batch": size, **memory.get((name, size), {})}
            found |= timed(name, size, arguments.budget) if size in arguments.sizes else {}
            rows.append(found)
            show(found)
    for what, share in means(rows).items():
        print(f"geometric mean of the {what}: {share:.2f} times")
    if arguments.out:
        write(arguments.out, rows)


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Ours over the original's, over all losses and sizes."""
    shares = {
        "time": [each["ratio"] for each in rows if "ratio" in each],
        # Below a tenth of a megabyte pages are counted, not tensors.
        "memory": [max(each["ours_mb"], 0.1) / max(each["original_mb"], 0.1) for each in rows if "original_mb" in each],
    }
    return {what: statistics.geometric_mean(found) for what, found in shares.items() if found}


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Figures into a file, beside those of earlier runs for other losses, sizes or measures."""
    known = json.loads(path.read_text()) if path.exists() else []
    merged = {(each["loss"], each["batch"]): each for each in known}
    for each in rows:
        key = each["loss"], each["batch"]
        merged[key] = merged.get(key, {}) | each
    order = list(CASES)
    found = sorted(merged.values(), key=lambda each: (order.index(each["loss"]), each["batch"]))
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
