from __future__ import annotations

import pytest

from losskit import NotFoundError, hookimpl, registry
from losskit.hooks import Hooks, generate, get_or_generate
from losskit.policy import Policy
from losskit.registry import find, get

GOOD = """
import losskit

@losskit.hookimpl
def losskit_checks():
    return ["check of a", "another"]

@losskit.hookimpl
def losskit_train_callbacks(recipe):
    return [("callback", recipe)]
"""


def add(site, distribution: str, source: str, target: str = "") -> None:
    module = distribution.replace("-", "_")
    site.add(distribution, points={"hooks": {"x": target or module}}, modules={f"{module}.py": source})


def hooks(**policy) -> Hooks:
    registry.refresh(Policy.read(**policy))
    return Hooks()


def test_the_marker_is_pluggys() -> None:
    import pluggy

    assert isinstance(hookimpl, pluggy.HookimplMarker)
    assert hookimpl.project_name == "losskit"


def test_every_item_comes_with_its_distribution_in_order(site) -> None:
    add(site, "lk-b", GOOD.replace("of a", "of b"))
    add(site, "lk-a", GOOD)
    found = hooks()
    assert [(entry.provider, item) for entry, item in found.call("losskit_checks")] == [
        ("lk-a", "check of a"),
        ("lk-a", "another"),
        ("lk-b", "check of b"),
        ("lk-b", "another"),
    ]
    assert [item for _, item in found.call("losskit_train_callbacks", recipe=7)] == [("callback", 7)] * 2
    assert found.call("losskit_components") == []
    assert found.problems == []


def test_nothing_is_loaded_before_it_is_asked_for_nor_what_is_blocked(site) -> None:
    add(site, "lk-a", GOOD)
    add(site, "lk-b", GOOD)
    registry.refresh()
    find()
    assert not site.imported
    assert [entry.provider for entry, _ in hooks(block=["lk-a"]).call("losskit_checks")] == ["lk-b", "lk-b"]
    assert site.imported == {"lk_b"}
    assert hooks(plugins=False).call("losskit_checks") == []


def test_what_one_breaks_stays_with_it(site) -> None:
    add(site, "lk-a", "raise RuntimeError('boom')")
    add(site, "lk-b", "import sys; sys.exit(1)")
    add(site, "lk-c", "import losskit\n@losskit.hookimpl\ndef losskit_checks(no_such_argument): return []\n")
    add(site, "lk-d", "import losskit\n@losskit.hookimpl\ndef losskit_future(): return []\n")
    add(site, "lk-e", "import losskit\n@losskit.hookimpl\ndef losskit_checks(): raise ValueError('late')\n")
    add(site, "lk-f", "import losskit\n@losskit.hookimpl\ndef losskit_checks(): return 3\n")
    add(site, "lk-g", GOOD)
    add(site, "lk-h", "x = 1", target="lk_h:gone")
    found = hooks()
    assert [item for _, item in found.call("losskit_checks")] == ["check of a", "another"]
    said = {problem.distribution: problem.reason for problem in found.problems}
    assert said["lk-a"] == "loading it raises RuntimeError: boom"
    assert said["lk-b"] == "loading it raises SystemExit: 1"
    assert said["lk-c"] == "losskit_checks wants no_such_argument, this losskit gives none"
    assert said["lk-d"].startswith("it implements losskit_future, this losskit calls losskit_checks, losskit_comp")
    assert said["lk-e"] == "losskit_checks raises ValueError: late"
    assert "TypeError" in said["lk-f"]
    assert "AttributeError" in said["lk-h"]
    assert {problem.distribution for problem in found.problems if problem.status == "incompatible"} == {"lk-c", "lk-d"}


def test_a_hook_of_another_losskit_is_incompatible_and_says_what_to_update(site) -> None:
    head = "import losskit\n@losskit.hookimpl\n"
    add(site, "lk-a", head + "def losskit_train_callbacks(recipe, trainer, model): return []\n")
    add(site, "lk-b", head + "def losskit_check(): return []\n")
    add(site, "lk-c", head + "def losskit_train_callbacks(recipe, later=None, **more): return [later]\n")
    add(site, "lk-d", "import losskit\n@losskit.hookimpl(specname='losskit_checks')\ndef ours(kind): return []\n")
    found = hooks()
    assert found.call("losskit_train_callbacks", recipe=7)[0][1] is None
    assert [(problem.distribution, problem.status, problem.reason, problem.fix) for problem in found.problems] == [
        (
            "lk-a",
            "incompatible",
            "losskit_train_callbacks wants trainer, model, this losskit gives recipe",
            "update losskit or, if that is the newest, lk-a; or block lk-a",
        ),
        (
            "lk-b",
            "incompatible",
            "it implements losskit_check, "
            "this losskit calls losskit_checks, losskit_components, losskit_train_callbacks",
            "update losskit or, if that is the newest, lk-b; or block lk-b",
        ),
        (
            "lk-d",
            "incompatible",
            "losskit_checks wants kind, this losskit gives none",
            "update losskit or, if that is the newest, lk-d; or block lk-d",
        ),
    ]


