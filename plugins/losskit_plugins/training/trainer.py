"""`Trainer`: transformers' Trainer with a loss as the trained module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments
from transformers import Trainer as TransformersTrainer

from losskit import DataError, Encoder, Loss, LossError
from losskit.adapt import view
from losskit_plugins.data.class_batches import ClassBatchSampler
from losskit_plugins.data.collator import Collator
from losskit_plugins.data.columns import LABEL_COLUMNS, Match
from losskit_plugins.data.samplers import NoDuplicatesBatchSampler

from .averages import Averages
from .diagnostics import Diagnostics
from .owned import load_owned, save_owned, set_clock
from .totals import Totals

__all__ = ["Evaluation", "Trainer", "needs_classes", "needs_distinct_texts"]

Evaluation = Callable[[Encoder], Mapping[str, float]]
"""An encoder to its metrics by name."""

UNSERVED = {
    "fsdp": "sharded parameters cannot be saved as an encoder; use DistributedDataParallel",
    "deepspeed": "sharded parameters cannot be saved as an encoder; use DistributedDataParallel",
    "label_smoothing_factor": "it smooths the labels of a classifier",
    "neftune_noise_alpha": "it needs a model with input embeddings of its own",
    "use_liger_kernel": "it patches language models",
    "auto_find_batch_size": "a smaller batch would change an in-batch loss; use execution grad-cache",
    "push_to_hub": "upload the finished folder with `hf upload`",
}
"""Training arguments that cannot hold here, and why."""

BATCH_SAMPLERS = ("auto", "no-duplicates", "classes", "random")


class Trainer(TransformersTrainer):
    """Trains an encoder with a loss; the loss module is what is trained.

    So what the loss owns (parameters, memory) is synchronised over processes, clipped, saved and resumed. A
    checkpoint is a model folder with `loss.safetensors` and the trainer's state beside it.

    Args:
        model: the encoder; None where the loss was built with it.
        loss: a `losskit.Loss`, or a module that meets `LossProtocol` with the encoder as its child `model`.
        train_dataset: rows by column name.
        args: transformers' training arguments.
        collator: rows to `{"inputs": [features per column], "labels": tensor}`; None: one for this loss and
            columns of the names in its card.
        evaluation: the encoder to metrics by name, asked wherever `args` schedule an evaluation.
        batch_sampler: "no-duplicates" draws batches in which no text occurs twice, "classes" batches with several
            texts of each of their classes, "random" any; "auto" takes the first where other rows serve as negatives
            (`needs_distinct_texts`), and the second where texts are compared by their classes (`needs_classes`).
        samples_per_class: how many texts of a class stand in a batch of "classes".
        callbacks: further ones of transformers.
        optimizers: an optimizer and a schedule instead of those of `args`.

    Raises:
        LossError: no loss, another model than the loss has, or arguments that cannot hold here.
    """

    def __init__(
        self,
        model: Any = None,
        loss: nn.Module | None = None,
        train_dataset: Any = None,
        args: TrainingArguments | None = None,
        collator: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None = None,
        *,
        evaluation: Evaluation | None = None,
        batch_sampler: str = "auto",
        samples_per_class: int = 4,
        callbacks: Sequence[TrainerCallback] = (),
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
    ) -> None:
        loss = _with_model(loss, model)
        args = _served(args if args is not None else TrainingArguments(), loss)
        self.evaluation = evaluation
        self.batch_sampler = batch_sampler
        self.samples_per_class = samples_per_class
        self.totals = Totals()
        self._averages = Averages()
        self._diagnostics = Diagnostics(loss) if isinstance(loss, Loss) else None
        super().__init__(
            model=loss,
            args=args,
            data_collator=collator if collator is not None else Collator(loss),
            train_dataset=train_dataset,
            # transformers asks for a data set wherever evaluation is scheduled; ours is part of `evaluation`.
            eval_dataset=evaluation,
            callbacks=[self.totals, *callbacks],
            optimizers=optimizers,
        )
        self.remove_callback(PrinterCallback)

    @property
    def encoder(self) -> Encoder:
        """The trained encoder."""
        return self.model.encoder if isinstance(self.model, Loss) else view(self.model.model)

    # Data

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in an order that seed and epoch determine."""
        # Before workers get their copies of the loss, which draw the pairs of cross-encoders by the seed.
        set_clock(self.model, seed=self.args.seed, step=self.state.global_step, steps=self.state.max_steps)
        batches = None if isinstance(self.train_dataset, IterableDataset) else self._batches()
        if batches is None:
            return super().get_train_dataloader()
        args = self.args
        self.add_callback(_Epochs(batches))
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _batches(self) -> NoDuplicatesBatchSampler | ClassBatchSampler | None:
        """The row numbers of each batch; None: any rows will do."""
        chosen, args = self.batch_sampler, self.args
        if chosen not in BATCH_SAMPLERS:
            expected = f"{', '.join(BATCH_SAMPLERS[:-1])} or {BATCH_SAMPLERS[-1]}"
            raise LossError("batch_sampler", expected=expected, got=repr(chosen))
        if chosen == "auto":
            distinct = "no-duplicates" if needs_distinct_texts(self.model) else "random"
            chosen = "classes" if needs_classes(self.model) else distinct
        size, shards = self._train_batch_size, args.world_size
        seed = args.data_seed if args.data_seed is not None else args.seed
        if chosen == "classes":
            return ClassBatchSampler(self._classes(), size, self.samples_per_class, shards=shards, seed=seed)
        if chosen == "no-duplicates":
            columns, drop_last = self._text_columns(), args.dataloader_drop_last
            return NoDuplicatesBatchSampler(
                self.train_dataset, size, columns, shards=shards, drop_last=drop_last, seed=seed
            )
        return None

    @property
    def _matched(self) -> Match | None:
        """Which columns hold what, as far as the collator says so."""
        return self.data_collator.matched if isinstance(self.data_collator, Collator) else None

    def _text_columns(self) -> list[str] | None:
        """Which columns hold texts, if that is known."""
        return None if self._matched is None else [column.data for column in self._matched.columns]

    def _classes(self) -> Sequence[Hashable]:
        """The class of each row."""
        label = None if self._matched is None else self._matched.label
        rows: Any = self.train_dataset
        found = list(rows[0]) if len(rows) else []
        name = next((each for each in LABEL_COLUMNS if each in found), None) if label is None else label.data
        if name is None:
            got = ", ".join(found) or "none"
            raise DataError("the training data", expected="a column of classes, called label", got=f"columns {got}")
        return [row[name] for row in rows] if isinstance(rows, Sequence) else list(rows[name])

    def _remove_unused_columns(self, dataset: Any, description: str | None = None) -> Any:
        return dataset  # The collator knows its columns; the loss's signature does not.

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        return data_collator

    # Steps

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """One forward and backward, the loss knowing where the training stands."""
        set_clock(self.model, seed=self.args.seed, step=self.state.global_step, steps=self.state.max_steps)
        if self._diagnostics is not None:
            self._diagnostics.forget()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.totals.add(loss)
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The sum of the loss's components, which are kept for the next log.

        Raises:
            LossError: it is not finite.
        """
        value = model(inputs["inputs"], inputs.get("labels"))
        components = value if isinstance(value, dict) else {}
        total = torch.stack([*components.values()]).sum() if components else value
        if not bool(torch.isfinite(total)):
            raise self._not_finite(total, components)
        self._averages.add(components)
        return (total, value) if return_outputs else total

    def _not_finite(self, total: Tensor, components: Mapping[str, Tensor]) -> LossError:
        bad = [name for name, value in components.items() if not bool(torch.isfinite(value))]
        where = f" in {', '.join(bad)}" if bad else ""
        return LossError(
            f"{type(self.model).__name__} at step {self.state.global_step + 1}",
            expected="a finite value",
            got=f"{total.item()}{where}",
            fix="lower the learning rate, warm up longer, or train in bf16 or fp32 instead of fp16",
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; beside the training loss also its components and the diagnostics of the last batch."""
        if "loss" in logs:
            measured = self._diagnostics.measure() if self._diagnostics is not None else {}
            logs = {**self._averages.pop(), **logs, **measured}
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metrics of `evaluation`, logged.

        Args:
            eval_dataset: an evaluation instead of the trainer's own.
            ignore_keys: taken for the sake of the base class, and unused.
            metric_key_prefix: put before each name.

        Raises:
            LossError: there is nothing to evaluate with.
        """
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measure(eval_dataset).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, evaluation: Evaluation | None = None) -> dict[str, float]:
        """The metrics of an evaluation, by default the trainer's own; found by one process and told to every other.

        Raises:
            LossError: there is nothing to evaluate with.
        """
        evaluation = evaluation if evaluation is not None else self.evaluation
        if evaluation is None:
            raise LossError("Trainer.evaluation", expected="a function from encoder to metrics", got="None")
        found = [dict(evaluation(self.encoder)) if self.is_world_process_zero() else {}]
        broadcast_object_list(found)
        return found[0]

    def figures(self) -> dict[str, float]:
        """Samples per second and the mean loss of the training so far, over all parts of a resumed one."""
        counted = self.totals.steps / max(1, self.state.global_step)
        samples = len(self.train_dataset) * float(self.state.epoch or 0) * counted
        return {"samples_per_second": samples / self.totals.seconds, "loss": self.totals.mean_loss}

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.totals.read()
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save(folder)
        save_owned(self.model, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved = type(self.encoder).load(folder)
        _module(self.encoder).load_state_dict(_module(saved).state_dict())
        load_owned(self.model, folder)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


class _Epochs(TrainerCallback):
    """Tells a batch sampler the epoch: in a resumed training of several processes nobody else reaches it."""

    def __init__(self, batches: NoDuplicatesBatchSampler | ClassBatchSampler) -> None:
        self.batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The epoch that is about to be drawn, or drawn on."""
        self.batches.set_epoch(int(state.epoch or 0))


