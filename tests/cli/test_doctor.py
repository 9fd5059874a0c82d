from __future__ import annotations

import json
import time
from importlib import metadata

import pytest

CARD = "card = losskit.Card(formats=[losskit.Format(['text'])])"


def add(site, distribution: str, body: str, **options) -> None:
    module = distribution.replace("-", "_")
    source = f"import losskit\nclass A:\n    {CARD}\n{body}\n"
    points = {"losses": {distribution.removeprefix("lk-"): f"{module}:A"}}
    site.add(distribution, points=points, modules={f"{module}.py": source}, **options)


def test_a_sound_environment_exits_with_0(losskit, site) -> None:
    add(site, "lk-good", "")
    result = losskit("doctor")
    assert (result.returncode, result.stderr) == (0, "problems found: 0\n")
    assert "torch\t" in result.stdout
    assert "lk-good\t1.0\t1\t0\t0\t1 ok" in result.stdout
    assert not site.imported


def test_findings_exit_with_1_and_name_the_distribution(losskit, site) -> None:
    add(site, "lk-bad", "", requires=["no-such-thing"])
    add(site, "lk-good", "")
    result = losskit("doctor")
    assert result.returncode == 1
    assert "lk-bad==1.0 lk_bad:A: missing-dependency: it needs no-such-thing" in result.stdout
    assert "Fix: pip install 'no-such-thing'" in result.stdout
    assert losskit("doctor", "--block", "lk-bad").returncode == 0
    assert not site.imported


def test_json(losskit, site) -> None:
    add(site, "lk-bad", "", requires=["no-such-thing"])
    site.add("lk-more", points={"commands": {"x": "lk_more:x"}, "hooks": {"y": "lk_more"}})
    result = losskit("doctor", "--json", LOSSKIT_PLUGINS_BLOCK="lk-other")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert list(found) == ["schema", "environment", "policy", "distributions", "problems"]
    assert found["policy"] == {"allowed": None, "blocked": ["lk-other"], "pinned": {}}
    distributions = {item["distribution"]: item for item in found["distributions"]}
    assert distributions["lk-bad"]["statuses"] == {"missing-dependency": 1}
    assert (distributions["lk-more"]["commands"], distributions["lk-more"]["hooks"]) == (1, 1)
    assert distributions["losskit"]["components"] > 10
    assert [problem["distribution"] for problem in found["problems"]] == ["lk-bad"]


def test_an_unmet_requirement_of_losskit_itself_is_found(losskit, site) -> None:
    ours = metadata.distribution("losskit")
    folder = site.add("losskit", ours.version, requires=[*(ours.requires or ()), "no-such-thing>=3"])
    (folder / "entry_points.txt").write_text(ours.read_text("entry_points.txt"))
    result = losskit("doctor")
    assert result.returncode == 1
    assert "no-such-thing>=3: missing-dependency" in result.stdout


@pytest.mark.slow
def test_load_survives_whatever_importing_does(losskit, site) -> None:
    add(site, "lk-raise", "raise RuntimeError('boom')")
    add(site, "lk-exit", "import sys; sys.exit(3)")
    add(site, "lk-abrupt", "import os; os._exit(7)")
    add(site, "lk-hang", "import time; time.sleep(600)")
    add(site, "lk-segfault", "import ctypes; ctypes.string_at(0)")
    add(site, "lk-interrupt", "raise KeyboardInterrupt")
    add(site, "lk-noisy", "print('noise', flush=True)")
    add(site, "lk-broken", "", requires=["no-such-thing"])
    site.add(
        "lk-behind",
        points={"losses": {"a-crash": "lk_behind:A", "behind": "lk_behind_more:A"}, "hooks": {"x": "lk_behind_hooks"}},
        modules={
            "lk_behind.py": f"import losskit, os\nclass A:\n    {CARD}\nos.abort()\n",
            "lk_behind_more.py": f"import losskit\nclass A:\n    {CARD}\ndel A.card\n",
            "lk_behind_hooks.py": "import no_such_module\n",
        },
    )
    began = time.monotonic()
    result = losskit("doctor", "--load", "--time-limit", "20", "--json")
    assert time.monotonic() - began < 90
    assert result.returncode == 1
    problems = json.loads(result.stdout)["problems"]
    said = {(problem["distribution"], problem["target"]): problem["reason"] for problem in problems}
    assert said == {
        ("lk-raise", "lk_raise:A"): "RuntimeError: boom at import",
        ("lk-exit", "lk_exit:A"): "SystemExit: 3 at import",
        ("lk-abrupt", "lk_abrupt:A"): "importing it ended Python with exit code 7",
        ("lk-hang", "lk_hang:A"): "importing it did not end within 20 seconds",
        ("lk-segfault", "lk_segfault:A"): "importing it ended Python by SIGSEGV",
        ("lk-interrupt", "lk_interrupt:A"): "KeyboardInterrupt at import",
        ("lk-broken", "lk_broken:A"): "it needs no-such-thing, nothing is installed",
        ("lk-behind", "lk_behind:A"): "importing it ended Python by SIGABRT",
        ("lk-behind", "lk_behind_more:A"): "the card None",
        ("lk-behind", "lk_behind_hooks"): "loading it raises ModuleNotFoundError: No module named 'no_such_module'",
    }
    assert {"lk_noisy", "lk_behind_more"} <= site.imported


def test_load_finds_what_only_importing_shows(losskit, site) -> None:
    add(site, "lk-raise", "raise RuntimeError('boom')")
    result = losskit("doctor", "--load", "--allow", "lk-raise", "--block", "losskit/dense,losskit/cross-encoder")
    assert result.returncode == 1
    assert "lk-raise==1.0 lk_raise:A: broken: RuntimeError: boom at import" in result.stdout
    assert result.stderr == "problems found: 1\n"
