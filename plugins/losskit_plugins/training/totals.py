"""Loss and time of a whole training, over all its parts."""

from __future__ import annotations

import time
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

__all__ = ["Totals"]


class Totals(TrainerCallback, ExportableState):
    """Counts the steps of a training with their losses and seconds; a resumed one counts on from its checkpoint.

    What came after the last checkpoint of an interrupted part is done again, and counts once.

    >>> totals = Totals()
    >>> totals.mean_loss
    0.0
    """

    def __init__(self) -> None:
        self.steps = 0
        self.loss = 0.0
        self._unread: Tensor | float = 0.0
        self._seconds = 0.0
        self._since: float | None = None

    def add(self, loss: Tensor) -> None:
        """Count the loss of one forward, a part of its step's; nothing is read from the device."""
        self._unread = self._unread + loss.detach().float()

    @property
    def seconds(self) -> float:
        """How long the training has taken until now, or took."""
        return self._seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    @property
    def mean_loss(self) -> float:
        """The mean over the steps that were read; 0 before the first."""
        return self.loss / max(1, self.steps)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as of the last `read`."""
        return {"args": {}, "attributes": {"steps": self.steps, "loss": self.loss, "seconds": self.seconds}}

    def read(self) -> None:
        """Take in the losses so far, the mean over all processes; every process calls it."""
        parts = gather_object([float(self._unread)])
        self.loss, self._unread = self.loss + sum(parts) / len(parts), 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on from the checkpoint; from one without totals, or from none, at nothing."""
        fresh = Totals().state()
        found = fresh if state.global_step == 0 else state.stateful_callbacks.setdefault(type(self).__name__, fresh)
        self.steps, self.loss, self._seconds = (found["attributes"][name] for name in ("steps", "loss", "seconds"))
        self._unread, self._since = 0.0, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count one step."""
        self.steps += 1

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Read the losses, now that the device is waited for."""
        self.read()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the last losses, and stop the clock."""
        self.read()
        self._seconds, self._since = self.seconds, None
