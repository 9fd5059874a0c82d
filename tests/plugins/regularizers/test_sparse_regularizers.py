"""The regularizers of sparse embeddings: the laws, the formulas in loops, frequencies over batches, and refusals."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

import losskit
from losskit import LossError, Output
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.regularizers.anti_zero import AntiZeroRegularizer
from losskit_plugins.regularizers.df_flops import DFFlopsRegularizer, df_weights
from losskit_plugins.regularizers.flops import FlopsRegularizer, flops
from losskit_plugins.regularizers.idf_flops import IDFFlopsRegularizer, inverse_frequencies
from losskit_plugins.regularizers.l0_masked import L0MaskedRegularizer
from losskit_plugins.regularizers.l1 import L1Regularizer, l1
from losskit_plugins.regularizers.overlap import OverlapRegularizer, overlap

MADE = {
    "flops": FlopsRegularizer,
    "flops-threshold": partial(FlopsRegularizer, 2),
    "l1": L1Regularizer,
    "l0-masked": partial(L0MaskedRegularizer, 2),
    "df-flops": partial(DFFlopsRegularizer, 0.3, 2.5),
    "idf-flops": IDFFlopsRegularizer,
    "overlap": OverlapRegularizer,
    "anti-zero": AntiZeroRegularizer,
}


@pytest.mark.parametrize("law", laws("regularizer"), ids=str)
@pytest.mark.parametrize("name", MADE)
def test_laws(name, law):
    (subject,) = subjects(MADE[name], kind="regularizer")
    result = law(subject)
    assert result.fine, result


TEXTS, TERMS = 5, 7


def sparse(texts=TEXTS, terms=TERMS, seed=0):
    """Embeddings of which about half of the entries are 0, and one row and one column wholly."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(texts, terms, generator=generator, dtype=torch.float64).relu()
    made[1], made[:, 2] = 0.0, 0.0
    return made.requires_grad_()


def means(embeddings, threshold=-1):
    """Of each term, in loops."""
    kept = [row for row in embeddings if sum(map(bool, row)) > threshold]
    return [sum(row[term] for row in kept) / len(embeddings) for term in range(embeddings.shape[1])]


def shares(embeddings):
    return [sum(bool(row[term]) for row in embeddings) / len(embeddings) for term in range(embeddings.shape[1])]


def weighed(embeddings, weights):
    return sum((weight * mean) ** 2 for weight, mean in zip(weights, means(embeddings), strict=True))


def document_weights(found, alpha=0.3, beta=2.5):
    return [0.0 if x == 0 else 1 / (1 + (x ** (math.log(2) / math.log(alpha)) - 1) ** beta) for x in found]


def rarity(found):
    return [1 / (1 + math.log(1001 / (1 + 1000 * x))) for x in found]


BY_LOOPS = {
    "flops": lambda q, d: sum(m * m for each in (q, d) for m in means(each)),
    "flops-threshold": lambda q, d: sum(m * m for each in (q, d) for m in means(each, 2)),
    "l1": lambda q, d: sum(sum(abs(entry) for row in each for entry in row) / len(each) for each in (q, d)),
    "l0-masked": lambda q, d: sum(m * m for each in (q, d) for m in means(each, 2)),
    "df-flops": lambda q, d: sum(weighed(each, document_weights(shares(d))) for each in (q, d)),
    "idf-flops": lambda q, d: sum(weighed(each, rarity(shares(d))) for each in (q, d)),
    "overlap": lambda q, d: sum(a * b for a, b in zip(means(q), means(d), strict=True)),
    "anti-zero": lambda q, d: sum((sum(means(each)) + 1e-3) ** -2 for each in (q, d)),
}


@pytest.mark.parametrize("name", MADE)
def test_equals_the_formula_in_loops(name):
    queries, documents = sparse(4, seed=3), sparse(6)
    regularizer = MADE[name]()
    expected = differentiate(BY_LOOPS[name](queries, documents), [queries, documents])
    got = differentiate(regularizer(Output(queries), Output(documents)), [queries, documents])
    require_equal("both", expected, got)
    if name != "overlap":  # of what is the same in both a half is one of them
        twice = differentiate(BY_LOOPS[name](documents, documents) / 2, [documents])
        require_equal("alone", twice, differentiate(regularizer(None, Output(documents)), [documents]))


def test_no_texts_cost_nothing():
    for penalty in (flops, l1, partial(overlap, torch.zeros(0, 3)), partial(flops, threshold=1)):
        none = torch.zeros(0, 3, requires_grad=True)
        value = penalty(none)
        value.backward()
        assert value == 0
        assert none.grad.shape == (0, 3)


def test_signs_count_for_the_length_only():
    signed = torch.tensor([[1.0, -2.0], [-1.0, 2.0]])
    assert flops(signed) == 0
    assert l1(signed) == 3
    assert flops(signed, threshold=2) == 0
    assert flops(torch.tensor([[1.0, -2.0], [0.0, 4.0]]), threshold=1) == 0.25 + 1.0


