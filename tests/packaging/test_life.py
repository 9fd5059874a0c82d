"""The life of a package: installed, listed, trained with, missing where its model is loaded, uninstalled."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from packages import FEW_STEPS, Environment, encoder_package, loss_package

pytestmark = pytest.mark.packaging

LIFE = loss_package("lk-life", "1.4")
BUILD = """
import losskit
wrapped = losskit.build({"name": "matryoshka", "dims": [8], "loss": {"name": "life", "margin": 0.5}})
names = ["life", "loss:life", "lk-life/life", "LK_Life/life", "LifeLoss"]
print({type(losskit.build(name)) for name in names} == {losskit.losses.LifeLoss}, wrapped.loss.margin)
"""
ENCODE = """
import logging, sys
logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stdout)
import losskit
print(losskit.load(sys.argv[1]).encode(["what is it?"]).shape)
"""
WITH_LIFE = ("loss=life", "loss.margin=0.5", *FEW_STEPS)
CHECKPOINTS = ("training.save_strategy=steps", "training.save_every=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the quickstart with a package's loss, on a machine that has it."""
    environment = Environment(tmp_path_factory.mktemp("life") / "an environment")
    environment.install(LIFE)
    done = environment.losskit("train", *WITH_LIFE, *CHECKPOINTS, "output=run")
    assert done.returncode == 0, done.stderr
    assert environment.imported == {"lk_life"}
    return environment.work / "run"


def bring(run: Path, environment: Environment) -> None:
    """Copy a run to another machine."""
    shutil.copytree(run, environment.work / "run")


@pytest.mark.quick
def test_an_installed_package_is_listed_and_shown_but_not_imported(environment) -> None:
    environment.install(LIFE)
    listed = environment.json("list", "--provider", "lk-life")
    (life,) = listed["components"]
    assert {name: life[name] for name in ("kind", "name", "provider", "version", "status", "summary")} == {
        "kind": "loss",
        "name": "life",
        "provider": "lk-life",
        "version": "1.4",
        "status": "ok",
        "summary": "Pulls a positive to its anchor.",
    }
    assert listed["problems"] == []
    assert life["options"]["margin"]["default"] == 1.0

    shown = environment.losskit("show", "life")
    assert shown.returncode == 0
    assert "lk-life 1.4" in shown.stdout
    assert environment.imported == set()


def test_its_loss_is_built_by_any_of_its_names(environment) -> None:
    environment.install(LIFE)
    assert environment.python(BUILD) == "True 0.5\n"


@pytest.mark.quick
def test_a_trained_model_says_what_it_was_trained_with(trained) -> None:
    source = (trained.parents[1] / "lib").glob("python*/site-packages/lk_life.py")
    components = json.loads((trained / "provenance.json").read_text())["components"]
    assert [each for each in components if each["distribution"] != "losskit"] == [
        {
            "kind": "loss",
            "name": "life",
            "target": "lk_life:LifeLoss",
            "distribution": "lk-life",
            "version": "1.4",
            "file": "lk_life.py",
            "sha256": hashlib.sha256(next(source).read_bytes()).hexdigest(),
        }
    ]
    assert "plugins:\n- lk-life>=1.4\n" in (trained / "recipe.yaml").read_text()
    card = (trained / "README.md").read_text()
    assert "LifeLoss" in card
    assert "lk-life" in card
    assert "1.4" in card


def test_a_model_encodes_without_the_package_of_its_loss(trained, environment) -> None:
    bring(trained, environment)
    assert environment.python(ENCODE, "run") == "(1, 128)\n"


@pytest.mark.quick
def test_refuses_to_train_again_or_go_on_without_the_package_of_the_loss(trained, environment) -> None:
    bring(trained, environment)
    again = environment.losskit("train", "run/recipe.yaml", "output=again")
    assert again.returncode == 2
    assert again.stderr == (
        "losskit: plugins.0: expected lk-life>=1.4, got not installed. Fix: pip install 'lk-life>=1.4'\n"
    )
    resumed = environment.losskit("train", *WITH_LIFE, "output=run", "--resume")
    assert resumed.returncode == 3
    assert resumed.stderr == (
        "losskit: run was trained with the loss 'life' of lk-life 1.4: expected lk-life to be installed, "
        "got no distribution of that name. Fix: pip install 'lk-life==1.4'\n"
    )
    assert not (environment.work / "again").exists()
    assert (environment.work / "run" / "metrics.json").is_file()


def test_going_on_with_another_version_is_warned_of(trained, environment) -> None:
    bring(trained, environment)
    environment.install(loss_package("lk-life", "1.5"))
    done = environment.losskit("train", *WITH_LIFE, "training.steps=3", "output=run", "--resume")
    assert done.returncode == 0, done.stderr
    assert "warning: run was trained with the loss 'life' of lk-life 1.4; installed is lk-life 1.5\n" in done.stderr
    components = json.loads((environment.work / "run" / "provenance.json").read_text())["components"]
    assert [each["version"] for each in components if each["distribution"] == "lk-life"] == ["1.5"]


def test_a_model_needs_the_package_of_its_encoder_to_encode(environment) -> None:
    environment.install(encoder_package("lk-words"))
    pairs = [{"anchor": f"question {n}", "positive": f"answer {n}"} for n in range(8)]
    (environment.work / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    recipe = ("encoder=words", "data.train.path=pairs.jsonl", "loss=multiple-negatives-ranking", "output=words")
    done = environment.losskit("train", *recipe, "training.steps=1")
    assert done.returncode == 0, done.stderr
    assert environment.python(ENCODE, "words") == "(1, 8)\n"

    environment.install(encoder_package("lk-words", "1.1"), upgrade=True)
    assert environment.python(ENCODE, "words") == (
        "losskit: words was trained with the encoder 'words' of lk-words 1.0; installed is lk-words 1.1\n(1, 8)\n"
    )

    environment.uninstall("lk-words")
    failed = environment.run("-c", ENCODE, "words")
    assert failed.returncode == 1
    assert failed.stderr.endswith(
        "losskit.errors.PluginError: words was trained with the encoder 'words' of lk-words 1.0: "
        "expected lk-words to be installed, got no distribution of that name. Fix: pip install 'lk-words==1.0'\n"
    )


@pytest.mark.quick
def test_what_is_uninstalled_is_gone(environment) -> None:
    environment.install(LIFE, loss_package("lk-alive", loss="alive"))
    environment.uninstall("lk-life")
    assert environment.losskit("list", "--provider", "lk-life").returncode == 4
    done = environment.losskit("train", "loss=live")
    assert done.returncode == 2
    assert done.stderr == "losskit: no loss is named 'live'. Fix: did you mean 'alive'?\n"
