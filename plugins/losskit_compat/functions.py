"""Functions that the incumbent's constructors take, as similarities.

The incumbent's own are recognised by identity, without importing it, and become registered similarities, which are
scored in tiles. Any other callable is called as it is, on whole matrices.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from losskit import Output, Similarity
from losskit.math import promoted

from . import util

__all__ = [
    "BatchDistance",
    "Distance",
    "MatrixFunction",
    "PairwiseFunction",
    "as_similarity",
    "full_name",
    "name_of_function",
]

NAMES = {
    "cos_sim": "cosine",
    "pytorch_cos_sim": "cosine",
    "dot_score": "dot",
    "euclidean_sim": "euclidean",
    "manhattan_sim": "manhattan",
    "pairwise_cos_sim": "cosine",
    "pairwise_dot_score": "dot",
    "pairwise_euclidean_sim": "euclidean",
    "pairwise_manhattan_sim": "manhattan",
    "pairwise_angle_sim": "angle",
    "SiameseDistanceMetric.COSINE_DISTANCE": "cosine",
    "SiameseDistanceMetric.EUCLIDEAN": "euclidean",
    "SiameseDistanceMetric.MANHATTAN": "manhattan",
    "TripletDistanceMetric.COSINE": "cosine",
    "TripletDistanceMetric.EUCLIDEAN": "euclidean",
    "TripletDistanceMetric.MANHATTAN": "manhattan",
    "BatchHardTripletLossDistanceFunction.cosine_distance": "cosine",
    "BatchHardTripletLossDistanceFunction.euclidean_distance": "euclidean",
    "colbert_scores": "maxsim",
    "colbert_scores_pairwise": "maxsim",
    "colbert_kd_scores": "maxsim",
    "mean_colbert_scores": "mean-maxsim",
    "mean_colbert_scores_pairwise": "mean-maxsim",
    "mean_colbert_kd_scores": "mean-maxsim",
    "xtr_scores": "xtr",
    "xtr_kd_scores": "xtr",
}
"""The registered similarity that each of the functions means."""

METHODS = {
    "similarity": ("cos_sim", "dot_score", "euclidean_sim", "manhattan_sim"),
    "similarity_pairwise": (
        "pairwise_cos_sim",
        "pairwise_dot_score",
        "pairwise_euclidean_sim",
        "pairwise_manhattan_sim",
    ),
}
"""Methods of the incumbent's models, and the functions that they may stand for."""

PLACES = (
    "sentence_transformers.util",
    "sentence_transformers.sentence_transformer.losses",
    "losskit_compat.sentence_transformer.losses",
    "sentence_transformers.multi_vector_encoder.scoring",
    "losskit_compat.multi_vector_encoder.scoring",
)
"""Modules that hold them, looked at if they are loaded."""


def as_similarity(function: Any, otherwise: Callable[[Any], Any]) -> str | Similarity:
    """The registered similarity that a function means, else `otherwise` around it."""
    known = known_as(function)
    return otherwise(function) if known is None else NAMES[known]


def known_as(function: Any) -> str | None:
    """Under which of `NAMES` a function is known; None if it is another one.

    >>> known_as(util.cos_sim), known_as(max)
    ('cos_sim', None)
    """
    return next((name for name, known in _known() if known is function), None)


def name_of_function(function: Any) -> str:
    """A function as model cards print it: its name, with what is bound to it.

    >>> name_of_function(functools.partial(util.cos_sim, b=1))
    'cos_sim(b=1)'
    """
    settings: dict[str, Any] = {}
    if isinstance(function, functools.partial):
        function, settings = function.func, function.keywords
    elif callable(configuration := getattr(function, "get_config_dict", None)):
        settings = configuration()
    known = known_as(function)
    if known is not None and "Metric." in known:
        return known
    name = getattr(function, "__name__", type(function).__name__)
    if name in METHODS:
        metric = getattr(getattr(function, "__self__", None), "similarity_fn_name", None)
        name = next((each for each in METHODS[name] if NAMES[each] == metric), name)
    bound = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{name}({bound})" if bound else name


def full_name(value: Any) -> str:
    """A module as model cards print it: its class with the package; a function by its name.

    >>> full_name(nn.Sigmoid()), full_name(torch.tanh)
    ('torch.nn.modules.activation.Sigmoid', 'tanh')
    """
    if not isinstance(value, nn.Module):
        return name_of_function(value)
    return f"{type(value).__module__}.{type(value).__name__}"


class MatrixFunction(nn.Module):
    """A function of two tensors [n, d] and [m, d] that gives [n, m], as a similarity.

    A module, so that the parameters of a learned function are found.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        return self.function(_vectors(a), _vectors(b))

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return self(a, b).diagonal()


class PairwiseFunction(nn.Module):
    """A function of two tensors [n, d] that gives [n], as a similarity."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        first, second = _vectors(a), _vectors(b)
        n, m = len(first), len(second)
        return self._of(first.repeat_interleave(m, 0), second.repeat(n, 1)).view(n, m)

    def pairwise(self, a: Output, b: Output) -> Tensor:
        """Item i with item i, [n]."""
        return self._of(_vectors(a), _vectors(b))

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


class Distance(PairwiseFunction):
    """A function that gives the distances [n] of two tensors [n, d], as a similarity."""

    highest = 0.0

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        return -self.function(a, b)


class BatchDistance(MatrixFunction):
    """A function that gives the distances [n, n] within one tensor [n, d], as a similarity."""

    highest = 0.0

    def forward(self, a: Output, b: Output) -> Tensor:
        """All pairs, [n, m]."""
        first, second = _vectors(a), _vectors(b)
        if first is second:
            return -self.function(first)
        return -self.function(torch.cat([first, second]))[: len(first), len(first) :]


def _known() -> Iterator[tuple[str, Any]]:
    places = [vars(util), *(vars(sys.modules[name]) for name in PLACES if name in sys.modules)]
    for place in places:
        for name in NAMES:
            owner, _, member = name.partition(".")
            if owner in place:
                yield name, getattr(place[owner], member) if member else place[owner]


def _vectors(record: Output) -> Tensor:
    assert record.embedding is not None
    return promoted(record.embedding)
