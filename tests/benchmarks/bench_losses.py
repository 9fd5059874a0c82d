"""Time and memory of the loss stage beside sentence-transformers 6.2.

Forward and backward of a loss on embeddings. Times are taken in turns in one process and given as medians; memory is
the peak above the inputs, of one step in a fresh process, the gradients of the embeddings included.

    python tests/benchmarks/bench_losses.py --sizes 64 256 1024 --memory 4096
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DIMENSION = 384
LOSSES = ("multiple-negatives-ranking", "cosent")
PROVIDERS = ("original", "ours")


def make(name: str, provider: str) -> Any:
    """A loss without a model."""
    if provider == "ours":
        from losskit import build

        return build(name)
    from sentence_transformers.sentence_transformer import losses

    return {"multiple-negatives-ranking": losses.MultipleNegativesRankingLoss, "cosent": losses.CoSENTLoss}[name](None)


def prepare(name: str, provider: str, size: int) -> Callable[[], None]:
    """One step on random embeddings."""
    import torch

    torch.manual_seed(0)
    loss = make(name, provider)
    columns = [torch.randn(size, DIMENSION, requires_grad=True) for _ in range(2)]
    labels = torch.randint(0, 11, (size,)) / 10 if name == "cosent" else None

    def step() -> None:
        for column in columns:
            column.grad = None
        loss.compute_loss_from_embeddings(columns, labels).backward()

    return step


def times(name: str, size: int, budget: float) -> dict[str, list[float]]:
    """Milliseconds per step of both providers, one after the other until the budget in seconds is spent."""
    steps = {provider: prepare(name, provider, size) for provider in PROVIDERS}
    samples: dict[str, list[float]] = {provider: [] for provider in PROVIDERS}
    for step in steps.values():
        step()
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(samples["ours"]) < 3:
        for provider, step in steps.items():
            start = time.perf_counter()
            step()
            samples[provider].append(1000 * (time.perf_counter() - start))
    return samples


def peak(name: str, provider: str, size: int) -> float:
    """MB above the inputs, in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, provider, str(size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(name: str, provider: str, size: int) -> float:
    """The rise of this process's peak memory in one step; Linux only."""
    prepare(name, provider, 64)()
    step = prepare(name, provider, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) * 1024 / 1e6


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="*", default=LOSSES, choices=LOSSES)
    parser.add_argument("--sizes", nargs="*", type=int, default=[64, 256, 1024, 4096], help="batch sizes to time")
    parser.add_argument("--memory", nargs="*", type=int, default=[4096], help="batch sizes to measure memory at")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of timing per row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", nargs=3, metavar=("LOSS", "PROVIDER", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        name, provider, size = arguments.measure
        print(measure(name, provider, int(size)))
        return
    print(f"{'loss':28}{'batch':>7}{'original ms':>13}{'ours ms':>10}{'ratio':>7}{'samples':>9}")
    for name in arguments.losses:
        for size in arguments.sizes:
            samples = times(name, size, arguments.budget)
            a, b = (statistics.median(samples[provider]) for provider in PROVIDERS)
            print(f"{name:28}{size:7}{a:13.3f}{b:10.3f}{b / a:7.2f}{len(samples['ours']):9}", flush=True)
    if arguments.memory:
        print(f"\n{'loss':28}{'batch':>7}{'original MB':>13}{'ours MB':>10}{'of it gradients':>17}")
    for name in arguments.losses:
        for size in arguments.memory:
            a, b = (peak(name, provider, size) for provider in PROVIDERS)
            print(f"{name:28}{size:7}{a:13.1f}{b:10.1f}{2 * size * DIMENSION * 4 / 1e6:17.1f}", flush=True)


if __name__ == "__main__":
    main()
