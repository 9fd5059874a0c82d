"""The mathematics that losses share: tiled scoring, ragged lists, safe reductions."""

from .contrastive import Block, softmax_cross_entropy
from .lists import list_index, pad_lists, tuple_index
from .precision import full_precision, normalize, promoted
from .reduce import masked_log_softmax, masked_mean, masked_softmax

__all__ = [
    "Block",
    "full_precision",
    "list_index",
    "masked_log_softmax",
    "masked_mean",
    "masked_softmax",
    "normalize",
    "pad_lists",
    "promoted",
    "softmax_cross_entropy",
    "tuple_index",
]
