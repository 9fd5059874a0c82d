"""What the incumbent's losses of sparse encoders share: how models are seen, and losses of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Loss, Output
from losskit.adapt import DictEncoder
from losskit.loss import Value
from losskit.protocols import Encoder
from losskit_plugins.encoders.adapters.sparse import SparseEncoderView

from ..base import Incumbent
from ..foreign import ForeignLoss, adopted

__all__ = ["PARTS", "SparseLoss", "inner_loss"]

PARTS = SparseEncoderView.keys
"""Parts of a record, as the incumbent's sparse auto-encoder names them."""


class SparseLoss(Incumbent):
    """A loss of sparse embeddings. Unlike the incumbent's it trains by itself too."""

    def view(self, model: Any) -> Encoder:
        """A model seen as an encoder; one that does not say what it is gives sparse embeddings."""
        seen = super().view(model)
        return SparseModule(seen.module) if type(seen) is DictEncoder else seen

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Value:
        """The loss of embeddings, one tensor per column, of a sparse layout too."""
        return super().compute_loss_from_embeddings([each.to_dense() for each in embeddings], labels)


class SparseModule(DictEncoder):
    """A module that returns sparse embeddings, with reconstructions under the incumbent's names."""

    @property
    def family(self) -> str:
        """The module's own, else sparse."""
        return str(getattr(self.module, "family", "sparse"))

    def _parts(self, found: Mapping[str, Any], needs: Sequence[str]) -> dict[str, Any]:
        theirs = {need: PARTS[need] for need in needs if PARTS.get(need) in found}
        parts = {need: found[name] for need, name in theirs.items() if found[name] is not None}
        return parts | super()._parts(found, [need for need in needs if need not in theirs])


class EmbeddingLoss(ForeignLoss):
    """A module whose `compute_loss_from_embeddings(embeddings, labels)` is the loss inside SpladeLoss and CSRLoss."""

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Value:
        """What the module says of all tuples."""
        value: Value = self.module.compute_loss_from_embeddings([column.embedding for column in columns], labels)
        return value


def inner_loss(model: Any, loss: nn.Module) -> Loss:
    """The loss inside SpladeLoss and CSRLoss: one of losskit's, or what makes a plain module one."""
    if getattr(loss, "compute_loss_from_embeddings", None) is None or isinstance(loss, Loss):
        return adopted(model, loss)
    return EmbeddingLoss(model, loss)
