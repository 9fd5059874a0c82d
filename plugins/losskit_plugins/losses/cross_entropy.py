"""Cross-entropy: pairs classified by the logits of a cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional

from losskit import Card, Execution, Format, Loss, Output
from losskit.errors import LossError, check_number
from losskit.math import mean_over_rows, promoted
from losskit.score_loss import Activation, activated, check_activation

from ._classes import check_classes, class_targets

__all__ = ["CrossEntropyLoss", "cross_entropy"]


def cross_entropy(
    logits: Float[Tensor, "rows classes"],
    labels: Shaped[Tensor, " rows"] | Float[Tensor, "rows classes"],
    *,
    label_smoothing: float = 0.0,
    class_weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, " rows"]:
    """-sum_c w_c p_c log softmax(z)_c of each row, where p_c = (1 - e) y_c + e / classes.

    Args:
        logits: of each class.
        labels: classes, as integers, or distributions over them.
        label_smoothing: e, how much of a label is spread over all classes.
        class_weights: w; None: 1.

    >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
    tensor([0.6931])
    """
    return functional.cross_entropy(
        logits, labels, weight=class_weights, reduction="none", label_smoothing=label_smoothing
    )


class CrossEntropyLoss(Loss):
    """Classifies pairs by a cross-encoder that gives a logit for each class.

    Args:
        model: a cross-encoder with as many outputs as there are classes.
        label_smoothing: from 0 to 1, how much of a label is spread over all classes.
        class_weights: factor of what the rows of each class cost; the mean over classes is then weighted by them.
        activation: applied to the logits first; a name, or from Python any function.
        execution: how records come about.

    Raises:
        LossError: an encoder with a single output, or options that are out of range.
    """

    card = Card(
        formats=[
            Format(inputs=["text", "text"], labels="class", outputs="classes"),
            Format(inputs=["text", "text"], labels="distribution", outputs="classes"),
        ],
        encoders=["cross-encoder"],
        memory="B",
        formula="mean of -sum_c y_c log softmax(z)_c",
        citation="""@inproceedings{devlin2019bert,
  title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Proceedings of NAACL-HLT},
  year = {2019}
}""",
        requirements=["Classes are integers from 0 to num_labels - 1, or a distribution over them per row."],
        relations=["softmax classifies pairs of embeddings, by a layer that the loss owns."],
    )
    uses_weights = True
    compares_rows = False

    def __init__(
        self,
        model: Any = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Tensor | None = None,
        activation: Activation = "identity",
        *,
        execution: Execution | None = None,
    ) -> None:
        super().__init__(model, execution=execution)
        self.label_smoothing = label_smoothing
        name = type(self).__name__
        self.class_weights = None if class_weights is None else _numbers(f"{name}.class_weights", class_weights)
        self.activation: Activation = activation
        check_activation(f"{name}.activation", activation)
        check_number(f"{name}.label_smoothing", label_smoothing, "0 or more")
        if label_smoothing > 1:
            raise LossError(f"{name}.label_smoothing", expected="1 or less", got=repr(label_smoothing))
        for weight in self.class_weights or ():
            check_number(f"{name}.class_weights", weight, "a positive number")
        classes = self._classes()
        if classes == 1:
            fix = "give the cross-encoder num_labels, or choose binary-cross-entropy"
            raise LossError(f"{name}.model", expected="an encoder with an output for each class", got="one", fix=fix)
        if classes is not None:
            self._check_class_weights(classes)

    def check_labels(self, columns: int, labels: Tensor) -> None:
        """Refuse classes that there are not."""
        super().check_labels(columns, labels)
        check_classes(type(self).__name__, labels, self._classes())

    def denominator(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> int | Tensor:
        """The weights of the classes of the rows; of distributions, and without weights, the number of rows."""
        weights = self._class_weights(columns)
        assert labels is not None
        if weights is None or labels.is_floating_point():
            return rows.stop - rows.start
        return weights[labels.reshape(-1)[rows].long()].sum()

    def compute(self, columns: Sequence[Output], labels: Tensor | None, rows: slice) -> Tensor:
        """The cross-entropy of the pairs `rows`."""
        assert labels is not None
        logits = self.logits(columns, rows)
        targets = self._targets(labels, logits.shape[1])[rows]
        if len(targets) != len(logits):
            raise LossError(
                f"the batch for {type(self).__name__}",
                expected="two columns, with one text per row in each",
                got=f"{len(logits)} pairs of {len(targets)} rows",
            )
        if targets.ndim == 2:
            targets = targets.to(logits.dtype)
        weights = self._class_weights(columns)
        losses = cross_entropy(logits, targets, label_smoothing=self.label_smoothing, class_weights=weights)
        mean = mean_over_rows(losses, columns[0][rows].weight)
        count = losses.shape[0]
        return mean * (count / self.denominator(columns, labels, rows)) if weights is not None and count else mean

    def logits(self, columns: Sequence[Output], rows: slice) -> Float[Tensor, "rows classes"]:
        """The activated logits of the pairs `rows`, in float32 at least."""
        logits = columns[0][rows].embedding
        if logits.ndim != 2:
            raise LossError(
                f"logits for {type(self).__name__}",
                expected="one per class and pair",
                got="one per pair",
                fix="give the cross-encoder num_labels, or choose binary-cross-entropy",
            )
        return activated(self.activation, promoted(logits))

    def _targets(self, labels: Tensor, classes: int) -> Tensor:
        """What the logits of so many classes are to be."""
        name = type(self).__name__
        # Where the encoder does not say how many there are, it is known only now.
        if labels.is_cpu and self._classes() is None and not torch.compiler.is_compiling():
            check_classes(name, labels, classes)
        return class_targets(name, labels, classes)

    def _classes(self) -> int | None:
        """How many classes there are; None where the encoder does not say."""
        return None if self.model is None else getattr(self.encoder, "num_labels", None)

    def _class_weights(self, columns: Sequence[Output]) -> Tensor | None:
        """Of each class of the logits."""
        logits = columns[0].embedding
        if self.class_weights is None:
            return None
        self._check_class_weights(logits.shape[1])
        return torch.tensor(self.class_weights, dtype=promoted(logits).dtype, device=logits.device)

    def _check_class_weights(self, classes: int) -> None:
        if self.class_weights is not None and len(self.class_weights) != classes:
            got = str(len(self.class_weights))
            raise LossError(
                f"{type(self).__name__}.class_weights", expected=f"one for each of {classes} classes", got=got
            )


def _numbers(option: str, values: Sequence[float] | Tensor) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except (TypeError, ValueError):
        raise LossError(option, expected="a number for each class", got=repr(values)) from None
