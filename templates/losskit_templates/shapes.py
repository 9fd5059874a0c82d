"""The shapes that a new component can begin with: what it reads, and which built-in ones are like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["SHAPES", "Shape", "default_shape", "shape_like"]


@dataclass(frozen=True)
class Shape:
    """What a component reads.

    Args:
        name: of its templates.
        inputs: the columns of a loss.
        labels: of a loss.
        encoders: the families that its templates serve.
        like: built-in components of this shape.
    """

    name: str
    inputs: tuple[str, ...] = ()
    labels: str = "none"
    encoders: tuple[str, ...] = ()
    like: tuple[str, ...] = ()


_VECTORS = ("dense", "sparse")
_EMBEDDING = (*_VECTORS, "multi-vector")
_ALL = (*_EMBEDDING, "cross-encoder")
_PAIR = ("text", "text")
_TRIPLET = ("anchor", "positive", "negative")
_BATCH = ("anchor", "positive", "negative*")
_LISTS = ("adr-mse", "distill-kl-div", "lambda", "list-mle", "list-net", "p-list-mle", "rank-net")
_CONTRASTIVE = ("gist", "improved-contrastive", "mega-batch-margin")
_RANKING = ("multiple-negatives-ranking", "multiple-negatives-symmetric-ranking")
_MINING = ("batch-all-triplet", "batch-hard-soft-margin-triplet", "batch-hard-triplet", "batch-semi-hard-triplet")
_UNLABELLED = ("contrastive-tension-in-batch-negatives", "csr-reconstruction", "denoising-auto-encoder")

_OF_KIND = {
    "loss": (
        Shape("in-batch", _BATCH, encoders=_EMBEDDING, like=(*_RANKING, *_CONTRASTIVE)),
        Shape("triplet", _TRIPLET, encoders=_VECTORS, like=("triplet",)),
        Shape("candidates", _BATCH, encoders=("cross-encoder",), like=("cross-multiple-negatives-ranking",)),
        Shape("pair", _PAIR, "score", _EMBEDDING, like=("cosine-similarity",)),
        Shape("binary", _PAIR, "binary", _EMBEDDING, like=("contrastive", "contrastive-tension", "online-contrastive")),
        Shape("order", _PAIR, "score", _EMBEDDING, like=("angle", "cosent")),
        Shape("point", _PAIR, "score", _ALL, like=("binary-cross-entropy", "score-mse")),
        Shape("list", ("query", "documents"), "scores", _ALL, like=_LISTS),
        Shape("margins", ("query", "positive", "negative+"), "margins", _ALL, like=("margin-mse",)),
        Shape("classes", ("text",), "class", _VECTORS, like=_MINING),
        Shape("classifier", _PAIR, "class", _VECTORS, like=("softmax",)),
        Shape("logits", _PAIR, "class", ("cross-encoder",), like=("cross-entropy",)),
        Shape("embedding", ("text+",), "embedding", _VECTORS, like=("embed-distill", "mse")),
        Shape("spread", ("text+",), encoders=_VECTORS, like=("global-orthogonal-regularization", *_UNLABELLED)),
    ),
    "wrapper": (
        Shape("term", encoders=_VECTORS, like=("csr", "splade")),
        Shape("transform", encoders=_EMBEDDING, like=("adaptive-layer", "matryoshka", "matryoshka-2d")),
        Shape("sum", encoders=_ALL, like=("weighted-sum",)),
    ),
    "regularizer": (
        Shape("documents", encoders=_VECTORS, like=("anti-zero", "flops", "global-orthogonal", "l0-masked", "l1")),
        Shape("overlap", encoders=_VECTORS, like=("overlap",)),
        Shape("counting", encoders=("sparse",), like=("df-flops", "idf-flops")),
    ),
    "weighting": (
        Shape("weighting", like=("lambda-rank", "ndcg-loss1", "ndcg-loss2", "ndcg-loss2pp", "no-weighting")),
    ),
    "similarity": (
        Shape("inner", encoders=_VECTORS, like=("cosine", "dot")),
        Shape("distance", encoders=_VECTORS, like=("angle", "euclidean", "manhattan")),
        Shape("tokens", encoders=("multi-vector",), like=("maxsim", "mean-maxsim", "xtr")),
    ),
    "encoder": (
        Shape("dense", encoders=("dense",), like=("dense", "static")),
        Shape("sparse", encoders=("sparse",), like=("csr", "inference-free-splade", "splade")),
        Shape("multi-vector", encoders=("multi-vector",), like=("multi-vector",)),
        Shape("cross-encoder", encoders=("cross-encoder",), like=("cross-encoder", "mlp")),
    ),
}
SHAPES: Mapping[str, Mapping[str, Shape]] = {
    kind: {shape.name: shape for shape in shapes} for kind, shapes in _OF_KIND.items()
}
"""All shapes, by kind and name."""


def default_shape(kind: str) -> Shape:
    """The shape that a component of a kind has unless another is asked for."""
    return next(iter(SHAPES[kind].values()))


def shape_like(kind: str, name: str) -> Shape | None:
    """The shape of a built-in component; None where no shape is like it.

    >>> shape_like("loss", "margin-mse").labels
    'margins'
    """
    return next((shape for shape in SHAPES[kind].values() if name in shape.like), None)
