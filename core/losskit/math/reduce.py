"""Reductions that define the empty and the all-masked case and keep gradients finite."""

from __future__ import annotations

from torch import Tensor

__all__ = ["masked_log_softmax", "masked_mean", "masked_softmax", "mean_over_rows"]


def masked_mean(values: Tensor, where: Tensor, dim: int | None = None) -> Tensor:
    """The mean of the values where the mask is True; 0, connected, where it never is.

    >>> import torch
    >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    kept = values.where(where, values.new_zeros(()))
    if dim is None:
        return kept.sum() / where.sum().clamp(min=1)
    return kept.sum(dim) / where.sum(dim).clamp(min=1)


def mean_over_rows(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of w_i l_i over rows [n], the weights being constants; 0, connected, of no rows.

    Of rows of k terms each, [n, k], l_i is the mean of its terms.

    >>> import torch
    >>> mean_over_rows(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    tensor(3.5000)
    """
    if weights is not None:
        weights = weights.detach().to(values.dtype)
        values = values * (weights if values.ndim == 1 else weights[:, None])
    return values.mean() if values.numel() else values.sum()


def masked_log_softmax(scores: Tensor, where: Tensor) -> Tensor:
    """Log-softmax over the last axis among masked-in entries; 0 elsewhere.

    >>> import torch
    >>> masked_log_softmax(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([True, True, False]))
    tensor([-0.6931, -0.6931,  0.0000])
    """
    hidden = ~where
    # An all-masked row is computed as one of zeros, and then dropped: no NaN reaches the gradient.
    logits = scores.masked_fill(hidden, float("-inf")).masked_fill_(hidden.all(-1, keepdim=True), 0.0)
    return logits.log_softmax(-1).masked_fill(hidden, 0.0)


def masked_softmax(scores: Tensor, where: Tensor) -> Tensor:
    """Softmax over the last axis among masked-in entries; 0 elsewhere.

    >>> import torch
    >>> masked_softmax(torch.tensor([0.0, 0.0, 5.0]), torch.tensor([True, True, False]))
    tensor([0.5000, 0.5000, 0.0000])
    """
    return masked_log_softmax(scores, where).exp().where(where, scores.new_zeros(()))
