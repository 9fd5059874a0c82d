"""Packages beside one another: names that two of them claim, and what may be used at all."""

from __future__ import annotations

import pytest
from packages import Environment, loss_package

pytestmark = pytest.mark.packaging

ONE, OTHER = loss_package("lk-one", "1.0"), loss_package("lk-other", "2.1")
AMBIGUOUS = "losskit: loss 'life' is provided by lk-one==1.0, lk-other==2.1. Fix: write lk-one/life or lk-other/life, "
PIN = '[tool.losskit.pins]\nlife = "lk-other"\n'


def statuses(environment: Environment, *options: str, **variables: str) -> dict[str, str]:
    """Who provides the loss, and how each fares."""
    found = environment.json("list", "--search", "life", *options, **variables)["components"]
    return {each["provider"]: each["status"] for each in found}


def meant(environment: Environment, reference: str, **variables: str) -> str:
    """The distribution whose loss a reference means."""
    return environment.python(
        f"import losskit; print(losskit.get('loss', {reference!r}).provider)", **variables
    ).strip()


def refusal(environment: Environment, *arguments: str, **variables: str) -> tuple[int, str]:
    """The exit code of a training that must not begin, and what it says."""
    done = environment.losskit("train", *arguments, **variables)
    assert done.stdout == ""
    assert not (environment.work / "runs").exists()
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "order",
    [pytest.param((ONE, OTHER), id="one-first", marks=pytest.mark.quick), pytest.param((OTHER, ONE), id="other-first")],
)
def test_a_name_of_two_packages_is_nobodys_until_it_is_settled(environment, order) -> None:
    for package in order:
        environment.install(package)
    assert statuses(environment) == {"lk-one": "ambiguous", "lk-other": "ambiguous"}
    code, said = refusal(environment, "loss=life")
    assert code == 2
    assert said.startswith(AMBIGUOUS)
    assert meant(environment, "lk-one/life") == "lk-one"
    assert len(environment.json("show", "life")["components"]) == 2

    (environment.work / "pyproject.toml").write_text(PIN)
    assert statuses(environment) == {"lk-one": "ok", "lk-other": "ok"}
    assert meant(environment, "life") == "lk-other"

    (environment.work / "pyproject.toml").unlink()
    environment.uninstall("lk-one")
    assert statuses(environment) == {"lk-other": "ok"}
    assert environment.imported == set()


BLOCKED = [
    pytest.param(
        ("--block", "lk-one"), {}, "", "lk-one is blocked by the command line", id="option", marks=pytest.mark.quick
    ),
    pytest.param(("--block", "lk-one/life"), {}, "", "lk-one/life is blocked by the command line", id="component"),
    pytest.param(("--no-plugins",), {}, "", "lk-one is not allowed by --no-plugins", id="no-plugins"),
    pytest.param(("--allow", "lk-other"), {}, "", "lk-one is not allowed by the command line", id="others-allowed"),
    pytest.param((), {"LOSSKIT_PLUGINS_BLOCK": "lk-one"}, "", "lk-one is blocked by the environment", id="variable"),
    pytest.param((), {}, 'block = ["LK_One"]', "lk-one is blocked by {file}", id="project", marks=pytest.mark.quick),
    pytest.param((), {}, "plugins = false", "lk-one is not allowed by {file}", id="project-without-plugins"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with both packages, which nothing of the tests below imports."""
    environment = Environment(tmp_path_factory.mktemp("policy") / "an environment")
    environment.install(ONE, OTHER)
    return environment


@pytest.mark.parametrize(("options", "variables", "project", "reason"), BLOCKED)
def test_what_is_blocked_is_never_imported(shared, options, variables, project, reason) -> None:
    file = shared.work / "pyproject.toml"
    file.write_text(f"[tool.losskit]\n{project}\n")
    assert statuses(shared, *options, **variables)["lk-one"] == "blocked"
    code, said = refusal(shared, "loss=lk-one/life", *options, **variables)
    assert code == 3
    assert said.startswith("losskit: loss 'life' of lk-one 1.0 (lk_one:LifeLoss): expected a class with a card, got bl")
    assert reason.format(file=file) in said
    assert said.endswith("Fix: unblock or allow it there if you trust it\n")
    assert shared.imported == set()


def test_a_block_settles_whose_name_it_is(shared) -> None:
    (shared.work / "pyproject.toml").unlink(missing_ok=True)
    assert statuses(shared, "--block", "lk-one") == {"lk-one": "blocked", "lk-other": "ok"}
    assert meant(shared, "life", LOSSKIT_PLUGINS_ALLOW="lk-one") == "lk-one"
