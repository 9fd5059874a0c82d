"""Every loss under every wrapper: each execution gives what Direct gives, or building it says why not."""

from __future__ import annotations

import inspect
import math
import re

import pytest
from matrix import COMBINATIONS, ERRORS, LOSSES, MODELS, REFUSED, SETTINGS, WRAPPERS

import losskit
from losskit import LossError
from losskit.testing import ToyEncoder, differentiate, require_equal

WORKING = [each for each in COMBINATIONS if not each.refused]


def results(combination, execution=None):
    loss = combination.build(execution)
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    for batch in combination.batches(loss):
        yield differentiate(loss(batch.features(loss), batch.flat_labels), parameters)


@pytest.mark.parametrize("combination", WORKING, ids=str)
def test_every_execution_gives_the_same_value_and_gradient(combination):
    expected = list(results(combination))
    assert any(bool(gradient.any()) for each in expected for gradient in each.gradients)
    for name, execution in combination.executions.items():
        for wanted, got in zip(expected, results(combination, execution), strict=True):
            require_equal(name, wanted, got)


@pytest.mark.parametrize("combination", [each for each in COMBINATIONS if each.refused], ids=str)
def test_what_means_nothing_is_refused_at_construction(combination):
    with pytest.raises(LossError, match=re.escape(ERRORS[combination.refused])):
        combination.build()


def numbers():
    """Each option of a built-in loss that is a number."""
    for name in LOSSES:
        for option in inspect.signature(losskit.get("loss", name).load()).parameters.values():
            if option.annotation in ("float", "float | None"):
                yield name, option.name


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(("name", "option"), [*numbers()])
def test_a_number_is_finite_or_refused_at_construction(name, option, value):
    expression = {"name": name, **SETTINGS.get(name, {}), option: value}
    culprit = rf"^{losskit.get('loss', name).class_name}\.{option}"
    family = losskit.get("loss", name).card.encoders[0]
    with pytest.raises(LossError, match=rf"{culprit}: expected .*, got -?(inf|nan)"):
        losskit.build(expression, ToyEncoder(family))


def test_the_tables_name_only_what_is_registered():
    assert {*SETTINGS, *MODELS} <= {*LOSSES, *WRAPPERS}
    assert {name for pair in REFUSED for name in pair} <= {*LOSSES, *WRAPPERS}
