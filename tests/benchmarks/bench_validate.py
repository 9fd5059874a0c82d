"""How long a default validation of each built-in component takes, after its import.

In this process, on one thread as the command does it: all checks up to the level numeric, on all encoders and formats
of the component. The first of each kind is validated once before, so that what torch and the encoders load once is
not counted.

    python tests/benchmarks/bench_validate.py [--kinds loss wrapper] [--names cosent] [--budget 20]
    python tests/benchmarks/bench_validate.py --out docs/measurements/validate.json

Prints the seconds of each, the slowest checks of the slowest, the median and the slowest by kind, and exits with 1
where the median of the losses, or of all if there are none, is over the budget.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from losskit.card import KINDS
from losskit.testing.examine import examine, law_checks
from losskit.validation import LEVELS, Target, all_targets
from losskit.validation.__main__ import THREADS

SHOWN = 5
"""How many of the slowest checks are shown."""


def main() -> int:
    """Measure and compare with the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--names", nargs="+", default=())
    parser.add_argument("--level", choices=LEVELS, default="numeric")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds of the median loss")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    targets = [
        each
        for each in all_targets()
        if each.spec.builtin and each.kind in options.kinds and (not options.names or each.spec.name in options.names)
    ]
    rows = list(_measured(targets, options.level))
    if not rows:
        parser.error("no built-in component is asked for")
    _show_slowest(max(rows, key=lambda row: row["seconds"]), targets, options.level)
    summary = {kind: _summary([row for row in rows if row["kind"] == kind]) for kind in KINDS}
    summary = {kind: found for kind, found in summary.items() if found}
    for kind, found in summary.items():
        print(f"{kind}: median {found['median']:.1f} s, slowest {found['slowest']:.1f} s ({found['name']})")
    if options.out:
        document = {"level": options.level, "threads": options.threads, "summary": summary, "components": rows}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    judged = summary["loss"]["median"] if "loss" in summary else statistics.median(row["seconds"] for row in rows)
    print(f"budget: {options.budget:g} s, median: {judged:.1f} s")
    return int(judged > options.budget)


def _measured(targets: Sequence[Target], level: Any) -> Any:
    """A row for each target, printed as it is there."""
    warmed: set[str | None] = set()
    for target in targets:
        target.spec.load()
        if target.kind not in warmed:
            warmed.add(target.kind)
            examine(target, level=level)
        start = time.perf_counter()
        report = examine(target, level=level)
        seconds = time.perf_counter() - start
        ran = sum(each.ran for each in report.checks)
        print(f"{target.kind:<12} {target.spec.name:<40} {seconds:6.1f} s, {ran} checks", flush=True)
        yield {"kind": target.kind, "name": target.spec.name, "seconds": round(seconds, 2), "checks": ran}


def _show_slowest(row: dict[str, Any], targets: Sequence[Target], level: Any) -> None:
    """Which checks take the time of the slowest component."""
    [target] = [each for each in targets if (each.kind, each.spec.name) == (row["kind"], row["name"])]
    times: dict[str, float] = {}
    for each in LEVELS[1 : LEVELS.index(level) + 1]:
        name, start = "", time.perf_counter()
        for told in law_checks(target, each, 0):
            times[name] = times.get(name, 0.0) + time.perf_counter() - start
            name, start = (told if isinstance(told, str) else ""), time.perf_counter()
    slowest = sorted(times.items(), key=lambda item: -item[1])[:SHOWN]
    print(f"of {row['name']}: " + ", ".join(f"{name or 'between checks'} {took:.1f} s" for name, took in slowest))


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {}
    slowest = max(rows, key=lambda row: row["seconds"])
    median = statistics.median(row["seconds"] for row in rows)
    return {"median": round(median, 2), "slowest": slowest["seconds"], "name": slowest["name"]}


if __name__ == "__main__":
    sys.exit(main())