def _module(encoder: Any) -> nn.Module:
    """What holds an encoder's parameters: itself, or the model that it is a view of."""
    return encoder if isinstance(encoder, nn.Module) else encoder.model


def needs_distinct_texts(loss: nn.Module) -> bool:
    """Whether a text that occurs twice in a batch would be taken for its own negative.

    So it is where the loss of a row is formed against the other rows and no label says which of them are like it:
    formats without labels, `row_wise`, "the mean over rows given all columns", and `compares_rows`.
    """
    if not (isinstance(loss, Loss) and loss.row_wise and any(each.labels == "none" for each in loss.formats)):
        return False
    return any(part.compares_rows for _, part in loss.tree() if not part.inner)


def needs_classes(loss: nn.Module) -> bool:
    """Whether single texts are compared with each other by their classes, so that a class must recur in a batch."""
    formats = loss.formats if isinstance(loss, Loss) else ()
    return bool(formats) and all(each.labels == "class" and each.arity == (1, 1) for each in formats)


def _with_model(loss: nn.Module | None, model: Any) -> nn.Module:
    """The loss with its model, as the one module that is trained."""
    if not isinstance(loss, nn.Module):
        raise LossError("Trainer.loss", expected="a loss", got=type(loss).__name__, fix="Trainer(model, loss, ...)")
    if loss.model is None:
        for _, each in loss.tree() if isinstance(loss, Loss) else [("", loss)]:
            each.model = model
    elif model is not None and loss.model is not model:
        raise LossError(
            "Trainer.model", expected=f"the model of {type(loss).__name__}", got="another one",
            fix="leave out the model, or build the loss with this one",
        )  # fmt: skip
    return loss


def _served(args: TrainingArguments, loss: nn.Module) -> TrainingArguments:
    """A copy of the arguments as transformers' Trainer shall see them."""
    for name, why in UNSERVED.items():
        if getattr(args, name):
            raise LossError(f"training argument {name}", expected="it left out", got=repr(getattr(args, name)), fix=why)
    args = copy.copy(args)
    args.logging_nan_inf_filter = False  # What is not finite is an error here, and never replaced.
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.device.type != "cpu"
    if args.activation_checkpointing:
        options = {"use_reentrant": False, **(args.activation_checkpointing_kwargs or {})}
        for module in loss.modules():
            if isinstance(module, PreTrainedModel):
                module.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        args.activation_checkpointing = False  # transformers would look for the method on the loss.
    if args.n_gpu > 1:
        args._n_gpu = 1  # DataParallel would cut the batch, and so the negatives; torchrun starts several processes.
    return args
