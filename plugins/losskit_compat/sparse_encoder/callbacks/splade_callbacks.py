"""The schedule of the weights of SpladeLoss, as a callback of a trainer.

The incumbent's trainer adds one for its own SpladeLoss; for ours it is given to the trainer:
`SparseEncoderTrainer(..., loss=loss, callbacks=[SpladeRegularizerWeightSchedulerCallback(loss)])`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from losskit.errors import LossError
from losskit_plugins.wrappers.schedule import scheduled
from losskit_plugins.wrappers.splade import CONTROLLED, SpladeLoss

__all__ = ["SchedulerType", "SpladeRegularizerWeightSchedulerCallback"]


class SchedulerType(Enum):
    """How a weight rises from 0."""

    LINEAR = "linear"
    QUADRATIC = "quadratic"


class SpladeRegularizerWeightSchedulerCallback(TrainerCallback):
    """Lets the weights of a SpladeLoss rise from 0 to what they are, in the first part of a training.

    Between steps, and so in evaluation and in what is saved, they stand at their full values.

    Args:
        loss: whose weights are numbers.
        scheduler_type: "quadratic" or "linear".
        warmup_ratio: the part of the training in which they rise.

    Raises:
        LossError: another loss, an unknown type, or a part that is none.
    """

    def __init__(
        self,
        loss: SpladeLoss,
        scheduler_type: str | SchedulerType = SchedulerType.QUADRATIC,
        warmup_ratio: float = 1 / 3,
    ) -> None:
        name = type(self).__name__
        if not isinstance(loss, SpladeLoss):
            raise LossError(f"{name}.loss", expected="a SpladeLoss", got=type(loss).__name__)
        types = [each.value for each in SchedulerType]
        chosen = str(scheduler_type.value if isinstance(scheduler_type, Enum) else scheduler_type).lower()
        if chosen not in types:
            raise LossError(f"{name}.scheduler_type", expected=" or ".join(types), got=repr(scheduler_type))
        if not 0 < warmup_ratio <= 1:
            raise LossError(f"{name}.warmup_ratio", expected="a share in (0, 1]", got=repr(warmup_ratio))
        self.loss = loss
        self.scheduler_type = SchedulerType(chosen)
        self.warmup_ratio = warmup_ratio
        self.max_document_regularizer_weight = loss.document_regularizer_weight
        self.max_query_regularizer_weight = loss.query_regularizer_weight
        for weight, value in self._full().items():
            if isinstance(value, Mapping):
                fix = "leave this callback out"
                raise LossError(f"{name}.loss.{weight}", expected="a number", got="a schedule of its own", fix=fix)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set what the schedule says."""
        self._set(self._share(state))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Set full weights."""
        self._set(1.0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the weights of the step that is over to the logs, for the callbacks that come after this one."""
        share = self._share(state, ago=1)
        for name, weight in self._full().items():
            if logs is not None:
                logs[name] = share * weight

    def _share(self, state: TrainerState, ago: int = 0) -> float:
        """The share of the weights in the step that begins, or in one so many steps ago."""
        warmup = max(1, int(state.max_steps * self.warmup_ratio))
        passed = min(1.0, max(0, state.global_step - ago) / warmup)
        return scheduled({"schedule": self.scheduler_type.value}, passed)

    def _set(self, share: float) -> None:
        for name, weight in self._full().items():
            setattr(self.loss, name, share * weight)

    def _full(self) -> dict[str, float]:
        """The full weights of the penalties that there are."""
        names = [f"{role}_regularizer_weight" for role in CONTROLLED]
        found = {name: getattr(self, f"max_{name}") for name in names}
        return {name: weight for name, weight in found.items() if weight is not None}
