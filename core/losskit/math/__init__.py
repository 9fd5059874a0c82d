"""The mathematics that losses share: tiled scoring, cosines, ragged lists, safe reductions."""

from .contrastive import Block, softmax_cross_entropy
from .cosine import normalize, pairwise_cosine
from .lists import list_index, pad_lists, tuple_index
from .once import differentiable_once
from .precision import full_precision, promoted
from .reduce import masked_log_softmax, masked_mean, masked_softmax
from .tiles import over_tiles, tiles

__all__ = [
    "Block",
    "differentiable_once",
    "full_precision",
    "list_index",
    "masked_log_softmax",
    "masked_mean",
    "masked_softmax",
    "normalize",
    "over_tiles",
    "pad_lists",
    "pairwise_cosine",
    "promoted",
    "softmax_cross_entropy",
    "tiles",
    "tuple_index",
]
