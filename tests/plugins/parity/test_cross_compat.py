"""The same constructor calls of cross-encoder losses on both libraries: equal values, gradients and settings."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from compat import write_cross_encoder
from cross_parity import Table, incumbent_table, lists, ours_on, pairs, require_cross_equal, theirs_on, tuples
from parity import require_different
from torch import nn

from losskit.testing import differentiate
from losskit.testing.compare import TOLERANCE

library = pytest.importorskip("sentence_transformers")
original = pytest.importorskip("sentence_transformers.cross_encoder.losses")
compat = pytest.importorskip("losskit_compat.cross_encoder.losses")

LISTS = lists([1, 0, 2], [0, 1], [3], [0, 0], [2, 1, 1, 0, 0])
RANKED = lists([2, 1, 0], [1, 0], [3], [0, 0], [2, 1, 1, 0, 0])
UNRANKED = lists([0, 2, 1], [-1, 1], [3], [2, 5, 1, 4, 0])
BINARY = pairs([1, 0, 0, 1, 1])
SCORES = pairs([0.25, 0.0, 1.0, 0.5, 0.75])
CLASSES = pairs([0, 2, 1, 1, 0], classes=3)
TEACHER = torch.linspace(-3, 3, 15, dtype=torch.float64).cos().view(5, 3)
DISTRIBUTIONS = pairs(TEACHER.softmax(1), classes=3)
COLUMN = partial(torch.Tensor.reshape, shape=(5, 1))

# Class, batch, and the constructor's arguments, given the module of losses.
CASES = [
    ("BinaryCrossEntropyLoss", BINARY, lambda lib: {}),
    ("BinaryCrossEntropyLoss", SCORES, lambda lib: {"pos_weight": torch.tensor(4)}),
    ("BinaryCrossEntropyLoss", SCORES, lambda lib: {"activation_fn": nn.Tanh(), "reduction": "sum"}),
    ("BinaryCrossEntropyLoss", pairs(COLUMN(SCORES.labels)), lambda lib: {"weight": SCORES.labels + 1}),
    ("CrossEntropyLoss", CLASSES, lambda lib: {}),
    ("CrossEntropyLoss", DISTRIBUTIONS, lambda lib: {"activation_fn": nn.Tanh(), "reduction": "sum"}),
    ("CrossEntropyLoss", pairs(COLUMN(CLASSES.labels), classes=3), lambda lib: {"label_smoothing": 0.25}),
    ("CrossEntropyLoss", CLASSES, lambda lib: {"weight": TEACHER[0] + 2, "ignore_index": 1}),
    ("CrossEntropyLoss", pairs([0, -1, 1, 2, -1], classes=3), lambda lib: {"ignore_index": -1}),
    ("MSELoss", SCORES, lambda lib: {}),
    ("MSELoss", BINARY, lambda lib: {"activation_fn": torch.sigmoid, "reduction": "sum"}),
    ("MarginMSELoss", tuples(5, 1, TEACHER[:, 0]), lambda lib: {}),
    ("MarginMSELoss", tuples(5, 1, TEACHER[:, :1]), lambda lib: {"activation_fn": nn.Sigmoid()}),
    ("MarginMSELoss", tuples(5, 1, TEACHER[:, :2]), lambda lib: {"reduction": "sum"}),
    ("MarginMSELoss", tuples(5, 2, TEACHER[:, :2]), lambda lib: {}),
    ("MarginMSELoss", tuples(5, 2, TEACHER), lambda lib: {}),
    ("ListNetLoss", LISTS, lambda lib: {}),
    ("ListNetLoss", LISTS, lambda lib: {"activation_fn": nn.Softplus(), "mini_batch_size": 3}),
    ("ListNetLoss", LISTS, lambda lib: {"activation_fn": None, "mini_batch_size": -1}),
    ("LambdaLoss", LISTS, lambda lib: {}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": lib.NoWeightingScheme(), "mini_batch_size": 2}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": lib.NDCGLoss1Scheme()}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": lib.NDCGLoss2Scheme(), "k": 2}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": lib.LambdaRankScheme(), "sigma": 0.5}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": lib.NDCGLoss2PPScheme(mu=3.0), "reduction_log": "natural"}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": original.NDCGLoss1Scheme(), "k": 1}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": original.NDCGLoss2PPScheme(), "eps": 1.0}),
    ("LambdaLoss", LISTS, lambda lib: {"weighting_scheme": own_scheme(lib), "activation_fn": nn.Tanh()}),
    ("RankNetLoss", LISTS, lambda lib: {}),
    ("ADRMSELoss", LISTS, lambda lib: {}),
    ("ADRMSELoss", LISTS, lambda lib: {"alpha": 3.0, "activation_fn": nn.Sigmoid(), "mini_batch_size": 4}),
    ("ListMLELoss", RANKED, lambda lib: {}),
    ("ListMLELoss", UNRANKED, lambda lib: {"respect_input_order": False, "activation_fn": nn.Tanh()}),
    ("PListMLELoss", RANKED, lambda lib: {}),
    ("PListMLELoss", UNRANKED, lambda lib: {"respect_input_order": False, "mini_batch_size": 1}),
    ("PListMLELoss", RANKED, lambda lib: {"lambda_weight": None, "activation_fn": nn.Sigmoid()}),
    ("PListMLELoss", RANKED, lambda lib: {"lambda_weight": lib.PListMLELambdaWeight(by_rank)}),
    ("PListMLELoss", RANKED, lambda lib: {"lambda_weight": original.PListMLELambdaWeight(by_rank)}),
    ("MultipleNegativesRankingLoss", tuples(4), lambda lib: {"num_negatives": None}),
    (
        "MultipleNegativesRankingLoss",
        tuples(4, 2),
        lambda lib: {"num_negatives": 9, "scale": 3, "activation_fn": nn.Identity()},
    ),
    ("CachedMultipleNegativesRankingLoss", tuples(4, 1), lambda lib: {"num_negatives": None, "mini_batch_size": 3}),
    (
        "RankNetLoss",
        LISTS,
        lambda lib: {"k": 2, "sigma": 2.0, "eps": 0.1, "reduction_log": "natural", "activation_fn": nn.ReLU()},
    ),
]


def by_rank(mask):
    """Weights of ranks of the user's own."""
    return mask / (1 + mask.cumsum(1).double())


