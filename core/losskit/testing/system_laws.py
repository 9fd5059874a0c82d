"""Laws of whole systems: several processes and trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ..card import split_input
from ..execution import Direct, GradCache
from ..loss import Loss
from ..validation.findings import NotApplicable, Skipped, Violation
from .compare import Result, require_close, require_equal
from .incumbents import tiny_model
from .law import Law, law
from .ranks import WORLD, Found, Task, answers
from .subject import Subject
from .trainers import SAVED, STEPS, Trainer, Training, incumbent, ours, quiet

__all__ = ["processes", "training", "training_sentence_transformers"]

NEGATIVES = {"*": (0, 1, 3), "+": (1, 3)}
GATHERED = Direct(gather=True)
CACHED = GradCache(mini_batch_size=2, gather=True)
RESUMED = 1e-6
"""The relative error at which a resumed training counts as the whole one: the same operations, some in float32."""


@law(
    4,
    "loss",
    "wrapper",
    "similarity",
    "regularizer",
    level="full",
    cause="a gather without gradient, a factor of the number of processes, or calls that only some processes make",
)
def processes(subject: Subject) -> None:
    """Two processes give value, gradient and state of one on the joined batch, if rows are gathered.

    Where they are not, neither by the execution nor by the loss, each process gives what its rows give alone.
    """
    tasks = list(_tasks(subject))
    for task, found in zip(tasks, answers(tasks), strict=False):
        _require_same_calls(task, found)
        if task.execution.gather or any(each.collectives for each in found):
            _require_joined(task, found)
        else:
            for rank, each in enumerate(found):
                if not each.refused:
                    _require_as(f"process {rank} of {task}, beside its rows alone", task.run(rank), [each])


def _tasks(subject: Subject) -> Iterator[Task]:
    """Rows of each process for themselves, in equal shares; gathered, in unequal ones and with more negatives too."""
    rows = subject.batch.rows
    if rows < WORLD:
        raise NotApplicable("a single row cannot be shared by two processes")
    equal = replace(subject, rows=rows - rows % WORLD)
    yield Task(equal, rows // WORLD, Direct())
    if subject.plain or subject.family == "cross-encoder":  # its pairs are formed before anything is gathered
        return
    yield Task(equal, rows // WORLD, CACHED)
    form = subject.form or subject.build().formats[0]
    counts = NEGATIVES.get(split_input(form.inputs[-1])[1], (subject.negatives,))
    for negatives in counts:
        yield Task(replace(subject, form=form, negatives=negatives), 1, GATHERED)


def _require_same_calls(task: Task, found: Sequence[Found]) -> None:
    calls = [each.collectives for each in found]
    if len(set(calls)) > 1:
        raise Violation(f"{task}: the processes make different numbers of collective calls", "equal numbers", calls)


def _require_joined(task: Task, found: Sequence[Found]) -> None:
    """The mean over processes, which is what their trainer takes, is the joint batch's."""
    _require_as(f"two processes, {task}, beside one with all rows", task.run(), found)


def _require_as(what: str, expected: Found, found: Sequence[Found]) -> None:
    for number, result in enumerate(expected.results):
        require_equal(what, result, _mean([each.results[number] for each in found]))
    for rank, each in enumerate(found):
        for name, value in expected.owned.items():
            state = Result(torch.zeros(()), (each.owned[name],))
            require_equal(f"{name}, owned by process {rank}, {what}", Result(torch.zeros(()), (value,)), state)


def _mean(results: Sequence[Result]) -> Result:
    count = len(results)
    gradients = zip(*(each.gradients for each in results), strict=True)
    value = torch.stack([each.value for each in results]).sum() / count
    return Result(value, tuple(torch.stack(each).sum(0) / count for each in gradients))


