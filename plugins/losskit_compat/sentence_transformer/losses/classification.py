"""Softmax over classes of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from losskit import Output
from losskit.loss import Value
from losskit.protocols import Features
from losskit_plugins.losses import softmax

from ...base import Incumbent, formerly

__all__ = ["SoftmaxLoss"]

CROSS_ENTROPY = nn.CrossEntropyLoss()


class SoftmaxLoss(Incumbent, softmax.SoftmaxLoss):
    """`losskit.losses.SoftmaxLoss` under the incumbent's constructor; `loss_fct` takes logits and labels."""

    configuration = (
        "num_labels",
        "concatenation_sent_rep",
        "concatenation_sent_difference",
        "concatenation_sent_multiplication",
    )

    @formerly(sentence_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        model: Any,
        embedding_dimension: int,
        num_labels: int,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: Callable[[Tensor, Tensor], Tensor] = CROSS_ENTROPY,
    ) -> None:
        vectors = {
            "a": concatenation_sent_rep,
            "b": concatenation_sent_rep,
            "difference": concatenation_sent_difference,
            "product": concatenation_sent_multiplication,
        }
        super().__init__(model, num_labels, tuple(name for name, used in vectors.items() if used), embedding_dimension)
        self.concatenation_sent_rep = concatenation_sent_rep
        self.concatenation_sent_difference = concatenation_sent_difference
        self.concatenation_sent_multiplication = concatenation_sent_multiplication
        self.loss_fct = loss_fct

    def forward(
        self, sentence_features: Sequence[Features], labels: Tensor | None = None
    ) -> Value | tuple[list[Tensor], Tensor]:
        """The loss of a batch; without labels the embeddings of both columns, and the logits."""
        if labels is not None:
            return super().forward(sentence_features, labels)
        records = [self.encoder(dict(features)) for features in sentence_features]
        return [record.embedding for record in records], self.logits(records, slice(0, records[0].items))

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """`loss_fct` of the pairs `rows`."""
        assert labels is not None
        logits = self.logits(columns, rows)
        targets = labels[rows]
        if targets.shape != logits.shape:
            targets = targets.reshape(-1)
        return self.loss_fct(logits, targets)
