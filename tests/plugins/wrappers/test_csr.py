"""CSR and its reconstruction: the laws, the formula in loops, who counts active latents, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from losskit import Direct, GradCache, LossError, Output
from losskit.testing import ToyEncoder, differentiate, laws, random_batch, require_equal, subjects, total
from losskit_plugins.losses.cosent import CoSENTLoss
from losskit_plugins.losses.csr_reconstruction import TERMS, CSRReconstructionLoss, reconstruction, spread
from losskit_plugins.losses.global_orthogonal_regularization import GlobalOrthogonalRegularizationLoss
from losskit_plugins.losses.multiple_negatives_ranking import MultipleNegativesRankingLoss
from losskit_plugins.wrappers.csr import CSRLoss
from losskit_plugins.wrappers.matryoshka import MatryoshkaLoss
from losskit_plugins.wrappers.weighted_sum import WeightedSumLoss

PARTS = ("backbone", "decoded_k", "decoded_4k", "decoded_aux", "decoded_k_pre_bias")


def around(inner, **options):
    return lambda model: CSRLoss(model, inner(model), **options)


def several(model):
    losses = {"ranking": MultipleNegativesRankingLoss(model), "spread": GlobalOrthogonalRegularizationLoss(model)}
    return WeightedSumLoss(model, losses, {"spread": 0.5})


def outside(model):
    return MatryoshkaLoss(model, CSRLoss(model, MultipleNegativesRankingLoss(model)), (8, 3))


SPARSE = {"families": ["sparse"]}
SUBJECTS = [
    *subjects(CSRReconstructionLoss, lists=("text",), weights=True),
    *subjects(around(MultipleNegativesRankingLoss, beta=0.5, gamma=2.0), kind="wrapper", weights=True, **SPARSE),
    *subjects(around(CoSENTLoss), kind="wrapper", **SPARSE),
    *subjects(around(several), kind="wrapper", **SPARSE),
    *subjects(outside, kind="wrapper", **SPARSE),
]


def kinds():
    return [(subject, law) for subject in SUBJECTS for law in laws(subject.kind)]


@pytest.mark.parametrize(
    ("subject", "law"), kinds(), ids=[f"{SUBJECTS.index(subject)}-{subject}-{law}" for subject, law in kinds()]
)
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def record(rows=5, width=3, seed=0):
    """Random embeddings, codes and reconstructions."""
    generator = torch.Generator().manual_seed(seed)
    *drawn, codes = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(6))
    parts = dict(zip(PARTS, (each.requires_grad_() for each in drawn), strict=True))
    return Output(codes.relu().requires_grad_(), parts=parts)


def by_loops(columns, beta):
    """The three terms: sums over columns, rows and dimensions."""
    of_k = of_4k = of_aux = 0.0
    for column in columns:
        x, k, k4, aux, before = (column.parts[name] for name in PARTS)
        n, d = x.shape
        residual = x - before.detach()
        means = [sum(residual[i, j] for i in range(n)) / n for j in range(d)]
        variance = sum((residual[i, j] - means[j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
        for i in range(n):
            for j in range(d):
                of_k = of_k + (x[i, j] - k[i, j]) ** 2 / (n * d)
                of_4k = of_4k + (x[i, j] - k4[i, j]) ** 2 / (n * d)
                of_aux = of_aux + (residual[i, j] - aux[i, j]) ** 2 / (n * d) / variance
    count = len(columns)
    return dict(zip(TERMS, (of_k / count, of_4k / count / 8, beta * of_aux / count), strict=True))


def test_equals_the_formula_in_loops():
    columns = [record(seed=0), record(seed=1)]
    leaves = [part for column in columns for part in column.parts.values()]
    for term in TERMS:
        expected, got = by_loops(columns, 0.3), reconstruction(columns, slice(0, 5), beta=0.3)
        require_equal(term, differentiate(expected[term], leaves), differentiate(got[term], leaves))


def test_adds_to_the_inner_loss():
    toy = ToyEncoder("sparse")
    inner = MultipleNegativesRankingLoss(toy)
    loss = CSRLoss(toy, inner, beta=0.3, gamma=0.7)
    columns = [record(seed=0), record(seed=1)]
    rows = slice(0, 5)
    found = loss.compute(columns, None, rows)
    assert list(found) == [*TERMS, "base_loss"]
    torch.testing.assert_close(found["base_loss"], 0.7 * inner.compute(columns, None, rows))
    for term, value in by_loops(columns, 0.3).items():
        torch.testing.assert_close(found[term], value)


def test_components_of_dict_valued_losses_keep_their_names():
    toy = ToyEncoder("sparse")
    loss = around(several, gamma=3.0)(toy)
    batch = random_batch(loss.formats[0])
    own = several(toy)(batch.features(loss))
    found = loss(batch.features(loss))
    assert list(found) == [*TERMS, *own]
    for key, value in own.items():
        torch.testing.assert_close(found[key], 3.0 * value)


def test_without_dead_latents_the_auxiliary_term_is_zero():
    whole = record()
    column = replace(whole, parts={name: part for name, part in whole.parts.items() if name != "decoded_aux"})
    found = reconstruction([column], slice(0, 5), beta=1.0)
    assert found["reconstruction_loss_aux"] == 0
    assert found["reconstruction_loss_k"] > 0


@pytest.mark.parametrize("rows", [1, 4])
def test_equal_residuals_are_measured_as_they_are(rows):
    residuals = torch.full((rows, 3), 0.1, dtype=torch.float64).requires_grad_()
    value = spread(residuals)
    value.backward()
    assert value == 1
    assert not residuals.grad.any()


def test_columns_that_are_not_encoded_are_left_out():
    alone = reconstruction([record()], slice(0, 5), beta=1.0)
    assert reconstruction([record(), Output(None, parts={})], slice(0, 5), beta=1.0) == alone


class Counting(ToyEncoder):
    """Remembers what it was asked to count."""

    def __init__(self):
        super().__init__("sparse")
        self.counted = []

    def count_active(self, embeddings):
        self.counted.append([tuple(each.shape) for each in embeddings])


@pytest.mark.parametrize("make", [CSRReconstructionLoss, around(CoSENTLoss)], ids=["alone", "wrapper"])
@pytest.mark.parametrize("execution", [Direct(), Direct(rows=2), GradCache(mini_batch_size=2)], ids=repr)
def test_active_latents_are_counted_once_per_training_forward(make, execution):
    toy = Counting()
    loss = make(toy)
    loss.execution = execution
    batch = random_batch(CoSENTLoss.card.formats[0])
    labels = None if make is CSRReconstructionLoss else batch.labels
    total(loss(batch.features(loss), labels)).backward()
    assert toy.counted == [[(6, 8), (6, 8)]]
    toy.eval()
    loss(batch.features(loss), labels)
    with torch.no_grad():
        toy.train()
        loss(batch.features(loss), labels)
    assert len(toy.counted) == 1


def test_refuses_embeddings_without_reconstructions():
    with pytest.raises(LossError, match=r"expected records with .* got parts \[\]. Fix: .*not with embeddings"):
        CSRReconstructionLoss().compute_loss_from_embeddings([torch.zeros(2, 3)])


def test_refuses_to_reconstruct_twice():
    toy = ToyEncoder("sparse")
    with pytest.raises(LossError, match=r"^CSRLoss.loss: .* got CSRReconstructionLoss, which reconstructs too"):
        CSRLoss(toy, CSRReconstructionLoss(toy))


def test_refuses_dense_encoders():
    toy = ToyEncoder()
    with pytest.raises(LossError, match=r"^CSRLoss.model: expected an encoder that is sparse"):
        CSRLoss(toy, CoSENTLoss(toy))


@pytest.mark.parametrize("option", ["beta", "gamma"])
def test_refuses_weights_that_are_no_numbers(option):
    toy = ToyEncoder("sparse")
    with pytest.raises(LossError, match=rf"^CSRLoss.{option}: expected a finite number, got nan"):
        CSRLoss(toy, CoSENTLoss(toy), **{option: float("nan")})
