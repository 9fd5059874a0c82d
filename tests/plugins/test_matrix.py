"""Every loss under every wrapper: each execution gives what Direct gives, or building it says why not."""

from __future__ import annotations

import re

import pytest
from matrix import COMBINATIONS, ERRORS, EXECUTIONS, LOSSES, MODELS, REFUSED, SETTINGS, WRAPPERS

from losskit import LossError
from losskit.testing import differentiate, require_equal

WORKING = [each for each in COMBINATIONS if not each.refused]


def result(combination, execution=None):
    loss = combination.build(execution)
    batch = combination.batch(loss)
    value = loss(batch.features(loss), batch.flat_labels)
    return differentiate(value, [parameter for parameter in loss.parameters() if parameter.requires_grad])


@pytest.mark.parametrize("combination", WORKING, ids=str)
def test_every_execution_gives_the_same_value_and_gradient(combination):
    expected = result(combination)
    assert float(expected.value) != 0
    assert any(bool(gradient.any()) for gradient in expected.gradients)
    for name, execution in EXECUTIONS.items():
        require_equal(name, expected, result(combination, execution))


@pytest.mark.parametrize("combination", [each for each in COMBINATIONS if each.refused], ids=str)
def test_what_means_nothing_is_refused_at_construction(combination):
    with pytest.raises(LossError, match=re.escape(ERRORS[combination.refused])):
        combination.build()


def test_the_tables_name_only_what_is_registered():
    assert {*SETTINGS, *MODELS} <= {*LOSSES, *WRAPPERS}
    assert {name for pair in REFUSED for name in pair} <= {*LOSSES, *WRAPPERS}
