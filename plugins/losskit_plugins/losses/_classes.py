"""What losses over classes share: labels that are classes, or distributions over them."""

from __future__ import annotations

import math

from torch import Tensor

from losskit.errors import LossError


def check_classes(loss: str, labels: Tensor, classes: int | None) -> None:
    """Refuse classes that there are not, and distributions that are none, among labels on the CPU.

    Args:
        loss: its name.
        labels: classes, or distributions, whose sums are not looked at.
        classes: how many there are; None: not known.

    Raises:
        LossError: names the first that is out of range.
    """
    if labels.is_floating_point():
        lowest, highest = map(float, labels.aminmax())
        if not 0 <= lowest <= highest < math.inf:
            got = f"some from {lowest:g} to {highest:g}"
            raise LossError(f"labels for {loss}", expected="classes, or probabilities", got=got)
        return
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or (classes is not None and high >= classes):
        raise LossError(
            f"labels for {loss}",
            expected="classes from 0 on" if classes is None else f"classes from 0 to {classes - 1}",
            got=str(low if low < 0 else high),
            fix="set num_labels to the number of classes, and count them from 0",
        )


def class_targets(loss: str, labels: Tensor, classes: int) -> Tensor:
    """Classes [n], or distributions [n, classes].

    Raises:
        LossError: labels of another shape or type.
    """
    if labels.is_floating_point() and labels.ndim == 2 and labels.shape[1] == classes:
        return labels
    if labels.is_floating_point() or labels.numel() != labels.shape[0]:
        raise LossError(
            f"labels for {loss}",
            expected=f"of each row its class as an integer, or a distribution over the {classes} classes",
            got=f"{str(labels.dtype).removeprefix('torch.')} of shape {list(labels.shape)}",
            fix="set num_labels to the number of classes",
        )
    return labels.reshape(-1).long()
