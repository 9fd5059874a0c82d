"""Softmax: the laws, the formula in loops, labels of both kinds, the layer that it owns."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError, Output, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.softmax import SoftmaxLoss

CHOICES = [("a", "b", "difference"), ("difference",), ("product", "a", "b", "difference"), ("b", "product")]
SUBJECTS = [
    *subjects(partial(SoftmaxLoss, num_labels=3)),
    *subjects(partial(SoftmaxLoss, num_labels=3, concatenate=CHOICES[2]), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(a, b, layer, choices, targets):
    """targets: per row the probability of each class."""
    made = {
        "a": lambda u, v: u,
        "b": lambda u, v: v,
        "difference": lambda u, v: abs(u - v),
        "product": lambda u, v: u * v,
    }
    total = 0.0
    for u, v, target in zip(a, b, targets, strict=True):
        vector = [made[choice](u[k], v[k]) for choice in choices for k in range(len(u))]
        logits = [
            sum(w * x for w, x in zip(row, vector, strict=True)) + c
            for row, c in zip(layer.weight, layer.bias, strict=True)
        ]
        normaliser = sum(logit.exp() for logit in logits).log()
        total = total + sum(p * (normaliser - logit) for p, logit in zip(target, logits, strict=True))
    return total / len(a)


@pytest.mark.parametrize("choices", CHOICES, ids="-".join)
@pytest.mark.parametrize("soft", [False, True], ids=["classes", "distributions"])
def test_equals_the_formula_in_loops(choices, soft):
    torch.manual_seed(0)
    embeddings = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    loss = SoftmaxLoss(None, 3, choices, dimension=3).double()
    classes = torch.tensor([2, 0, 1, 1])
    targets = torch.rand(4, 3, dtype=torch.float64).softmax(1) if soft else torch.eye(3, dtype=torch.float64)[classes]
    inputs = [*embeddings, *loss.parameters()]
    expected = differentiate(by_loops(*embeddings, loss.classifier, choices, targets), inputs)
    labels = targets if soft else classes
    require_equal("loops", expected, differentiate(loss.compute_loss_from_embeddings(embeddings, labels), inputs))


def test_more_rows_than_a_chunk_give_the_same():
    torch.manual_seed(0)
    columns = [torch.randn(1300, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    loss = SoftmaxLoss(None, 3, CHOICES[2], dimension=3).double()
    labels = torch.randint(0, 3, (1300,))
    a, b = columns
    vectors = torch.cat([a * b, a, b, (a - b).abs()], 1)
    plain = torch.nn.functional.cross_entropy(loss.classifier(vectors), labels)
    inputs = [*columns, *loss.parameters()]
    got = differentiate(loss.compute_loss_from_embeddings(columns, labels), inputs)
    require_equal("in one piece", differentiate(plain, inputs), got)


def test_a_column_of_classes_is_a_row_of_them_and_no_rows_cost_nothing():
    columns = [torch.randn(3, 4, requires_grad=True) for _ in range(2)]
    loss = SoftmaxLoss(None, 3, dimension=4)
    flat = loss.compute_loss_from_embeddings(columns, torch.tensor([0, 1, 2]))
    assert loss.compute_loss_from_embeddings(columns, torch.tensor([[0], [1], [2]])) == flat
    value = loss.compute([Output(column) for column in columns], torch.tensor([0, 1, 2]), slice(1, 1))
    value.backward()
    assert value == 0


def test_the_layer_is_built_for_the_encoder():
    toy = ToyEncoder(dimension=6)
    loss = build({"name": "softmax", "num_labels": 4, "concatenate": ["a", "product"]}, toy)
    assert loss.classifier.weight.shape == (4, 12)
    assert loss.classifier.weight.dtype == torch.float64
    assert set(loss.owned_state()) == {"classifier.weight", "classifier.bias"}
    with pytest.raises(
        LossError, match=r"MatryoshkaLoss.loss: expected a loss that works at any size, got SoftmaxLoss"
    ):
        build({"name": "matryoshka", "dims": [4], "loss": {"name": "softmax", "num_labels": 4}}, toy)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.tensor([0, 3, 1]), r"labels for SoftmaxLoss: expected classes from 0 to 2, got 3\. Fix: set num_labels"),
        (torch.tensor([0, -1, 1]), r"expected classes from 0 to 2, got -1"),
        (torch.tensor([0.0, 1.0, 1.0]), r"labels for SoftmaxLoss: expected integers, one per class, got float32"),
        (
            torch.full((3, 2), 0.5),
            r"or a distribution over the 3 classes, got float32 of shape \[3, 2\]. Fix: set num_labels to the number",
        ),
        (torch.zeros(3, 3, dtype=torch.long), r"got int64 of shape \[3, 3\]"),
        (torch.zeros(2, dtype=torch.long), r"expected class, distribution of shape .*, got \[2\]"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, said):
    columns = [torch.randn(3, 4) for _ in range(2)]
    with pytest.raises(LossError, match=said):
        SoftmaxLoss(None, 3, dimension=4).compute_loss_from_embeddings(columns, labels)


def test_refuses_what_does_not_fit():
    with pytest.raises(LossError, match=r"SoftmaxLoss.num_labels: expected 2 or more, got 1"):
        SoftmaxLoss(None, 1, dimension=4)
    with pytest.raises(
        LossError, match=r"SoftmaxLoss.concatenate: expected some of a, b, difference, product, each once, got \('c',\)"
    ):
        SoftmaxLoss(None, 2, ("c",), dimension=4)
    with pytest.raises(LossError, match=r"SoftmaxLoss.model: expected an encoder that knows the width"):
        SoftmaxLoss(None, 2)
