"""What the page of hooks lists is what there is, and what the policy promises of hooks holds."""

from __future__ import annotations

import inspect
import re

import pluggy
import pytest

from losskit import registry
from losskit.hooks import Hooks, Specifications

from .pages import ROOT

PAGE = ROOT / "docs" / "reference" / "hooks.md"
SOURCE = """
import losskit

@losskit.hookimpl
def losskit_checks():
    return ["a check"]

@losskit.hookimpl
def losskit_train_callbacks(recipe):
    return [recipe]
"""
_hookspec = pluggy.HookspecMarker("losskit")


class Deprecating:
    """Specifications of a losskit in which a hook, or an argument of one, is about to go."""

    @_hookspec(warn_on_impl=FutureWarning("losskit_checks goes; write checks instead"))
    def losskit_checks(self):
        raise NotImplementedError

    @_hookspec(warn_on_impl_args={"recipe": FutureWarning("recipe goes; take run instead")})
    def losskit_train_callbacks(self, recipe):
        raise NotImplementedError


def _hooks() -> list[str]:
    """The hooks there are, with their arguments, as one would call them."""
    found = []
    for name, hook in vars(Specifications).items():
        if name.startswith("losskit_"):
            _, *arguments = inspect.signature(hook).parameters
            found.append(f"{name}({', '.join(arguments)})")
    return found


def test_the_table_lists_the_hooks_there_are() -> None:
    assert re.findall(r"^\| `(losskit_\w+\(.*?\))` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == _hooks()


@pytest.mark.parametrize("hook", _hooks())
def test_every_hook_has_a_section_with_an_example(hook) -> None:
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## `{hook}`\n")
    section, _, _ = section.partition("\n## ")
    assert "```console" in section


def test_what_is_about_to_go_warns_and_is_called(site, monkeypatch) -> None:
    site.add("lk-a", points={"hooks": {"x": "lk_a"}}, modules={"lk_a.py": SOURCE})
    registry.refresh()
    monkeypatch.setattr("losskit.hooks.Specifications", Deprecating)
    with pytest.warns(FutureWarning) as caught:
        hooks = Hooks()
    assert sorted(str(each.message) for each in caught) == [
        "losskit_checks goes; write checks instead",
        "recipe goes; take run instead",
    ]
    assert all(each.filename.endswith("lk_a.py") for each in caught)
    assert [item for _, item in hooks.call("losskit_checks")] == ["a check"]
    assert [item for _, item in hooks.call("losskit_train_callbacks", recipe=7)] == [7]
    assert hooks.problems == []
