"""Losses of the user's own, plain modules written for the incumbent, inside the compat modifiers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from losskit import Loss, Output
from losskit.errors import LossError
from losskit.loss import Value

__all__ = ["ForeignLoss", "adopted"]


def adopted(model: Any, loss: Any) -> Loss:
    """The loss itself if it is one of losskit's, else what makes a plain module one."""
    return loss if isinstance(loss, Loss) or not isinstance(loss, nn.Module) else ForeignLoss(model, loss)


class ForeignLoss(Loss):
    """A module whose `forward(sentence_features, labels)` asks its child `model` for `sentence_embedding`.

    It is handed records as features, and for as long as it runs a model that returns them as they are.

    Args:
        model: the encoder.
        module: the loss.
    """

    def __init__(self, model: Any, module: nn.Module) -> None:
        super().__init__(model)
        self.module = module
        self._echo = _Echo()

    def __getattr__(self, name: str) -> Any:
        """What the loss itself lacks is the module's: scripts read its settings there."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """What the module says of all tuples."""
        features = [{"sentence_embedding": column.embedding} for column in columns]
        with self._handing_on():
            value: Value = self.module(features, labels)
        return value

    def get_config_dict(self) -> dict[str, Any]:
        """That of the module, if it has one."""
        own = getattr(self.module, "get_config_dict", dict)
        config: dict[str, Any] = own()
        return config

    @contextmanager
    def _handing_on(self) -> Iterator[None]:
        """With a model that returns its features, in the module and all that holds the encoder inside it."""
        encoder = self.model
        held = [each for each in self.module.modules() if each._modules.get("model") is encoder]
        if encoder is None or not held:
            raise LossError(
                f"{type(self.module).__name__} inside a modifier",
                expected="a module whose encoder is its child `model`",
                got="none of that name",
                fix="derive the loss from losskit.Loss",
            )
        self._echo.train(encoder.training)
        try:
            for owner in held:
                owner.model = self._echo
            yield
        finally:
            for owner in held:
                owner.model = encoder


class _Echo(nn.Module):
    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        return features
