"""What the incumbent's losses of cross-encoders share: activations, mini-batches, and how they describe themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from losskit import Execution, GradCache
from losskit.adapt import DictEncoder
from losskit.errors import LossError
from losskit.protocols import Encoder

from ..base import Incumbent
from ..functions import full_name

__all__ = ["IDENTITY", "Activation", "Criterion", "CrossEncoderLoss", "Listwise", "in_mini_batches"]

IDENTITY = nn.Identity()

Activation = nn.Module | Callable[[Tensor], Tensor] | None


class CrossEncoderLoss(Incumbent):
    """A loss of a cross-encoder's logits, to which `activation_fn` is applied first."""

    configuration = ("activation_fn",)
    outputs: ClassVar[int | None] = 1
    """How many logits there are to a pair; None: any number."""

    def __init__(self, model: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(model, *arguments, **options)
        if model is None:
            return
        name, encoder = type(self).__name__, self.encoder
        if encoder.family != "cross-encoder":
            got = f"{type(model).__name__}, which is {encoder.family}"
            fix = "take the losses of its own family, or losskit.losses, which work with every encoder"
            raise LossError(f"{name}.model", expected="a cross-encoder", got=got, fix=fix)
        outputs = getattr(model, "num_labels", self.outputs)
        if self.outputs not in (None, outputs):
            raise LossError(f"{name}.model", expected=f"num_labels={self.outputs}", got=f"num_labels={outputs}")

    def view(self, model: Any) -> Encoder:
        """A model seen as an encoder; one that does not say what it is scores pairs."""
        seen = super().view(model)
        return Scorer(seen.module) if type(seen) is DictEncoder else seen

    @property
    def activation_fn(self) -> Activation:
        """What is applied to the logits."""
        return self.activation

    @activation_fn.setter
    def activation_fn(self, function: Activation) -> None:
        self.exchange("activation", IDENTITY if function is None else function)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as model cards print them: modules by their full names."""
        values = {name: getattr(self, name) for name in self.configuration}
        return {name: full_name(value) if callable(value) else value for name, value in values.items()}


class Listwise(CrossEncoderLoss):
    """A loss on lists of documents, with `mini_batch_size`."""

    configuration = ("activation_fn", "mini_batch_size")

    @property
    def mini_batch_size(self) -> int | None:
        """Pairs per forward of the encoder, with gradient caching; all at once where it is no positive number."""
        return self._mini_batch_size

    @mini_batch_size.setter
    def mini_batch_size(self, size: int | None) -> None:
        self._mini_batch_size = size
        self._execution = in_mini_batches(size)


class Criterion(CrossEncoderLoss):
    """A loss on one text per row and column that ends in a module of torch, with whatever was set there."""

    fewest: ClassVar[int] = 2
    most: ClassVar[int | None] = 2
    """How many columns there are."""

    @property
    def row_wise(self) -> bool:
        """The module may add up, or weigh classes."""
        return False

    @property
    def takes_weights(self) -> bool:
        """The module takes none."""
        return False

    def pairs(self, columns: Sequence[Any], drawn: Any = None) -> tuple[list[tuple[str, str]], tuple[int, ...]]:
        """The first column with each other column."""
        count, wanted = len(columns), f"{self.fewest} columns" + ("" if self.most else " or more")
        listed = any(column and not isinstance(column[0], str) for column in columns)
        if listed or count < self.fewest or (self.most is not None and count > self.most):
            got = "a list of texts per row" if listed else f"{count} columns"
            raise LossError(f"the batch for {type(self).__name__}", expected=f"{wanted} of one text per row", got=got)
        return super().pairs(columns, drawn)


class Scorer(DictEncoder):
    """A module that returns scores and does not say what it is."""

    @property
    def family(self) -> str:
        """The module's own, else that of a cross-encoder."""
        return str(getattr(self.module, "family", "cross-encoder"))


def in_mini_batches(size: int | None) -> Execution | None:
    """The execution of `mini_batch_size`; None leaves it to a loss around it, where the size is no positive number."""
    return GradCache(mini_batch_size=size) if size is not None and size > 0 else None
