"""Cross-entropy over classes: the laws, the formula in loops, weights of classes and rows, and what it refuses."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from losskit import LossError, Output, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.cross_entropy import CrossEntropyLoss, cross_entropy

SUBJECTS = [
    *subjects(CrossEntropyLoss, families=["cross-encoder"]),
    *subjects(
        partial(CrossEntropyLoss, class_weights=[0.5, 1.0, 3.0], label_smoothing=0.2, activation="tanh"),
        families=["cross-encoder"],
        weights=True,
    ),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


class Known(ToyEncoder):
    """A toy that says how many classes it has, as cross-encoders do."""

    @property
    def num_labels(self):
        return self.outputs


def logits(rows=5, classes=3):
    drawn = torch.randn(rows, classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
    return drawn.requires_grad_()


CHOSEN = torch.tensor([0, 2, 1, 1, 2])
SPREAD = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]])
CLASS_WEIGHTS, ROW_WEIGHTS = (2.0, 0.5, 0.25), (1.0, 3.0, 0.5, 0.0, 2.0)


def in_loops(scores, labels, smoothing=0.0, of_class=(1.0, 1.0, 1.0), of_row=(1.0,) * 5):
    """sum_i w_i l_i / sum_i c_{y_i}, or of distributions / n."""
    total, count = 0.0, 0.0
    for row, label, weight in zip(scores, labels.tolist(), of_row, strict=True):
        wanted = label if isinstance(label, list) else [float(k == label) for k in range(len(row))]
        log_z = sum(z.exp() for z in row).log()
        smooth = [(1 - smoothing) * p + smoothing / len(row) for p in wanted]
        total = total - weight * sum(c * p * (z - log_z) for c, p, z in zip(of_class, smooth, row, strict=True))
        count += 1.0 if isinstance(label, list) else of_class[label]
    return total / count


@pytest.mark.parametrize("labels", [CHOSEN, CHOSEN[:, None], CHOSEN.to(torch.int32), SPREAD], ids=["1", "2", "3", "4"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("of_class", [None, CLASS_WEIGHTS], ids=["plain", "classes"])
@pytest.mark.parametrize("of_row", [None, ROW_WEIGHTS], ids=["plain", "rows"])
def test_equals_the_formula_in_loops(labels, smoothing, of_class, of_row):
    leaf = logits()
    parts = {} if of_row is None else {"weight": torch.tensor(of_row)}
    loss = CrossEntropyLoss(label_smoothing=smoothing, class_weights=of_class)
    got = loss.compute([Output(leaf, parts=parts)], labels, slice(0, 5))
    flat = labels if labels.is_floating_point() else labels.flatten()
    expected = in_loops(leaf, flat, smoothing, of_class or (1.0,) * 3, of_row or (1.0,) * 5)
    # The distributions are in float32, as a collator gives them.
    require_equal("loops", differentiate(expected, [leaf]), differentiate(got, [leaf]), 1e-7)


def test_an_activation_comes_first():
    leaf = logits()
    got = CrossEntropyLoss(activation="tanh").compute([Output(leaf)], CHOSEN, slice(0, 5))
    require_equal("tanh", differentiate(in_loops(leaf.tanh(), CHOSEN), [leaf]), differentiate(got, [leaf]))


def test_the_denominator_is_the_weight_of_the_classes():
    column = Output(logits())
    loss = CrossEntropyLoss(class_weights=CLASS_WEIGHTS)
    assert loss.denominator([column], CHOSEN, slice(1, 4)) == 0.25 + 0.5 + 0.5
    assert loss.denominator([column], SPREAD, slice(1, 4)) == 3
    assert CrossEntropyLoss().denominator([column], CHOSEN, slice(1, 4)) == 3


def test_no_rows_cost_nothing():
    leaf = logits()
    for of_class in (None, CLASS_WEIGHTS):
        value = CrossEntropyLoss(class_weights=of_class).compute([Output(leaf)], CHOSEN, slice(1, 1))
        value.backward()
        assert value == 0


def test_weights_of_classes_are_a_list_in_recipes_and_a_tensor_in_python():
    built = build({"name": "cross-entropy", "class_weights": [1, 2.5]}, Known("cross-encoder", outputs=2))
    assert built.class_weights == (1.0, 2.5)
    assert CrossEntropyLoss(class_weights=torch.tensor([1.0, 2.5])).get_config_dict()["class_weights"] == [1.0, 2.5]


@pytest.mark.parametrize(
    ("model", "labels", "said"),
    [
        (
            Known,
            [0, 3],
            r"labels for CrossEntropyLoss: expected classes from 0 to 2, got 3\. Fix: set num_labels to the",
        ),
        (Known, [0, -100], r"expected classes from 0 to 2, got -100"),
        (ToyEncoder, [0, -100], r"expected classes from 0 on, got -100"),
        (ToyEncoder, [0, 3], r"expected classes from 0 to 2, got 3"),
        (Known, [[0.0, 1.0, math.nan]] * 2, r"expected classes, or probabilities, got some from nan to nan"),
        (Known, [[-1.0, 1.0, 1.0]] * 2, r"expected classes, or probabilities, got some from -1 to 1"),
        (Known, [0.0, 1.0], r"labels for CrossEntropyLoss: expected integers, one per class, got float32"),
        (Known, [[0.5, 0.5], [1.0, 0.0]], r"or a distribution over the 3 classes, got float32 of shape \[2, 2\]"),
        (Known, [[0, 1, 0], [1, 0, 0]], r"got int64 of shape \[2, 3\]"),
    ],
    ids=["class", "ignored", "unknown", "too many", "nan", "negative", "floats", "narrow", "counts"],
)
def test_refuses_labels_that_are_no_classes(model, labels, said):
    with pytest.raises(LossError, match=said):
        CrossEntropyLoss(model("cross-encoder", outputs=3))([["q", "r"], ["a", "b"]], torch.tensor(labels))


@pytest.mark.parametrize("columns", [[["a", "b"], ["c", "d"]], [[["a", "b"], ["c", "d"]]]])
def test_refuses_more_pairs_than_labels(columns):
    message = r"the batch for CrossEntropyLoss: expected two columns, with one text per row in each, got 4 pairs of 2"
    with pytest.raises(LossError, match=message):
        CrossEntropyLoss(Known("cross-encoder", outputs=3))([["q", "r"], *columns], torch.tensor([0, 1]))


@pytest.mark.parametrize("weights", [5, "ab", [1.0, None]])
def test_refuses_class_weights_that_are_no_numbers(weights):
    with pytest.raises(LossError, match=r"^CrossEntropyLoss.class_weights: expected a number for each class, got"):
        CrossEntropyLoss(class_weights=weights)


def test_refuses_encoders_with_one_output():
    with pytest.raises(
        LossError,
        match=r"CrossEntropyLoss.model: expected an encoder with an output for each class, got one\. Fix: give the",
    ):
        CrossEntropyLoss(Known("cross-encoder"))
    with pytest.raises(
        LossError, match="logits for CrossEntropyLoss: expected one per class and pair, got one per pair"
    ):
        CrossEntropyLoss(ToyEncoder("cross-encoder"))([["q"], ["a"]], torch.tensor([0]))
    with pytest.raises(LossError, match=r"CrossEntropyLoss.model: expected an encoder that is cross-encoder, got"):
        CrossEntropyLoss(ToyEncoder())


def test_refuses_options_out_of_range():
    for value in (-0.1, math.nan):
        with pytest.raises(LossError, match=r"CrossEntropyLoss.label_smoothing: expected 0 or more, got"):
            CrossEntropyLoss(label_smoothing=value)
    with pytest.raises(LossError, match=r"CrossEntropyLoss.label_smoothing: expected 1 or less, got 1.5"):
        CrossEntropyLoss(label_smoothing=1.5)
    for value in (-1.0, 0.0, math.inf):
        with pytest.raises(LossError, match=r"CrossEntropyLoss.class_weights: expected a positive number, got"):
            CrossEntropyLoss(class_weights=[1.0, value])
    with pytest.raises(LossError, match=r"CrossEntropyLoss.activation: expected a function, or one of identity"):
        CrossEntropyLoss(activation="softmax")
    message = r"CrossEntropyLoss.class_weights: expected one for each of 3 classes, got 2"
    with pytest.raises(LossError, match=message):
        CrossEntropyLoss(Known("cross-encoder", outputs=3), class_weights=[1.0, 2.0])
    with pytest.raises(LossError, match=message):
        CrossEntropyLoss(class_weights=[1.0, 2.0]).compute([Output(logits())], CHOSEN, slice(0, 5))


def test_certain_logits_cost_nothing():
    values = cross_entropy(torch.tensor([[1e4, 0.0], [1e4, 0.0]]), torch.tensor([0, 1]))
    assert values.tolist() == [0.0, 1e4]
