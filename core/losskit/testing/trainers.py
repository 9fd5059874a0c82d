"""A few steps of a trainer on a tiny model: losskit's own, and those of sentence-transformers."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..loss import Loss
from ..validation.findings import Violation
from .batches import Batch
from .compare import total
from .incumbents import FAMILIES
from .subject import Subject

__all__ = ["SAVED", "STEPS", "Trainer", "Training", "incumbent", "ours", "quiet", "rows_of"]

STEPS, SAVED = 4, 2
"""How many steps are trained, and after which of them a checkpoint is written."""
ARGUMENTS: Mapping[str, Any] = {
    "max_steps": STEPS,
    "save_steps": SAVED,
    "save_strategy": "steps",
    "learning_rate": 1e-3,  # so small that a step against the gradient lowers the loss
    "logging_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Training:
    """What came of a training.

    Args:
        model: the encoder as it is afterwards.
        loss: as it is afterwards.
        before: the loss of the batch in evaluation with the parameters of before, and the state of afterwards.
        after: with the parameters of afterwards.
        moved: names of parameters that changed.
    """

    model: nn.Module
    loss: nn.Module
    before: float
    after: float
    moved: frozenset[str]


Trainer = Callable[[nn.Module, Any, Subject, Path, "Path | None"], Training]
"""Trains a model by a loss on the batch of a subject, in a folder and from a checkpoint if one is given."""


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """A batch as rows by column name, as data sets hold them.

    >>> rows_of(Batch([["a"], ["b"], ["c"]], ["anchor", "negative", "negative"], torch.ones(1)))
    [{'anchor': 'a', 'negative_1': 'b', 'negative_2': 'c', 'label': 1.0}]
    """
    counts, seen = Counter(batch.inputs), Counter[str]()
    columns: dict[str, Sequence[Any]] = {}
    for name, column in zip(batch.inputs, batch.columns, strict=True):
        seen[name] += 1
        columns[f"{name}_{seen[name]}" if counts[name] > 1 else name] = column
    if batch.labels is not None:
        columns["label"] = [each.tolist() for each in batch.labels]
    if batch.weights is not None:
        columns["weight"] = batch.weights
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def ours(model: nn.Module, loss: Loss, subject: Subject, folder: Path, checkpoint: Path | None) -> Training:
    """Train by `losskit.Trainer`."""
    from transformers import TrainingArguments

    from losskit import Trainer as LosskitTrainer

    batch = subject.batch

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        part = batch.take([row["row"] for row in rows])
        return {"inputs": part.features(loss), "labels": part.flat_labels}

    rows = [{"row": row} for row in range(batch.rows)]
    args = TrainingArguments(str(folder), per_device_train_batch_size=len(rows), seed=subject.seed, **ARGUMENTS)
    trainer = LosskitTrainer(model, loss, rows, args, collate, batch_sampler="random")

    def value() -> Tensor:
        return total(loss(batch.features(loss), batch.flat_labels))

    return _trained(trainer, model, loss, value, checkpoint)


def incumbent(model: nn.Module, loss: nn.Module, subject: Subject, folder: Path, checkpoint: Path | None) -> Training:
    """Train by the trainer of sentence-transformers for the loss's model."""
    from datasets import Dataset

    from losskit import ProgressCallback

    name, package = FAMILIES[subject.family]
    family = importlib.import_module(f"sentence_transformers.{package}")
    rows = rows_of(subject.batch)
    args = getattr(family, f"{name}TrainingArguments")(
        str(folder), per_device_train_batch_size=len(rows), seed=subject.seed, **ARGUMENTS
    )
    trainer = getattr(family, f"{name}Trainer")(
        model=model,
        loss=loss,
        args=args,
        train_dataset=Dataset.from_list(rows),
        callbacks=[ProgressCallback(loss, checkpoint)] if isinstance(loss, Loss) else [],
    )

    def value() -> Tensor:
        features, labels = trainer.collect_features(trainer.data_collator(rows))
        return total(loss(features, labels))

    return _trained(trainer, model, loss, value, checkpoint)


def _trained(
    trainer: Any, model: nn.Module, loss: nn.Module, value: Callable[[], Tensor], checkpoint: Path | None
) -> Training:
    """Run a trainer, whose steps must leave the model in training.

    Raises:
        Violation: one does not.
    """
    from transformers import PrinterCallback, TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            still = [name or "itself" for name, part in model.named_modules() if not part.training]
            if still:
                message = f"step {state.global_step} leaves the model in evaluation"
                raise Violation(message, "all modules in training", still[0])

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch())
    started = _parameters(loss)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    now = _parameters(loss)
    after = _evaluated(model, value)
    _set_parameters(loss, started)
    before = _evaluated(model, value)
    _set_parameters(loss, now)
    moved = frozenset(name for name, was in started.items() if not torch.equal(was, now[name]))
    return Training(model, loss, before, after, moved)


def _evaluated(model: nn.Module, value: Callable[[], Tensor]) -> float:
    model.eval()
    try:
        with torch.no_grad():
            return float(value())
    finally:
        model.train()


def _parameters(loss: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in loss.named_parameters() if value.requires_grad}


def _set_parameters(loss: nn.Module, values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            loss.get_parameter(name).copy_(value)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the random state, the progress bars and the warnings of trainers."""
    from transformers.utils import logging

    hush: Any = logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hush.set_verbosity_error()
    hush.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            hush.enable_progress_bar()
