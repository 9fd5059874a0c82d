"""What losskit brings into other trainers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losskit.errors import LossError

from .owned import load_owned, outermost, save_owned, set_clock

__all__ = ["ProgressCallback"]


class ProgressCallback(TrainerCallback):
    """Gives losses in sentence-transformers' trainers what they have under `losskit train`.

    Sets step and progress, which draws and schedules follow, and keeps what the loss owns as
    `loss.safetensors` in every checkpoint. Scheduled, stochastic and stateful losses need it.

    Args:
        loss: the loss given to the trainer, or its dict of losses by dataset; None: the module that is trained,
            as with `losskit.Trainer`.
        checkpoint: the folder that a resumed training starts from, where it is not the one of its last step
            in `output_dir`.

    Raises:
        LossError: at the start of the training, where neither `loss` nor the trained module holds a loss of losskit.
    """

    def __init__(
        self, loss: nn.Module | Mapping[str, nn.Module] | None = None, checkpoint: str | Path | None = None
    ) -> None:
        # A dict becomes one module, so that what its losses own is saved under their datasets' names.
        self.loss = nn.ModuleDict(dict(loss)) if isinstance(loss, Mapping) else loss
        self.checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find the loss; where a training is resumed, load what it owns."""
        loss = self._loss(kwargs)
        if state.global_step:
            load_owned(loss, Path(self.checkpoint or _folder(args, state)))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set step and progress."""
        set_clock(self._loss(kwargs), seed=args.seed, step=state.global_step, steps=state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep what the loss owns beside the checkpoint."""
        if state.is_world_process_zero:
            save_owned(self._loss(kwargs), _folder(args, state))

    def _loss(self, kwargs: Mapping[str, Any]) -> nn.Module:
        loss: nn.Module = kwargs["model"] if self.loss is None else self.loss
        if next(outermost(loss), None) is None:
            raise LossError(
                "ProgressCallback", expected="a trainer whose trained module holds a loss of losskit",
                got=type(loss).__name__, fix="hand the loss over: ProgressCallback(loss)",
            )  # fmt: skip
        return loss


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
