"""Weightings: the laws, the formulas in loops, a stranger's in the lambda loss."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from losskit import Format, LossError, Weighting, build, find, get
from losskit.testing import laws, subjects

LISTS = Format(["query", "documents"], labels="scores", outputs=1)
FORMULAS = {
    "lambda-rank": lambda gain, discount, i, j: abs(1 / discount[i] - 1 / discount[j]) * abs(gain[i] - gain[j]),
    "ndcg-loss1": lambda gain, discount, i, j: gain[i] / discount[i],
    "ndcg-loss2": lambda gain, discount, i, j: step(discount, abs(i - j)) * abs(gain[i] - gain[j]),
    "ndcg-loss2pp": lambda *pair: 10 * FORMULAS["ndcg-loss2"](*pair) + FORMULAS["lambda-rank"](*pair),
    "no-weighting": lambda gain, discount, i, j: 1.0,
}
MAKERS = {name: get("weighting", name).load() for name in FORMULAS}
MAKERS["ndcg-loss2pp, mu 0"] = partial(MAKERS["ndcg-loss2pp"], mu=0)
SUBJECTS = {
    f"{name}-{subject}": subject
    for name, make in MAKERS.items()
    for subject in subjects(make, kind="weighting", families=["cross-encoder"], form=LISTS)
}


def step(discount, distance):
    """By how much the inverse discount falls from the rank `distance` to the next; 0 from a document to itself."""
    return 1 / discount[distance - 1] - 1 / discount[distance] if distance else 0.0


@pytest.mark.parametrize("law", laws("weighting"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def test_all_of_them_are_tried():
    assert {spec.name for spec in find("weighting", provider="losskit")} == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("documents", [1, 2, 5])
def test_equals_the_formula_in_loops(name, documents):
    torch.manual_seed(0)
    gain = torch.rand(3, documents, dtype=torch.float64)
    discount = [math.log2(2 + rank) for rank in range(documents)]
    weighting = MAKERS[name]()
    assert isinstance(weighting, Weighting)
    found = weighting(gain, torch.tensor([discount], dtype=torch.float64), torch.zeros_like(gain))
    expected = [
        [[FORMULAS[name](own, discount, i, j) for j in range(documents)] for i in range(documents)]
        for own in gain.tolist()
    ]
    torch.testing.assert_close(found.expand(3, documents, documents), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", ["lambda-rank", "ndcg-loss2", "ndcg-loss2pp"])
def test_weights_of_exchanges_are_symmetric_and_0_for_equal_gains(name):
    gain = torch.tensor([[0.3, 0.0, 0.3, 0.1]])
    weights = MAKERS[name]()(gain, torch.arange(2, 6).log2()[None], gain)
    assert torch.equal(weights, weights.transpose(1, 2))
    assert torch.equal(weights == 0, gain[:, :, None] == gain[:, None, :])


def test_refuses_a_negative_share():
    with pytest.raises(LossError, match=r"NDCGLoss2PP.mu: expected 0 or more, got -1"):
        build({"name": "ndcg-loss2pp", "mu": -1}, kind="weighting")
