"""How long the commands that only look take to start, with 150 other distributions installed.

    python tests/benchmarks/bench_startup.py [--runs 20] [--budget 0.3]

Prints, for each command, the median of its time beyond that of `python -c pass`, with and without the cache of
parsed sources, and exits with 1 where the cached time is over the budget.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (["--help"], ["--version"], ["list"], ["list", "--json"], ["show", "cosent"])
COMPLETION = {"_LOSSKIT_COMPLETE": "complete_bash", "COMP_WORDS": "losskit show co", "COMP_CWORD": "2"}


def main() -> int:
    """Measure and compare with the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--distributions", type=int, default=150)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds beyond Python's own start")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site, cache = Path(folder, "site"), Path(folder, "cache")
        _fill(site, options.distributions)
        environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(cache)}
        python = _median([sys.executable, "-c", "pass"], environment, options.runs)
        print(f"python -c pass: {python:.3f} s; beyond it, with {options.distributions} other distributions:")
        slowest = 0.0
        for arguments, extra in [*((command, {}) for command in COMMANDS), ([], COMPLETION)]:
            command = [sys.executable, "-m", "losskit_cli", *arguments]
            variables = {**environment, **extra}
            cold = _median(command, variables, max(3, options.runs // 4), before=lambda: shutil.rmtree(cache, True))
            warm = _median(command, variables, options.runs)
            slowest = max(slowest, warm - python)
            name = " ".join(arguments) or "completion"
            print(f"  {name:<12} {warm - python:.3f} s cached, {cold - python:.3f} s uncached")
    print(f"budget: {options.budget} s, slowest: {slowest:.3f} s")
    return int(slowest > options.budget)


def _fill(site: Path, distributions: int) -> None:
    """Distributions as they are: metadata, a few entry points of other groups, a module."""
    for index in range(distributions):
        folder = site / f"other_{index}-1.{index}.dist-info"
        folder.mkdir(parents=True)
        body = "Description text.\n" * 200
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: other-{index}\nVersion: 1.{index}\n\n{body}")
        (folder / "RECORD").write_text(f"other_{index}.py,,\n")
        if index % 3 == 0:
            (folder / "entry_points.txt").write_text(f"[console_scripts]\nother{index} = other_{index}:main\n")
        (site / f"other_{index}.py").touch()


def _median(command: list[str], environment: dict[str, str], runs: int, before: object = None) -> float:
    times = []
    for _ in range(runs):
        if callable(before):
            before()
        start = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
