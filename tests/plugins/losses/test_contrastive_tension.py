"""Contrastive tension, with pairs as given and with the batch's negatives: the laws, loops, the second tower."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError, Output, build
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses.contrastive_tension import ContrastiveTensionLoss
from losskit_plugins.losses.contrastive_tension_in_batch_negatives import ContrastiveTensionLossInBatchNegatives

SUBJECTS = [
    *subjects(ContrastiveTensionLoss),
    *subjects(ContrastiveTensionLossInBatchNegatives),
    *subjects(partial(ContrastiveTensionLossInBatchNegatives, similarity="euclidean", scale=1.0), families=["dense"]),
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def embeddings(rows=5):
    torch.manual_seed(0)
    return [torch.randn(rows, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def test_pairs_equal_the_formula_in_loops():
    a, b = columns = embeddings()
    labels = torch.tensor([1, 0, 0, 1, 0])
    expected = 0.0
    for u, v, same in zip(a, b, labels, strict=True):
        product = sum(x * y for x, y in zip(u, v, strict=True))
        expected = expected + (1 + product.exp()).log() - same * product
    got = ContrastiveTensionLoss().compute_loss_from_embeddings(columns, labels)
    require_equal("loops", differentiate(expected, columns), differentiate(got, columns))


def test_in_batch_negatives_equal_the_formula_in_loops():
    a, b = columns = embeddings()
    loss = ContrastiveTensionLossInBatchNegatives(scale=4.0).double()
    scale = loss.logit_scale.exp()

    def cosine(u, v):
        return scale * (u @ v) / (u.norm() * v.norm())

    expected = 0.0
    for i in range(5):
        of_rows = sum(cosine(a[i], b[j]).exp() for j in range(5)).log()
        of_columns = sum(cosine(a[j], b[i]).exp() for j in range(5)).log()
        expected = expected + (of_rows + of_columns - 2 * cosine(a[i], b[i])) / 10
    inputs = [*columns, loss.logit_scale]
    got = differentiate(loss.compute_loss_from_embeddings(columns), inputs)
    require_equal("loops", differentiate(expected, inputs), got)


def test_two_copies_read_a_column_each_and_both_are_trained():
    model = ToyEncoder(seed=1)
    loss = ContrastiveTensionLoss(model)
    tower = loss.towers["tower"]
    with torch.no_grad():
        tower.first.weight.mul_(2)
    texts = [["one two", "three"], ["one two", "four five"]]
    first = tower(tower.preprocess(texts[0])).embedding
    second = model(model.preprocess(texts[1])).embedding
    products = (first * second).sum(1)
    expected = (1 + products.exp()).log().sum() - products[0]
    inputs = list(loss.parameters())
    features = [model.preprocess(column) for column in texts]
    found = differentiate(loss(features, torch.tensor([1, 0])), inputs)
    require_equal("towers", differentiate(expected, inputs), found)
    assert len(inputs) == 2 * len(list(model.parameters()))
    without = differentiate(loss(features), inputs)
    require_equal("without labels equal texts count as the same", found, without)
    assert {key.partition(".")[0] for key in loss.owned_state()} == {"tower"}


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_makes_no_difference_between_equal_texts(side):
    def padded(rows, width):
        ids = [row + [0] * (width - len(row)) if side == "right" else [0] * (width - len(row)) + row for row in rows]
        ids = torch.tensor(ids)
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    first, second = [[5, 6], [7], [8, 9, 5], [5]], [[5, 6], [8], [8, 9, 5], [5, 6]]
    model = ToyEncoder(seed=1)
    loss = ContrastiveTensionLoss(model)
    features = [padded(first, 3), padded(second, 6)]
    got = loss(features)
    assert got == loss(features, torch.tensor([1, 0, 1, 0]))


def test_one_column_is_read_by_both_towers():
    model = ToyEncoder(seed=1)
    loss = ContrastiveTensionLossInBatchNegatives(model)
    with torch.no_grad():
        loss.towers["tower"].first.weight.mul_(2)
    texts = ["one two", "three", "four five six"]
    inputs = list(loss.parameters())
    alone = differentiate(loss([model.preprocess(texts)]), inputs)
    twice = differentiate(loss([model.preprocess(texts), model.preprocess(texts)]), inputs)
    require_equal("(anchor, anchor) pairs", alone, twice)
    tower = loss.towers["tower"]
    first, second = (each(each.preprocess(texts)).embedding for each in (tower, model))
    brought = ContrastiveTensionLossInBatchNegatives().double()
    torch.testing.assert_close(brought.compute_loss_from_embeddings([first, second]).detach(), alone.value)


def test_the_scale_is_owned_and_trained():
    loss = ContrastiveTensionLossInBatchNegatives(ToyEncoder(seed=1), scale=8.0)
    assert loss.logit_scale.exp().item() == pytest.approx(8.0)
    assert "logit_scale" in loss.owned_state()
    assert loss.get_config_dict() == {"scale": 8.0, "similarity": None}
    loss([loss.model.preprocess(["one two", "three", "four"])]).backward()
    assert loss.logit_scale.grad.abs() > 0


def test_matryoshka_cuts_both_towers():
    model = ToyEncoder(seed=1)
    loss = build({"name": "matryoshka", "dims": [3], "loss": "contrastive-tension"}, model)
    features = [model.preprocess(["one two", "three"]), model.preprocess(["one two", "four"])]
    columns = [model(each).embedding[:, :3] for each in features]
    expected = ContrastiveTensionLoss().compute_loss_from_embeddings(columns, torch.tensor([1, 0]))
    torch.testing.assert_close(loss(features)["matryoshka_3"], expected)


def test_no_rows_cost_nothing_and_a_single_row_warns(caplog):
    columns = [Output(column) for column in embeddings()]
    for loss in (ContrastiveTensionLoss(), ContrastiveTensionLossInBatchNegatives().double()):
        value = loss.compute(columns, torch.zeros(5), slice(1, 1))
        value.backward()
        assert value == 0
    ContrastiveTensionLossInBatchNegatives().double().compute_loss_from_embeddings(embeddings(rows=1))
    assert "one row has nothing to be told from" in caplog.text


def test_refuses_what_does_not_fit():
    a, b = embeddings()
    with pytest.raises(
        LossError, match=r"labels for ContrastiveTensionLoss: expected 1 for pairs of the same sentence"
    ):
        ContrastiveTensionLoss().compute_loss_from_embeddings([a, b])
    with pytest.raises(LossError, match=r"the second tower of ContrastiveTensionLossInBatchNegatives: .*, got neither"):
        ContrastiveTensionLossInBatchNegatives().compute_loss_from_embeddings([a])
    late = ContrastiveTensionLoss()
    late.model = ToyEncoder()
    with pytest.raises(LossError, match=r"the second tower of ContrastiveTensionLoss: .* Fix: build the loss with its"):
        late.compute_loss_from_embeddings([a, b], torch.zeros(5))
    with pytest.raises(LossError, match=r"InBatchNegatives.scale: expected a positive number, got 0"):
        ContrastiveTensionLossInBatchNegatives(scale=0)
