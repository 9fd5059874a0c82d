"""Every built-in component passes the checks that strangers' components are held to."""

from __future__ import annotations

import pytest

from losskit import find
from losskit.testing import examine
from losskit.validation import all_targets

QUICK = {
    "loss": "triplet",
    "wrapper": "csr",
    "regularizer": "flops",
    "weighting": "ndcg-loss1",
    "similarity": "cosine",
    "encoder": "static",
}
"""One of each kind, in every run."""


def marked(target):
    quick = [pytest.mark.quick] if QUICK[target.kind] == target.spec.name else []
    return pytest.param(target, id=target.reference, marks=[pytest.mark.slow, *quick])


BUILTINS = [target for target in all_targets() if target.spec.builtin]


@pytest.mark.parametrize("target", [marked(target) for target in BUILTINS])
def test_a_builtin_has_no_findings(target):
    report = examine(target)
    assert not report.findings, "\n".join(f"{each.id}: {each.told()}" for each in report.findings)
    assert not report.too_few
    assert {each.id for each in report.checks if each.status == "skipped"} <= {"import"}, "imported here before"


def test_all_builtins_are_looked_at():
    assert len(BUILTINS) == len([spec for spec in find() if spec.builtin]) > 60
