"""How long the commands that only look take to start, and what more plugins cost.

    python tests/benchmarks/bench_startup.py [--runs 20] [--budget 0.3]

Three sites: 150 other distributions; 500 distributions with a component each beside them; one with 1,000 components
beside them. Prints, for each command, the median of its time beyond that of `python -c pass`, with and without the
cache of parsed sources, and exits with 1 where one is over the budget: 0.3 s, 2 ms more for each uncached source file
and 0.2 ms for each cached one of a plugin. With `--cpu` it measures the time that the processor spends instead of the
time that passes, for machines that are busy with something else.
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
from collections.abc import Callable
from pathlib import Path

from losskit import find

COMMANDS = (["--help"], ["--version"], ["list"], ["list", "--json"], ["show", "cosent"])
NEW = ["new", "loss", "my-margin", "--dry-run"]
COMPLETION = {"_LOSSKIT_COMPLETE": "complete_bash", "COMP_WORDS": "losskit show co", "COMP_CWORD": "2"}
UNCACHED, CACHED = 0.002, 0.0002
"""Seconds that each source file may take."""
SOURCE = '''
import torch
from losskit import Card, Format, Loss


class Loss{index}(Loss):
    """Pulls a positive to its anchor, for the {index}th time."""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"], formula="margin (1 - cos(a, p))")

    def __init__(self, model, margin: float = 1.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.margin = margin

    def compute(self, columns, labels, rows):
        anchors, positives = (column.embedding[rows] for column in columns)
        return self.margin * (1 - torch.cosine_similarity(anchors, positives)).mean()
'''


def main() -> int:
    """Measure and compare with the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--distributions", type=int, default=150)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds beyond Python's own start")
    parser.add_argument("--cpu", action="store_true", help="the processor's time")
    options = parser.parse_args()
    over = [_measure(plugins, components, options) for plugins, components in ((0, 0), (500, 1), (1, 1000))]
    return int(any(over))


def _measure(plugins: int, components: int, options: argparse.Namespace) -> bool:
    """Whether a command is over the budget with so many plugins that have so many components each."""
    with tempfile.TemporaryDirectory() as folder:
        site, cache = Path(folder, "site"), Path(folder, "cache")
        _fill(site, options.distributions)
        for index in range(plugins):
            _plugin(site, index, components)
        environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(cache)}
        python = _median([sys.executable, "-c", "pass"], environment, options)
        beside = f"{options.distributions} other distributions and {plugins} x {components} components"
        print(f"\npython -c pass: {python:.3f} s; beyond it, with {beside}:")
        files = plugins * components
        warmest = options.budget + files * CACHED
        coldest = options.budget + (files + len(find(provider="losskit"))) * UNCACHED
        over = False
        for arguments, extra in [*((command, {}) for command in (*COMMANDS, NEW)), ([], COMPLETION)]:
            command, variables = [sys.executable, "-m", "losskit_cli", *arguments], {**environment, **extra}
            cold = _median(command, variables, options, few=True, before=lambda: shutil.rmtree(cache, True)) - python
            warm = _median(command, variables, options) - python
            over = over or warm > warmest or cold > coldest
            print(f"  {' '.join(arguments) or 'completion':<32} {warm:.3f} s cached, {cold:.3f} s uncached")
        print(f"budget: {warmest:.3f} s cached, {coldest:.3f} s uncached: {'over' if over else 'kept'}")
        return over


def _fill(site: Path, distributions: int) -> None:
    """Distributions as they are: metadata, a few entry points of other groups, a module."""
    for index in range(distributions):
        points = f"[console_scripts]\nother{index} = other_{index}:main\n" if index % 3 == 0 else ""
        _distribution(site, f"other_{index}", f"1.{index}", points)
        (site / f"other_{index}.py").touch()


def _plugin(site: Path, index: int, components: int) -> None:
    """A distribution with components, each in a module of its own."""
    package, numbers = site / f"lk_bench_{index}", range(index * components, (index + 1) * components)
    package.mkdir()
    (package / "__init__.py").touch()
    for number in numbers:
        (package / f"m{number}.py").write_text(SOURCE.format(index=number))
    lines = [f"bench-{number} = {package.name}.m{number}:Loss{number}" for number in numbers]
    points = "[losskit.losses]\n" + "\n".join(lines) + "\n"
    _distribution(site, package.name, "1.0", points, "Requires-Dist: losskit>=0.0.1\nRequires-Dist: torch\n")


def _distribution(site: Path, name: str, version: str, points: str, headers: str = "") -> None:
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n{headers}"
    (folder / "METADATA").write_text(f"{head}\n" + "Description text.\n" * 200)
    (folder / "RECORD").write_text(f"{name}.py,,\n")
    if points:
        (folder / "entry_points.txt").write_text(points)


def _median(
    command: list[str],
    environment: dict[str, str],
    options: argparse.Namespace,
    *,
    few: bool = False,
    before: Callable[[], None] | None = None,
) -> float:
    """The median of several runs of a command; a first one, which writes caches, does not count."""
    times = []
    for _ in range(1 + (max(3, options.runs // 4) if few else options.runs)):
        if before is not None:
            before()
        spent, start = _processor(), time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        times.append(_processor() - spent if options.cpu else time.perf_counter() - start)
    return statistics.median(times[1:])


def _processor() -> float:
    """What the processor has spent on processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
