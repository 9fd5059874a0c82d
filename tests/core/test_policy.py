from __future__ import annotations

from pathlib import Path

import pytest

from losskit import RecipeError
from losskit.policy import Policy, normalize

PROJECT = """
[project]
name = "mine"

[tool.losskit]
allow = ["LK_A", "lk-b/one"]
block = ["lk-c"]

[tool.losskit.pins]
toy = "LK_A"
"loss:other" = "lk-b"
"""


def project(home, text: str) -> None:
    (home / "work" / "pyproject.toml").write_text(text)


def user(home, text: str) -> None:
    (home / "config" / "losskit").mkdir(parents=True)
    (home / "config" / "losskit" / "losskit.toml").write_text(text)


def test_without_configuration_everything_is_allowed(home) -> None:
    assert Policy.read() == Policy()
    assert Policy().refusal("anything", "toy") == ""


def test_the_project_is_read_from_the_nearest_pyproject_above(home, monkeypatch) -> None:
    project(home, PROJECT)
    (home / "work" / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(home / "work" / "deep" / "er")
    policy = Policy.read()
    assert policy.allow == {"lk-a", "lk-b/one"}
    assert policy.refusal("lk.a", "toy") == ""
    assert policy.refusal("lk-b", "one") == ""
    assert policy.refusal("lk-b", "two") == f"lk-b is not allowed by {home / 'work' / 'pyproject.toml'}"
    assert policy.refusal("lk-c") == f"lk-c is blocked by {home / 'work' / 'pyproject.toml'}"
    assert policy.refusal("losskit", "cosent") == ""
    assert policy.pin("loss", "toy")[0] == policy.pin("wrapper", "toy")[0] == "lk-a"
    assert policy.pin("loss", "other")[0] == "lk-b"
    assert policy.pin("encoder", "other") is None


def test_the_nearest_pyproject_ends_the_search_even_without_a_table(home, monkeypatch) -> None:
    project(home, PROJECT)
    (home / "work" / "deep").mkdir()
    (home / "work" / "deep" / "pyproject.toml").write_text("[project]\nname = 'inner'\n")
    monkeypatch.chdir(home / "work" / "deep")
    assert Policy.read() == Policy()


def test_precedence_is_command_line_environment_project_user(home, monkeypatch) -> None:
    user(home, 'allow = ["lk-user"]\nblock = ["b-user"]\n[pins]\ntoy = "pin-user"\nmine = "pin-mine"\n')
    assert Policy.read().allow == {"lk-user"}
    project(home, '[tool.losskit]\nallow = ["lk-project"]\nblock = ["b-project"]\npins = {toy = "pin-project"}\n')
    assert Policy.read().allow == {"lk-project"}
    monkeypatch.setenv("LOSSKIT_PLUGINS_ALLOW", "lk-env, lk-more/x")
    monkeypatch.setenv("LOSSKIT_PLUGINS_BLOCK", "b-env,,")
    assert Policy.read().allow == {"lk-env", "lk-more/x"}
    policy = Policy.read(allow=["lk-line"], block=["b-line"])
    assert policy.allow == {"lk-line"}
    assert policy.allowed_by == "the command line"
    assert set(policy.block) == {"b-line", "b-env", "b-project", "b-user"}
    assert policy.block["b-env"] == "the environment"
    assert {name: pin[0] for name, pin in policy.pins.items()} == {"toy": "pin-project", "mine": "pin-mine"}


def test_an_empty_variable_allows_none(home, monkeypatch) -> None:
    monkeypatch.setenv("LOSSKIT_PLUGINS_ALLOW", "")
    assert Policy.read().refusal("lk-a") == "lk-a is not allowed by the environment"
    assert Policy.read().refusal("losskit", "cosent") == ""


def test_plugins_can_be_switched_off_in_the_configuration(home) -> None:
    project(home, "[tool.losskit]\nplugins = false\n")
    assert Policy.read().refusal("lk-a", "toy")
    assert not Policy.read(allow=["lk-a"]).refusal("lk-a", "toy")


def test_no_plugins_works_whatever_the_configuration_holds(home, monkeypatch) -> None:
    project(home, "[tool.losskit\nthis is not TOML")
    monkeypatch.setenv("LOSSKIT_PLUGINS_ALLOW", "lk-a")
    policy = Policy.read(plugins=False)
    assert policy.refusal("lk-a", "toy") == "lk-a is not allowed by --no-plugins"
    assert policy.refusal("losskit", "cosent") == ""


def test_one_component_can_be_blocked_also_a_built_in(home) -> None:
    policy = Policy.read(block=["LK_A/toy", "losskit/cosent", "losskit"])
    assert policy.refusal("lk-a", "toy") == "lk-a/toy is blocked by the command line"
    assert policy.refusal("lk-a", "other") == ""
    assert policy.refusal("losskit", "cosent")
    assert policy.refusal("losskit", "list-net") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.losskit", "expected TOML"),
        ("losskit = " + "[" * 10_000, "expected TOML, got RecursionError"),
        ("[tool.losskit]\nalow = ['x']", "tool.losskit.alow in .*did you mean 'allow'"),
        ("[tool.losskit]\nzzz = 1", "Fix: remove it; there are allow, block, plugins, pins"),
        ("[tool.losskit]\nallow = 'lk-a'", "tool.losskit.allow in .*expected a list of strings, got 'lk-a'"),
        ("[tool.losskit]\nblock = [1]", "expected a list of strings"),
        ("[tool.losskit]\nplugins = 'no'", "expected true or false"),
        ("[tool.losskit]\npins = {a = 1}", "expected a table of strings"),
        ("[tool]\nlosskit = 3", "tool.losskit in .*expected a table, got 3"),
    ],
)
def test_a_configuration_that_cannot_be_right_is_refused_with_file_and_key(home, text, said) -> None:
    project(home, text)
    with pytest.raises(RecipeError, match=said) as caught:
        Policy.read()
    assert str(home / "work" / "pyproject.toml") in str(caught.value)


def test_a_user_configuration_that_cannot_be_right_is_refused(home) -> None:
    user(home, "alow = []\n")
    with pytest.raises(RecipeError, match=r"^alow in .*losskit.toml"):
        Policy.read()


def test_names_compare_as_indexes_compare_them() -> None:
    assert {normalize(name) for name in ("LK_angle", "lk-angle", "lk.Angle", "lk-_.angle")} == {"lk-angle"}


def test_a_configuration_that_cannot_be_opened_is_the_users_input(home, monkeypatch) -> None:
    def refuse(self, **options):
        raise PermissionError(13, "Permission denied")

    project(home, "[tool.losskit]\n")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(RecipeError, match=r"pyproject\.toml: expected a file that can be read, got Permission denied"):
        Policy.read()
