"""`Wrapper`: a loss around a loss, which takes and returns what losses do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from .card import Format
from .errors import LossError
from .execution import Execution
from .loss import Loss
from .output import Output

__all__ = ["Wrapper", "prefixed"]


class Wrapper(Loss):
    """Base of wrappers around one loss; all it does not say itself is what the inner loss says.

    Write `compute` in terms of `self.loss.compute`, called with changed records.

    Args:
        model: the encoder; the same that the inner loss has.
        loss: what is wrapped.
        execution: rules the inner loss too.

    Raises:
        LossError: the inner loss has another model or another execution, or is no `losskit.Loss`.
    """

    identity: ClassVar[Mapping[str, Any] | None] = None
    """Options with which it gives what the inner loss gives, on embeddings of 8 dimensions, if there are any."""

    def __init__(self, model: Any, loss: Loss, *, execution: Execution | None = None) -> None:
        super().__init__(model, execution=execution)
        self.loss = loss
        self._check_inner()

    @property
    def inner(self) -> Mapping[str, Loss]:
        """The wrapped loss."""
        return {"loss": self.loss}

    @property
    def formats(self) -> tuple[Format, ...]:
        """Those of the inner loss."""
        return self.loss.formats

    @property
    def needs(self) -> tuple[str, ...]:
        """What it and the inner loss read of records."""
        return tuple(dict.fromkeys((*super().needs, *self.loss.needs)))

    @property
    def reads(self) -> Mapping[str, Sequence[int] | None] | None:
        """As the inner loss."""
        return self.loss.reads

    @property
    def row_wise(self) -> bool:
        """As the inner loss."""
        return self.loss.row_wise

    @property
    def fixed_dimension(self) -> bool:
        """As the inner loss."""
        return self.loss.fixed_dimension

    @property
    def takes_weights(self) -> bool:
        """As the inner loss."""
        return self.loss.takes_weights

    def denominator(
        self, columns: Sequence[Output], labels: Tensor | None, rows: slice
    ) -> int | Tensor | dict[str, Tensor]:
        """As the inner loss."""
        return self.loss.denominator(columns, labels, rows)

    def observe(self, columns: list[Output], labels: Tensor | None) -> tuple[list[Output], Tensor | None]:
        """As the inner loss."""
        return self.loss.observe(columns, labels)

    def pairs(self, columns: Sequence[Any], drawn: Any = None) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """As the inner loss."""
        return self.loss.pairs(columns, self.loss.drawn)

    def _check_inner(self) -> None:
        name = type(self).__name__
        for path, loss in self.inner.items():
            if not isinstance(loss, Loss):
                raise LossError(
                    f"{name}.{path}",
                    expected="a losskit.Loss",
                    got=type(loss).__name__,
                    fix="a plain module can train, but not be wrapped: derive it from losskit.Loss",
                )
            if loss.model is not self.model:
                raise LossError(
                    f"{name}.{path}",
                    expected="the model that the wrapper has",
                    got="another model",
                    fix="build both with the same model object",
                )
        self._check_encoders()
        values = {loss._execution for _, loss in self.tree() if loss._execution is not None}
        if len(values) > 1:
            raise LossError(
                f"{name}.execution",
                expected="one value for a loss and all it wraps",
                got=" and ".join(sorted(map(repr, values))),
                fix="give it to the outermost loss only",
            )

    def _check_encoders(self) -> None:
        found: dict[str, Any] = {}
        for _, loss in self.tree():
            for key, encoder in {**loss.frozen, **loss.towers}.items():
                if found.setdefault(key, encoder) is not encoder:
                    raise LossError(
                        f"{type(self).__name__}: the encoder {key!r}",
                        expected="one encoder of that name in a tree of losses",
                        got="two",
                        fix="give both losses the same object, or in a recipe the same expression",
                    )


def prefixed(prefix: str, value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """The components of a wrapped loss, or their denominators, under a wrapper's prefix.

    >>> import torch
    >>> prefixed("matryoshka_64", torch.tensor(1.0))
    {'matryoshka_64': tensor(1.)}
    """
    if not isinstance(value, dict):
        return {prefix: value}
    return {f"{prefix}/{key}" if key else prefix: each for key, each in value.items()}
