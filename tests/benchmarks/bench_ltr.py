"""Learning to rank on feature rows: an MLP under every listwise loss, beside LightGBM's own lambdarank.

Both learn from the training queries of LightGBM's example and are measured on its test queries, by one function. The
MLP is that of docs/recipes/ltr-lambda.yaml, trained by `losskit.train`; LightGBM has the parameters of its example
(`pip install losskit[benchmark]`). Medians over seeds.

    python tests/benchmarks/bench_ltr.py --seeds 5 --out docs/measurements
    python tests/benchmarks/bench_ltr.py --held-out 40 training.epochs=10     # on training queries, to choose options
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "ltr_lightgbm"
RECIPE = ROOT / "docs" / "recipes" / "ltr-lambda.yaml"
METRICS = ("ndcg@10", "ndcg-exp@10")
LOSSES: dict[str, Any] = {
    **{
        f"lambda, {weighting}": {"name": "lambda", "weighting": weighting}
        for weighting in ("no-weighting", "ndcg-loss1", "ndcg-loss2", "lambda-rank", "ndcg-loss2pp")
    },
    **{name: name for name in ("rank-net", "list-net", "list-mle", "p-list-mle", "adr-mse")},
}
TREES = 100
LIGHTGBM = {
    "objective": "lambdarank",
    "max_bin": 255,
    "learning_rate": 0.1,
    "num_leaves": 31,
    "feature_fraction": 1.0,
    "bagging_freq": 1,
    "bagging_fraction": 0.9,
    "min_data_in_leaf": 50,
    "min_sum_hessian_in_leaf": 5.0,
    "num_threads": 1,
    "verbosity": -1,
}
"""Those of examples/lambdarank/train.conf."""


def split(folder: Path, held_out: int) -> tuple[Path, Path]:
    """The files to learn from and to measure on: the data's own, or the last training queries kept out."""
    if not held_out:
        return DATA / "train.svm.gz", DATA / "test.svm.gz"
    with gzip.open(DATA / "train.svm.gz", "rt") as lines:
        queries = ["".join(group) for _, group in groupby(lines, key=lambda line: line.split()[1])]
    parts = {"train": queries[:-held_out], "test": queries[-held_out:]}
    for name, found in parts.items():
        (folder / f"{name}.svm").write_text("".join(found))
    return folder / "train.svm", folder / "test.svm"


def run_losskit(loss: Any, overrides: list[str]) -> Callable[[Path, Path, int, Path], Mapping[str, float]]:
    """The recipe with a loss in place of its own."""

    def run(train: Path, test: Path, seed: int, folder: Path) -> Mapping[str, float]:
        import losskit
        from losskit.yaml12 import parse_yaml

        parts = (each.partition("=") for each in overrides)
        given = {
            "data.train.path": str(train),
            "data.eval.path": str(test),
            "training.seed": seed,
            **{key: parse_yaml(value, key) for key, _, value in parts},
        }
        return losskit.train(RECIPE, loss=loss, output=folder / "run", force=True, **given).after

    return run


def run_lightgbm(train: Path, test: Path, seed: int, folder: Path) -> Mapping[str, float]:
    """Boosted trees with lambdarank, measured as the MLP is."""
    import lightgbm

    from losskit.recipe import EvalSource
    from losskit_plugins.evaluation import evaluate, read_evaluation

    learned, measured = (read_evaluation(EvalSource(path=str(path))) for path in (train, test))
    documents = [document for each in learned.documents for document in each]
    encoder = Trees(max(map(len, documents)))
    data = lightgbm.Dataset(
        encoder.table(documents),
        label=np.concatenate(learned.labels),
        group=[len(each) for each in learned.documents],
    )
    encoder.trees = lightgbm.train({**LIGHTGBM, "seed": seed}, data, num_boost_round=TREES)
    return evaluate(encoder, measured, METRICS)


class Trees:
    """LightGBM's trees where a cross-encoder is evaluated."""

    family = "cross-encoder"

    trees: Any

    def __init__(self, features: int) -> None:
        self.features = features

    def table(self, documents: list[list[float]]) -> np.ndarray:
        """Documents as rows; what a line leaves out is 0 for the trees as well."""
        return np.array([[*document, *[0.0] * (self.features - len(document))] for document in documents])

    def encode(self, texts: Any, **_: Any) -> np.ndarray:
        """Scores of (query, features) pairs."""
        return self.trees.predict(self.table([document for _, document in texts]))


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per model: median, lowest and highest of each metric over the seeds."""
    models = {f"mlp, {name}": run_losskit(loss, args.overrides) for name, loss in LOSSES.items()}
    models["LightGBM, lambdarank"] = run_lightgbm
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        train, test = split(folder, args.held_out)
        for name, run in models.items():
            if args.only and not any(each in name for each in args.only):
                continue
            found = [run(train, test, seed, folder) for seed in range(args.seeds)]
            row: dict[str, Any] = {"model": name}
            for metric in METRICS:
                values = [each[metric] for each in found]
                row[metric] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
            yield row


def main() -> None:
    """Measure and print a table, and write it if a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the recipe, key.sub=value")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="models whose names contain one of these")
    parser.add_argument("--held-out", type=int, default=0, help="measure on so many training queries instead")
    parser.add_argument("--out", type=Path, help="folder for ltr.json")
    args = parser.parse_args()
    rows = []
    for row in measure(args):
        rows.append(row)
        shown = "   ".join(
            f"{row[metric]['median']:.4f} ({row[metric]['low']:.4f} to {row[metric]['high']:.4f})" for metric in METRICS
        )
        print(f"{row['model']:24} {shown}", flush=True)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "ltr.json").write_text(json.dumps({"seeds": args.seeds, "models": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