@law(
    None,
    "loss",
    "wrapper",
    level="full",
    cause="a parameter that nothing reads, the model left in another mode, or state beside parameters and buffers",
)
def training(subject: Subject) -> None:
    """A few steps of `losskit.Trainer` lower the loss and move what it owns; from a checkpoint they end the same."""

    def start() -> tuple[nn.Module, nn.Module]:
        loss = subject.build()
        return loss.model, loss

    _require_trains(subject, start, ours)


@law(
    None,
    "loss",
    "wrapper",
    level="full",
    cause="what a loss reads of its batch or model is not what sentence-transformers hands over",
)
def training_sentence_transformers(subject: Subject) -> None:
    """The same in the trainer of sentence-transformers, on a tiny model of its own."""
    if find_spec("sentence_transformers") is None:
        raise Skipped("sentence-transformers is not installed")
    if subject.weights:
        raise NotApplicable("that trainer has no sample weights")
    listed = any(not isinstance(column[0], str) for column in subject.batch.columns)
    if listed and subject.family != "cross-encoder":
        raise NotApplicable("that trainer does not tokenise lists of texts")
    if subject.family == "cross-encoder" and subject.form is not None and subject.form.labels == "distribution":
        raise NotApplicable("that trainer takes lists of labels for those of lists of documents")
    make = _plain_maker(subject) if subject.plain else subject.make
    outputs = subject.build().model.outputs

    def start() -> tuple[nn.Module, nn.Module]:
        model = tiny_model(subject.family, outputs)
        torch.manual_seed(subject.seed)
        return model, make(model)

    _require_trains(subject, start, incumbent)


def _plain_maker(subject: Subject) -> Callable[[Any], nn.Module]:
    """What makes the plain module itself on a model: that trainer needs no adapter around it."""
    make: Callable[[Any], nn.Module] = subject.make.keywords["make"]  # type: ignore[attr-defined]
    return make


def _require_trains(subject: Subject, start: Callable[[], tuple[nn.Module, nn.Module]], train: Trainer) -> None:
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, quiet():
        whole = train(*start(), subject, Path(folder) / "whole", None)
        _require_learnt(whole)
        if not isinstance(whole.loss, Loss) and _owned(whole):
            return  # what plain modules own is in no checkpoint of trainers that do not know of it
        resumed = train(*start(), subject, Path(folder) / "resumed", Path(folder) / "whole" / f"checkpoint-{SAVED}")
        _require_resumed(whole.loss, resumed.loss)


def _require_learnt(found: Training) -> None:
    parameters = {name for name, each in found.loss.named_parameters() if each.requires_grad}
    owned = _owned(found)
    if not found.moved & (parameters - owned):
        raise Violation(f"{STEPS} steps leave the model as it was", "parameters that move", "none")
    still = sorted(owned & parameters - found.moved)
    if still:
        what = f"{STEPS} steps leave {still[0]}, which the loss owns, as it was"
        raise Violation(what, "a parameter that moves", f"{len(still)} that do not")
    if found.before and not found.after < found.before:
        what = f"{STEPS} steps do not lower the loss of their batch"
        raise Violation(what, f"below {found.before:.6g}", f"{found.after:.6g}")


def _require_resumed(whole: nn.Module, resumed: nn.Module) -> None:
    message = f"resumed after step {SAVED} from a checkpoint, the training ends elsewhere than without a break"
    found = resumed.state_dict()
    for name, value in whole.state_dict().items():
        if value.is_floating_point():
            require_close(f"{message}, in {name}", value, found[name], RESUMED)


def _owned(found: Training) -> set[str]:
    """The names of parameters that belong to no encoder."""
    towers = [tower for part in found.loss.modules() if isinstance(part, Loss) for tower in part.towers.values()]
    encoders = {id(each) for encoder in (found.model, *towers) for each in encoder.parameters()}
    return {name for name, each in found.loss.named_parameters() if id(each) not in encoders}


LAWS: tuple[Law, ...] = (processes, training, training_sentence_transformers)
