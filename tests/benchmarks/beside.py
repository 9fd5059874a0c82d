"""What the benchmarks of losses share: steps of both libraries in turns, and the memory of a step."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

PROVIDERS = ("original", "ours")
START = multiprocessing.get_context("fork")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
ALLOWANCE_MS = 0.02
"""At the smallest size: so much may be lost to the call itself."""

Step = Callable[[], Any]


def in_turns(
    steps: Mapping[str, Step], budget: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Milliseconds per step of each provider, in turns until the budget in seconds is spent.

    Args:
        steps: of each provider.
        budget: in seconds.
        clock: `time.process_time` does not count what else the machine is doing, with one thread.
    """
    for step in steps.values():
        step()
    # A sample of short steps is the mean of several.
    start = clock()
    steps["ours"]()
    inner = max(1, int(0.003 / (clock() - start)))
    samples: dict[str, list[float]] = {provider: [] for provider in steps}
    end = time.perf_counter() + budget
    gc.disable()
    while time.perf_counter() < end or len(samples["ours"]) < 3:
        order = list(steps) if len(samples["ours"]) % 2 else list(steps)[::-1]
        for provider in order:
            start = clock()
            for _ in range(inner):
                steps[provider]()
            samples[provider].append(1000 * (clock() - start) / inner)
    gc.enable()
    return samples


def compared(samples: Mapping[str, Sequence[float]], allowance_ms: float = 0.0) -> dict[str, Any]:
    """Medians, and the median of the paired ratios with its interval; without the original's times only ours."""
    ours = samples["ours"]
    found: dict[str, Any] = {"ours_ms": statistics.median(ours)}
    if "original" in samples:
        theirs = samples["original"]
        ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
        allowed = [(b - allowance_ms) / a for a, b in zip(theirs, ours, strict=True)]
        found |= {"original_ms": statistics.median(theirs), "ratio": statistics.median(ratios)}
        found |= {"interval": interval(ratios), "slower": interval(allowed)[0] > 1.05}
    return found


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95 % of the medians of resamples."""
    source = random.Random(0)
    medians = sorted(statistics.median(source.choices(ratios, k=len(ratios))) for _ in range(1000))
    return medians[25], medians[974]


def keep_memory() -> None:
    """Let this process keep what it frees, for timing: else luck says whose blocks go back and cost page faults."""
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, 1 << 25)  # the most that glibc takes
    library.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def peak(prepare: Callable[..., Step], arguments: Sequence[Any], warming: Sequence[Any]) -> float:
    """MB of a step above its inputs, in a process of its own: forked from one that has only imported.

    Args:
        prepare: makes a step of arguments.
        arguments: for the step that is weighed.
        warming: for a step before it, as what is loaded on first use is no cost of the loss.
    """
    with START.Pool(1) as pool:
        return pool.apply(_measure, (prepare, arguments, warming))


def _measure(prepare: Callable[..., Step], arguments: Sequence[Any], warming: Sequence[Any]) -> float:
    """The rise of this process's peak memory in one step; Linux with glibc only."""
    # Every tensor in pages of its own, which are given back: what is held counts, not how the heap is cut up.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    prepare(*warming)()
    step = prepare(*arguments)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) * 1024 / 1e6


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


HEADER = f"{'original ms':>12}{'ours ms':>11}{'ratio':>7}{'orig. MB':>11}{'ours MB':>9}"


def figures(found: Mapping[str, Any]) -> str:
    """The figures of one line, under `HEADER`."""
    cells = []
    for key, width in (("original_ms", 12), ("ours_ms", 11), ("ratio", 7), ("original_mb", 11), ("ours_mb", 9)):
        digits = 1 if key.endswith("mb") else 3
        cells.append(f"{found[key]:{width}.{digits}f}" if key in found else " " * (width - 1) + "-")
    return "".join(cells) + ("  slower" if found.get("slower") else "")


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Ours over the original's, over all lines."""
    shares = {
        "time": [each["ratio"] for each in rows if "ratio" in each],
        # Below a tenth of a megabyte pages are counted, not tensors.
        "memory": [max(each["ours_mb"], 0.1) / max(each["original_mb"], 0.1) for each in rows if "original_mb" in each],
    }
    return {what: statistics.geometric_mean(found) for what, found in shares.items() if found}


def write(path: Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], order: Sequence[str]) -> None:
    """Figures into a file, beside those of earlier runs for other losses, sizes or measures.

    Args:
        path: of a JSON file.
        rows: one per line.
        keys: which entries of a row say what it is of, the loss first.
        order: of the losses.
    """
    known = json.loads(path.read_text()) if path.exists() else []
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in (*known, *rows):
        key = tuple(each[name] for name in keys)
        merged[key] = {**merged.get(key, {}), **each}
    found = sorted(merged.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:]))
    path.write_text(json.dumps([each for _, each in found], indent=1) + "\n")


class Batched(Protocol):
    """A case that is measured at several batches, the smallest first."""

    @property
    def batches(self) -> Sequence[int]: ...


def run_cases(description: str | None, cases: Mapping[str, Batched], prepare: Callable[[str, str, int], Step]) -> None:
    """Measure cases at their batches as the command line asks: print the table, and write it as JSON if asked to.

    Args:
        description: of the benchmark.
        cases: by name.
        prepare: makes a step of a case, a provider and a batch.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(cases), help="names, or what they begin with")
    parser.add_argument("--batches", nargs="*", type=int, help="some of those that a case has")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of timing per line")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    wanted = [
        (name, batch)
        for name, case in cases.items()
        if name.startswith(tuple(arguments.cases))
        for batch in case.batches
        if not arguments.batches or batch in arguments.batches
    ]
    smallest = {name: cases[name].batches[0] for name, _ in wanted}
    for name, batch in smallest.items():
        for provider in PROVIDERS:
            prepare(name, provider, batch)  # imports
    memory = {  # before this process has computed anything
        (name, batch): {
            f"{provider}_mb": peak(prepare, (name, provider, batch), (name, provider, smallest[name]))
            for provider in PROVIDERS
        }
        for name, batch in wanted
    }
    keep_memory()
    print(f"{'case':46}{'batch':>7}{HEADER}")
    rows: list[dict[str, Any]] = []
    for name, batch in wanted:
        steps = {provider: prepare(name, provider, batch) for provider in PROVIDERS}
        times = compared(in_turns(steps, arguments.budget, time.process_time))
        rows.append({"case": name, "batch": batch} | memory[name, batch] | times)
        print(f"{name:46}{batch:7}{figures(rows[-1])}", flush=True)
    for what, share in means(rows).items():
        print(f"geometric mean of the {what}: {share:.2f} times")
    if arguments.out:
        write(arguments.out, rows, ("case", "batch"), list(cases))