def test_what_requires_another_losskit_is_not_loaded(site) -> None:
    points = {"hooks": {"x": "lk_a"}, "commands": {"go": "lk_a:go"}}
    site.add("lk-a", points=points, modules={"lk_a.py": GOOD}, requires=["losskit>=99"])
    site.add("lk-b", points={"hooks": {"x": "lk_b"}}, modules={"lk_b.py": GOOD}, requires=["no-such-thing"])
    found = hooks()
    assert found.call("losskit_checks") == []
    assert not site.imported
    said = [(problem.distribution, problem.status, problem.fix) for problem in registry.problems()]
    assert said == [
        ("lk-a", "incompatible", "pip install 'losskit>=99'"),
        ("lk-b", "missing-dependency", "pip install 'no-such-thing'"),
        ("lk-a", "incompatible", "pip install 'losskit>=99'"),
    ]


def test_generated_components_are_read_like_all_others(site) -> None:
    source = """
import losskit

class Made:
    '''Made by a hook.'''
    card = losskit.Card(formats=[losskit.Format(["text"])])

@losskit.hookimpl
def losskit_components():
    return [("loss", "made", "lk_a:Made"), ("loss", "bad"), ("thing", "made", "lk_a:Made")]
"""
    add(site, "lk-a", source)
    found = hooks()
    registry.current().add(found.components())
    spec = get("loss", "made")
    assert (spec.provider, spec.summary, spec.status) == ("lk-a", "Made by a hook.", "ok")
    assert spec.load().__name__ == "Made"
    assert len(found.problems) == 2
    assert "gives ('loss', 'bad'), not (kind, name" in found.problems[0].reason


def test_what_plugins_generate_is_found_by_what_builds_it_and_takes_no_name(site, caplog) -> None:
    source = """
import losskit

class Made:
    '''Made by a hook.'''
    card = losskit.Card(formats=[losskit.Format(["text"])])

@losskit.hookimpl
def losskit_components():
    return [("wrapper", "made", "lk_a:Made"), ("loss", "toy", "lk_a:Made"), ("loss", "cosent", "lk_a:Made")]
"""
    add(site, "lk-a", source)
    site.add_loss("lk-b")
    registry.refresh()
    assert get_or_generate("loss", "toy").provider == "lk-b"
    assert not site.imported
    assert get_or_generate("loss", "made").target == "lk_a:Made"
    assert [message.partition(": ")[2].partition(".")[0] for message in caplog.messages] == [
        "broken: lk-b has a loss 'toy' already",
        "broken: losskit has a loss 'cosent' already",
    ]
    assert get("loss", "toy").status == "ok"
    assert generate() == []
    with pytest.raises(NotFoundError, match="no loss is named 'maid'"):
        get_or_generate("loss", "maid")


def test_a_module_that_two_entry_points_name_is_loaded_once(site) -> None:
    twice = {"hooks": {"x": "lk_a", "y": "lk_a"}}
    site.add("lk-a", points=twice, modules={"lk_a.py": GOOD})
    site.add("lk-b", points={"hooks": {"z": "lk_a"}})
    found = hooks()
    assert [entry.provider for entry, _ in found.call("losskit_checks")] == ["lk-a", "lk-a"]
    assert [(problem.distribution, problem.reason, problem.fix) for problem in found.problems] == [
        ("lk-a", "'y' names what lk-a has as 'x' already", "update lk-a, or block it"),
        ("lk-b", "'z' names what lk-a has as 'x' already", "update lk-b, or block it"),
    ]


def test_modules_that_one_name_stands_for_are_all_loaded(site) -> None:
    folder = site.add("lk-a", points={}, modules={"lk_a.py": GOOD, "lk_a_more.py": GOOD})
    (folder / "entry_points.txt").write_text("[losskit.hooks]\nx = lk_a\nx = lk_a_more\n")
    found = hooks()
    assert len(found.call("losskit_checks")) == 4
    assert found.problems == []


def test_what_is_generated_runs_no_code_as_it_is_looked_at(site) -> None:
    source = """
import losskit

class Odd(str):
    def __str__(self): raise SystemExit(1)
    __repr__ = __len__ = __eq__ = __hash__ = __str__

class Worse:
    __repr__ = __class_getitem__ = Odd.__str__

@losskit.hookimpl
def losskit_components():
    yield Worse()
    yield Odd("loss"), "made", "lk_a:Made"
    yield "loss", "x" * 251, "lk_a:Made"
    yield from ("loss", None, [])
"""
    add(site, "lk-a", source)
    found = hooks()
    assert found.components() == []
    given = [
        problem.reason.removeprefix("losskit_components gives ").partition(", not (kind")[0]
        for problem in found.problems
    ]
    assert [each.partition("an object of type ")[2] for each in given] == [
        "Worse",
        "tuple",
        "",
        "str",
        "NoneType",
        "list",
    ]
    assert given[2].startswith("('loss', 'xxxx")
    assert len(given[2]) == 250


def test_a_registered_name_never_loads_hooks(site) -> None:
    add(site, "lk-a", "raise RuntimeError('boom')")
    registry.refresh()
    assert get_or_generate("loss", "cosent").builtin
    assert not site.imported
