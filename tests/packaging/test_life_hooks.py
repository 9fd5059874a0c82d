"""Packages that bring behaviour: a check, a training callback, generated components, commands."""

from __future__ import annotations

import hashlib
import json

import pytest
from packages import FEW_STEPS, MARK, Package, loss_package, loss_source

pytestmark = pytest.mark.packaging

CHECKS = '''
import losskit
from losskit.testing import NotApplicable, Violation, law


@law(None, "loss", cause="a card that was written in a hurry")
def cites_a_paper(subject):
    """The card names the paper that the loss is from."""
    if not subject.card.citation:
        raise Violation("the card has no citation", "BibTeX", "nothing")


@losskit.hookimpl
def losskit_checks():
    return [cites_a_paper]
'''
CALLBACKS = """
from pathlib import Path
import losskit
from transformers import TrainerCallback


class Counts(TrainerCallback):
    def __init__(self, loss):
        self.loss = loss

    def on_train_end(self, args, state, control, **kwargs):
        Path("counted").write_text(f"{state.global_step} steps with {self.loss}")


@losskit.hookimpl
def losskit_train_callbacks(recipe):
    return [Counts(recipe.loss["name"])]
"""
COMMANDS = '''
def house(room: str = "hall"):
    """Tell about the house."""
    print(f"in the {room}")
'''
LATE = """
import losskit


@losskit.hookimpl
def losskit_checks(): return []


@losskit.hookimpl
def losskit_train_callbacks(recipe{more}): return []
"""
FORGED = """
import losskit


@losskit.hookimpl
def losskit_components():
    return [("loss", "made", "lk_forged:LifeLoss"), ("loss", "cosent", "lk_forged:LifeLoss")]
"""
HOUSE = Package(
    "lk-house",
    files={
        "lk_house/__init__.py": "",
        "lk_house/checks.py": MARK + CHECKS,
        "lk_house/callbacks.py": MARK + CALLBACKS,
        "lk_house/commands.py": MARK + COMMANDS,
        "lk_house/ruin.py": MARK + "raise RuntimeError('fallen in')\n",
    },
    points={
        "hooks": {"checks": "lk_house.checks", "callbacks": "lk_house.callbacks"},
        "commands": {"house": "lk_house.commands:house", "ruin": "lk_house.ruin:main"},
    },
)
FORGE = Package(
    "lk-forge",
    files={"lk_forge.py": MARK + FORGED, "lk_forged.py": loss_source("LifeLoss")},
    points={"hooks": {"forge": "lk_forge"}},
)
LATER = {
    version: Package("lk-late", version, {"lk_late.py": MARK + LATE.format(more=more)}, {"hooks": {"late": "lk_late"}})
    for version, more in {"1.0": "", "2.0": ", trainer"}.items()
}
INCOMPATIBLE = (
    "lk-late==2.0 lk_late: incompatible: losskit_train_callbacks wants trainer, this losskit gives recipe. "
    "Fix: update losskit or, if that is the newest, lk-late; or block lk-late\n"
)


@pytest.mark.quick
def test_a_command_is_named_in_help_and_imported_only_when_called(environment) -> None:
    environment.install(HOUSE)
    told = environment.losskit("--help")
    assert "house" in told.stdout
    assert "From lk-house==1.0." in told.stdout
    assert environment.imported == set()

    assert "Tell about the house." in environment.losskit("house", "--help").stdout
    assert environment.losskit("house", "--room", "attic").stdout == "in the attic\n"
    assert environment.imported == {"lk_house.commands"}

    failed = environment.losskit("ruin")
    assert failed.returncode == 3
    assert failed.stderr.startswith("losskit: command 'ruin' of lk-house 1.0 (lk_house.ruin:main): got RuntimeError: ")
    assert environment.losskit("list").returncode == 0


def test_a_check_of_a_package_runs_with_those_of_losskit(environment) -> None:
    environment.install(HOUSE, loss_package("lk-life"))
    select = ("--level", "numeric", "--select", "lk-house/cites-a-paper")
    (check,) = environment.json("validate", "life", *select)["checks"]
    assert (check["id"], check["status"]) == ("lk-house/cites-a-paper", "failed")
    assert "the card has no citation" in check["message"]


def test_generated_components_are_listed_on_request_and_built_by_name(environment) -> None:
    environment.install(FORGE)
    assert environment.losskit("list", "--provider", "lk-forge").returncode == 4
    assert environment.losskit("show", "made").returncode == 2
    assert environment.imported == set()

    listed = environment.json("list", "--load", "--provider", "lk-forge")
    assert [(each["name"], each["status"], each["version"]) for each in listed["components"]] == [("made", "ok", "1.0")]
    assert [(each["status"], each["reason"]) for each in listed["problems"]] == [
        ("broken", "losskit has a loss 'cosent' already")
    ]
    assert environment.imported == {"lk_forge"}

    built = environment.python("import losskit; print([type(losskit.build(n)).__module__ for n in ('cosent', 'made')])")
    assert built == "['losskit_plugins.losses.cosent', 'lk_forged']\n"
    # A wrong option is told before anything heavy is imported.
    done = environment.losskit("train", "loss=made", "loss.size=1")
    assert done.returncode == 2
    assert done.stderr.endswith(
        "losskit: loss.size: expected an option of made (margin), got an unknown one. Fix: remove it\n"
    )


def test_an_upgrade_to_hooks_of_another_losskit_leaves_all_else_as_it_was(environment) -> None:
    environment.install(HOUSE, LATER["1.0"])
    before = environment.json("list")
    environment.install(LATER["2.0"], upgrade=True)
    assert environment.json("list") == before
    assert environment.imported == set()

    done = environment.losskit("train", *FEW_STEPS, "output=run")
    assert done.returncode == 0, done.stderr
    assert INCOMPATIBLE in done.stderr
    assert (environment.work / "counted").read_text() == "2 steps with multiple-negatives-ranking"
    (callback,) = json.loads((environment.work / "run" / "provenance.json").read_text())["callbacks"]
    assert callback.pop("sha256") == hashlib.sha256((MARK + CALLBACKS).encode()).hexdigest()
    assert callback == {
        "distribution": "lk-house",
        "version": "1.0",
        "target": "lk_house.callbacks:Counts",
        "file": "callbacks.py",
    }

    checked = environment.losskit("validate", "cosent", "--level", "numeric", "--select", "lk-house/cites-a-paper")
    assert checked.returncode == 0, checked.stderr
    assert INCOMPATIBLE in checked.stderr
