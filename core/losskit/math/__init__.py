"""The mathematics that losses share: tiled scoring, cosines, ragged lists and their ranks, safe reductions."""

from .contrastive import Block, softmax_cross_entropy
from .cosine import normalize
from .late_interaction import maxsim, pairwise_maxsim, xtr
from .lists import pad_alike, pad_lists, tuple_index
from .once import differentiable_once
from .pairs import pairwise_angle, pairwise_cosine, pairwise_distance, pairwise_dot
from .precision import full_precision, promoted
from .products import inner_products
from .ranked import average_ranks, descending, over_lists
from .reduce import masked_log_softmax, masked_mean, masked_softmax, mean_over_rows
from .tiles import found_scores, over_tiles, tiles

__all__ = [
    "Block",
    "average_ranks",
    "descending",
    "differentiable_once",
    "found_scores",
    "full_precision",
    "inner_products",
    "masked_log_softmax",
    "masked_mean",
    "masked_softmax",
    "maxsim",
    "mean_over_rows",
    "normalize",
    "over_lists",
    "over_tiles",
    "pad_alike",
    "pad_lists",
    "pairwise_angle",
    "pairwise_cosine",
    "pairwise_distance",
    "pairwise_dot",
    "pairwise_maxsim",
    "promoted",
    "softmax_cross_entropy",
    "tiles",
    "tuple_index",
    "xtr",
]
