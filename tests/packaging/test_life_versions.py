"""Packages that are upgraded to what this losskit cannot use."""

from __future__ import annotations

import pytest
from packages import Package, loss_package

import losskit

pytestmark = pytest.mark.packaging

BEFORE = loss_package("lk-life", "1.0")
UPGRADES = [
    pytest.param(
        loss_package("lk-life", "2.0", api="2"),
        "it is written for interface 2, this losskit has 1",
        "update losskit",
        id="card",
    ),
    pytest.param(
        loss_package("lk-life", "2.0", requires=("losskit>=99",)),
        f"it needs losskit>=99, {losskit.__version__} is installed",
        "pip install 'losskit>=99'",
        id="losskit",
    ),
]


@pytest.mark.parametrize(("after", "reason", "fix"), UPGRADES)
def test_an_incompatible_upgrade_is_a_row_that_says_what_to_do(environment, after: Package, reason, fix) -> None:
    environment.install(BEFORE, loss_package("lk-alive", loss="alive"))
    environment.install(after, upgrade=True)
    listed = environment.json("list")
    statuses = {each["name"]: each["status"] for each in listed["components"] if not each["builtin"]}
    assert statuses == {"life": "incompatible", "alive": "ok"}
    (problem,) = listed["problems"]
    assert (problem["distribution"], problem["version"]) == ("lk-life", "2.0")
    assert (problem["status"], problem["reason"], problem["fix"]) == ("incompatible", reason, fix)

    done = environment.losskit("train", "loss=life")
    assert done.returncode == 3
    assert f"'life' of lk-life 2.0 (lk_life:LifeLoss): expected a class with a card, got incompatible: {reason}" in (
        done.stderr
    )
    assert environment.losskit("validate", "life", "--level", "static").returncode == 1
    assert environment.losskit("doctor").returncode == 1
    assert environment.imported == set()
