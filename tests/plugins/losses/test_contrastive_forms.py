"""The symmetric and the GTE form of multiple negatives ranking: the laws, and the formulas in loops."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from losskit import LossError
from losskit.testing import differentiate, laws, require_equal, subjects
from losskit_plugins.losses.improved_contrastive import ImprovedContrastiveLoss
from losskit_plugins.losses.multiple_negatives_symmetric_ranking import MultipleNegativesSymmetricRankingLoss

FORMS = [MultipleNegativesSymmetricRankingLoss, ImprovedContrastiveLoss]
SUBJECTS = [
    subject
    for form in FORMS
    for subject in (
        *subjects(partial(form, scale=2.0), families=["dense", "sparse"], weights=True),
        *subjects(form, families=["dense"], lists=("positive", "negative")),
        *subjects(form, families=["dense"], negatives=0),
    )
]


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def symmetric(s, i):
    """The terms of row i, of similarities of anchors (a), positives (p) and negatives (n)."""
    documents = [*s["ap"][i], *s["an"][i]]
    anchors = [row[i] for row in s["ap"]]
    return (log_sum(documents) + log_sum(anchors)) / 2 - s["ap"][i][i]


def improved(s, i):
    terms = [*s["ap"][i], *s["an"][i], *(row[i] for row in s["ap"])]
    terms += [s["aa"][i][j] for j in range(len(s["aa"])) if j != i]
    terms += [s[name][i][j] for name in ("pp", "pn") for j in range(len(s["aa"])) if j != i]
    return log_sum(terms) - s["ap"][i][i]


def log_sum(terms):
    return sum(term.exp() for term in terms).log()


@pytest.mark.parametrize(("form", "formula"), [(FORMS[0], symmetric), (FORMS[1], improved)])
def test_equals_the_formula_in_loops(form, formula):
    generator = torch.Generator().manual_seed(1)
    columns = {name: torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_() for name in "apn"}

    def similarity(a, b):
        return 20 * (a @ b) / (a.norm() * b.norm())

    similarities = {
        x + y: [[similarity(a, b) for b in columns[y]] for a in columns[x]] for x in columns for y in columns
    }
    expected = sum(formula(similarities, i) for i in range(4)) / 4
    leaves = list(columns.values())
    got = form().compute_loss_from_embeddings(leaves)
    require_equal("loops", differentiate(expected, leaves), differentiate(got, leaves))


@pytest.mark.parametrize("form", FORMS)
def test_refuses_in_its_own_name(form):
    with pytest.raises(LossError, match=f"{form.__name__}.scale: expected a positive number, got -1"):
        form(scale=-1)