def own_scheme(lib):
    """A weighting of the user's own, derived from the library's base class."""

    class Own(lib.lambda_loss.BaseWeightingScheme):
        def forward(self, gain, discount, true_sorted):
            return gain[:, :, None] * true_sorted[:, None, :] + discount[:, :, None]

    return Own()


def named(value):
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("name", "batch", "options"), CASES, ids=named)
def test_values_and_gradients(name, batch, options):
    theirs, ours = (partial(getattr(lib, name), **options(lib)) for lib in (original, compat))
    if name.startswith("Cached"):  # the original fills gradients in a hook of the backward
        theirs = partial(original.MultipleNegativesRankingLoss, num_negatives=None)
    # The original adds 1e-10 to the sum of the weights.
    require_cross_equal(theirs, ours, batch, tolerance=1e-9 if name == "PListMLELoss" else TOLERANCE)


# Deliberate differences: (class, case) -> the original and ours.


def both(name, batch, options=lambda lib: {}):
    """The class of both libraries on a batch."""
    theirs, ours = (partial(getattr(lib, name), **options(lib)) for lib in (original, compat))
    return partial(theirs_on, theirs, batch, double=False), partial(ours_on, ours, batch)


def with_scheme(forward, **attributes):
    """A LambdaLoss in both whose weights a function gives."""

    def options(lib):
        scheme = type("Own", (lib.lambda_loss.BaseWeightingScheme,), {"forward": forward})()
        for name, value in attributes.items():
            setattr(scheme, name, value)
        return {"weighting_scheme": scheme}

    return both("LambdaLoss", lists([2, 0, 1], [1, 0], *[[0, 1] * 150] * 2), options)


def of_width(scheme, gain, discount, true_sorted):
    return gain.new_full((), gain.shape[1])


def learned(scheme, gain, discount, true_sorted):
    return scheme.factor * gain[:, :, None]


def with_discount(discount):
    batch = lists([2, 1, 0], [1, 0])
    return both("PListMLELoss", batch, lambda lib: {"lambda_weight": lib.PListMLELambdaWeight(discount)})


class Learned(nn.Module):
    """A weight of ranks that is trained."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, mask):
        return self.weight * mask


def rounded(name, batch):
    """Logits in bfloat16, beside the truth of the same logits."""
    return both(name, replace(batch, logits=batch.logits.bfloat16()))


def default_prompt():
    """A model whose `predict` puts a prompt before each query."""
    columns, labels = [["a b", "c d"], ["e f", "g h"]], torch.tensor([0.0, 1.0])
    with tempfile.TemporaryDirectory() as folder:
        path = write_cross_encoder(Path(folder), ["a b c d e f g h", "judge this"])
        options = {"prompts": {"judge": "judge this "}, "default_prompt_name": "judge"}
        model = library.CrossEncoder(path, device="cpu", **options).eval()
    return tuple(
        lambda lib=lib: differentiate(lib.MSELoss(model)(columns, labels), list(model.parameters()))
        for lib in (original, compat)
    )


DIFFERENCES = {
    ("all of cross-encoders", "default-prompt"): default_prompt,
    ("CrossEntropyLoss", "half-precision"): partial(rounded, "CrossEntropyLoss", CLASSES),
    ("LambdaLoss", "learned-weights"): partial(with_scheme, learned, factor=nn.Parameter(torch.ones(()))),
    ("LambdaLoss", "padded-weights"): partial(with_scheme, of_width),
    ("MarginMSELoss of cross-encoders", "half-precision"): partial(
        rounded, "MarginMSELoss", tuples(5, 1, SCORES.labels)
    ),
    ("PListMLELoss", "learned-weights"): lambda: with_discount(Learned()),
    ("PListMLELoss", "padded-weights"): lambda: with_discount(torch.ones_like),
}


@pytest.mark.parametrize("case", DIFFERENCES, ids="-".join)
def test_what_the_table_lists_differs(case, differences):
    assert case in differences
    require_different(*DIFFERENCES[case]())


PRINTED = [case for case in CASES if hasattr(getattr(original, case[0]), "get_config_dict")]


@pytest.mark.parametrize(("name", "batch", "options"), PRINTED, ids=named)
def test_settings(name, batch, options):
    theirs = getattr(original, name)(incumbent_table()(batch.logits), **options(original))
    ours = getattr(compat, name)(Table(batch.logits), **options(compat))
    assert shown(ours) == shown(theirs)


def shown(loss):
    """The settings, full names without the library's; the original names functions by their type."""
    words = {"losskit_compat.": "sentence_transformers.", "builtin_function_or_method": "sigmoid"}
    settings = loss.get_config_dict()
    for word, other in words.items():
        settings = {
            key: value.replace(word, other) if isinstance(value, str) else value for key, value in settings.items()
        }
    return settings