def test_the_gradient_has_a_gradient():
    embeddings = sparse()
    (first,) = torch.autograd.grad(flops(embeddings), embeddings, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), embeddings)
    # The gradient is 2 m_j / n in each of n rows, the sum of squares 4 sum m_j^2 / n.
    rows = [[8 * float(mean) / TEXTS**2 for mean in means(embeddings.detach())]] * TEXTS
    expected = torch.tensor(rows, dtype=torch.float64)
    torch.testing.assert_close(second, expected)


def test_weights_are_between_nothing_and_all():
    found = df_weights(torch.tensor([0.0, 1e-9, 0.2, 1.0, 1.0 + 1e-7]), alpha=0.2, beta=3.3)
    assert found.tolist() == [0.0, pytest.approx(0.0, abs=1e-12), pytest.approx(0.5), 1.0, 1.0]
    rising = inverse_frequencies(torch.tensor([1.0, 0.5, 0.1, 0.0]))
    assert rising[0] == 1
    assert (rising.diff() > 0).all()
    assert rising[-1] == pytest.approx(1 + math.log(1001))


@pytest.mark.parametrize("kind", [DFFlopsRegularizer, IDFFlopsRegularizer])
def test_frequencies_are_the_mean_over_the_last_batches(kind):
    regularizer = kind(batches=3)
    seeds = range(5)
    wanted = [0.0] * TERMS
    for number, seed in enumerate(seeds, 1):
        regularizer.observe(None, Output(sparse(seed=seed)))
        share = 1 / min(number, 3)
        wanted = [
            before + share * (now - before) for before, now in zip(wanted, shares(sparse(seed=seed)), strict=True)
        ]
        assert regularizer.shares.mean.tolist() == pytest.approx(wanted)
    weights = document_weights(wanted, 0.1, 10.0) if kind is DFFlopsRegularizer else rarity(wanted)
    documents = sparse(seed=9)
    got = differentiate(regularizer(None, Output(documents)), [documents])
    expected = differentiate(weighed(documents, weights), [documents])
    require_equal("weights of the batches before", expected, got, tolerance=1e-6)  # kept in float32
    assert not regularizer.shares.mean.requires_grad


@pytest.mark.parametrize("kind", [DFFlopsRegularizer, IDFFlopsRegularizer])
def test_refuses_embeddings_of_another_width(kind):
    regularizer = kind()
    regularizer.observe(None, Output(torch.ones(2, 3)))
    with pytest.raises(
        losskit.LossError, match=r"^how common terms are: expected embeddings of 3 terms, .*, got 4. Fix"
    ):
        regularizer.observe(None, Output(torch.ones(2, 4)))


@pytest.mark.parametrize("name", ["anti-zero", "df-flops", "flops", "idf-flops", "l0-masked", "l1", "overlap"])
def test_is_registered_and_comes_back_from_its_configuration(name):
    made = losskit.build(name, kind="regularizer")
    written = getattr(made, "get_config_dict", dict)()
    again = losskit.build({"name": name, **written}, kind="regularizer")
    assert type(again) is type(made)
    assert getattr(again, "get_config_dict", dict)() == written


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (FlopsRegularizer, {"threshold": -1}, r"^FlopsRegularizer.threshold: expected 0 or more, got -1"),
        (L0MaskedRegularizer, {"threshold": math.nan}, r"^L0MaskedRegularizer.threshold: expected 0 or more, got nan"),
        (DFFlopsRegularizer, {"alpha": 0}, r"^DFFlopsRegularizer.alpha: expected a positive number, got 0"),
        (DFFlopsRegularizer, {"alpha": 1.0}, r"^DFFlopsRegularizer.alpha: expected a share below 1, got 1.0"),
        (DFFlopsRegularizer, {"beta": -2}, r"^DFFlopsRegularizer.beta: expected a positive number, got -2"),
        (DFFlopsRegularizer, {"batches": 0}, r"^DFFlopsRegularizer.batches: expected a whole number of 1 .*, got 0"),
        (DFFlopsRegularizer, {"batches": 0.5}, r"^DFFlopsRegularizer.batches: expected a whole .*, got 0.5"),
        (IDFFlopsRegularizer, {"documents": 0}, r"^IDFFlopsRegularizer.documents: expected a positive number, got 0"),
        (IDFFlopsRegularizer, {"batches": 0}, r"^IDFFlopsRegularizer.batches: expected a whole number of 1 .*, got 0"),
        (IDFFlopsRegularizer, {"batches": 0.5}, r"^IDFFlopsRegularizer.batches: expected a whole .*, got 0.5"),
        (AntiZeroRegularizer, {"smallest": 0}, r"^AntiZeroRegularizer.smallest: expected a positive number, got 0"),
    ],
)
def test_refuses_options_outside_their_range(kind, options, words):
    with pytest.raises(LossError, match=words):
        kind(**options)


def test_refuses_an_overlap_with_nothing():
    with pytest.raises(LossError, match=r"^OverlapRegularizer: expected queries beside documents, got documents alone"):
        OverlapRegularizer()(None, Output(sparse()))
