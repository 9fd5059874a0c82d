"""Nothing of a stranger's runs unasked, nothing that is data names code, and no text forges what losskit says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from losskit import ModelError, NotFoundError, PluginError, RecipeError, build, load, registry
from losskit.hooks import Hooks
from losskit.policy import Policy
from losskit.recipe import read_recipe
from losskit.spec import Problem
from losskit.validation.report import Check, Report
from losskit_cli import output

ESCAPES = "\x1b[31m[bold red]x[/]\x1b]0;t\x07\t\u202e\u200b\x9b"

# Nothing is executed

CARD = "card = losskit.Card(formats=[losskit.Format(['text'])])"
TRAPS = {
    "lk_trap/__init__.py": "def __getattr__(name): raise SystemExit(f'asked for {name}')\n",
    "lk_trap/deep/__init__.py": "raise SystemExit('imported')\n",
    "lk_trap/deep/loss.py": f"import losskit\nclass Trap:\n    '''A trap.'''\n    {CARD}\n    raise SystemExit\n",
    "lk_trap/card.py": "import losskit\nclass Trap:\n    card = losskit.Card(formula=open('run', 'w').name)\n",
    "lk_trap/base.py": f"import losskit\nfrom .deep.loss import Trap as Base\nclass Trap(Base):\n    {CARD}\n",
    "lk_trap/choices.py": f"from .deep import Mode\nimport losskit\nclass Trap:\n    {CARD}\n"
    "    def __init__(self, mode: Mode = 1): ...\n",
    "lk_space/part/loss.py": f"import losskit\nclass Trap:\n    {CARD}\n",
    "lk_trap_hooks.py": "import losskit\n@losskit.hookimpl\n"
    "def losskit_components(): return [('loss', 'made', 'lk_trap:X')]\n",
    "lk_trap_commands.py": "def command(): print('run')\n",
}
POINTS = {
    "losses": {
        "trap": "lk_trap.deep.loss:Trap",
        "trap-card": "lk_trap.card:Trap",
        "trap-base": "lk_trap.base:Trap",
        "trap-choices": "lk_trap.choices:Trap",
        "trap-space": "lk_space.part.loss:Trap",
        "trap-getattr": "lk_trap:anything",
        "trap-os": "os:PathLike",
        "trap-built-in": "itertools:chain",
    },
    "encoders": {"trap-encoder": "lk_trap.deep.loss:Trap"},
    "hooks": {"trap-hooks": "lk_trap_hooks"},
    "commands": {"trap-command": "lk_trap_commands:command"},
    "api": {"train": "lk_trap.deep:train"},
}


def trap(site) -> None:
    """A package that notes in `site.imported` whatever of it is imported."""
    site.add("lk-trap", points=POINTS, modules=TRAPS)


def complete(line: str, shell: str = "bash") -> dict[str, str]:
    """The variables by which a shell asks for completions."""
    if shell != "bash":
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        return {"_LOSSKIT_COMPLETE": f"complete_{shell}", **asked}
    return {
        "_LOSSKIT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ("list", {}),
        ("list --json --search trap", {}),
        ("show trap", {}),
        ("show lk-trap/trap-base --json", {}),
        ("show lk_trap.deep.loss:Trap", {}),
        ("doctor", {}),
        ("doctor --json", {}),
        ("--help", {}),
        ("show --help", {}),
        ("new loss my-margin --dry-run --json", {}),
        ("new loss trap --dry-run", {}),
        ("", complete("losskit ")),
        ("", complete("losskit show tr")),
        ("", complete("losskit list --kind l")),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_nothing_of_a_strangers_is_imported(losskit, site, arguments, environment) -> None:
    trap(site)
    result = losskit(*arguments.split(), **environment)
    assert result.returncode in (0, 1, 2)
    assert "Traceback" not in result.stderr
    assert not site.imported
    assert not Path("run").exists()


def test_the_trap_would_be_seen(site) -> None:
    trap(site)
    subprocess.run(
        [sys.executable, "-c", "import lk_space.part.loss"], env={**os.environ, "PYTHONPATH": str(site.path)}
    )
    assert site.imported == {"lk_space.part.loss"}
    registry.refresh()
    for name in ("trap", "trap-base", "trap-choices"):
        with pytest.raises(PluginError, match="SystemExit: imported at import"):
            registry.get("loss", name).load()
    assert site.imported == {"lk_space.part.loss", "lk_trap", "lk_trap.deep", "lk_trap.base", "lk_trap.choices"}


def test_a_distribution_that_calls_itself_losskit_is_not_losskit(losskit, site) -> None:
    trap(site)
    metadata = site.path / "lk_trap-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Name: lk-trap", "Name: losskit"))
    found = json.loads(losskit("list", "--json").stdout)
    assert {item["provider"] for item in found["components"]} == {"losskit"}
    assert not any(item["name"].startswith("trap") for item in found["components"])
    [problem] = found["problems"]
    assert problem["reason"] == "its METADATA says Name: losskit, but it is installed as lk-trap"
    registry.refresh()
    assert registry.api("train").__module__.startswith("losskit_plugins.")
    assert not site.imported


def test_entry_points_name_no_files_of_the_working_folder(losskit, site, home) -> None:
    for name in ("evil.py", "evil/__init__.py"):
        file = home / "work" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("open('run', 'w')\nclass Bad: ...\n")
    targets = ("evil.py:Bad", "./evil.py:Bad", "evil.py", "../work/evil.py:Bad")
    for index, target in enumerate(targets):
        points = {group: {f"evil-{index}": target} for group in ("losses", "hooks", "commands")}
        site.add(f"lk-evil-{index}", points=points)
    registry.refresh()
    hooks = Hooks()
    assert hooks.call("losskit_checks") == []
    for index in range(len(targets)):
        with pytest.raises(PluginError, match="is not module:Class"):
            registry.get("loss", f"evil-{index}").load()
        assert losskit(f"evil-{index}").returncode == 2
    assert not Path("run").exists()


# Policy comes before import

BLOCKED = [
    {"block": ["lk-trap"]},
    {"block": ["LK_Trap"]},
    {"allow": ["lk-other"]},
    {"allow": []},
    {"plugins": False},
    {"block": [f"lk-trap/{name}" for names in POINTS.values() for name in names]},
    {"allow": ["lk-trap/nothing-of-it"]},
]


@pytest.mark.parametrize("policy", BLOCKED, ids=json.dumps)
def test_what_is_blocked_is_not_imported_by_anything(site, policy) -> None:
    trap(site)
    registry.refresh(Policy.read(**policy))
    assert (Hooks().components(), Hooks().problems) == ([], [])
    assert registry.current().entries("command") == []
    for kind, group in (("loss", "losses"), ("encoder", "encoders")):
        for name in POINTS[group]:
            with pytest.raises(PluginError, match=r"blocked: .*lk-trap"):
                build(f"lk-trap/{name}", None, kind=kind)
    assert not site.imported


def test_what_hooks_generate_is_blocked_by_its_own_name(site) -> None:
    site.add(
        "lk-made",
        points={"hooks": {"makes": "lk_made_hooks"}},
        modules={
            "lk_made_hooks.py": TRAPS["lk_trap_hooks.py"].replace("lk_trap:X", "lk_made:Made"),
            "lk_made.py": f"import losskit\nclass Made:\n    {CARD}\n",
        },
    )
    registry.refresh(Policy.read(block=["lk-made/made"]))
    registry.current().add(Hooks().components())
    with pytest.raises(PluginError, match="lk-made/made is blocked by the command line"):
        registry.get("loss", "made").load()
    assert site.imported == {"lk_made_hooks"}


def test_commands_of_plugins_are_refused_by_policy(losskit, site) -> None:
    trap(site)
    for arguments in (
        ["--block", "lk-trap"],
        ["--allow", "lk-x"],
        ["--no-plugins"],
        ["--block", "lk-trap/trap-command"],
    ):
        assert losskit("trap-command", *arguments).returncode == 2
    assert losskit("trap-command", LOSSKIT_PLUGINS_BLOCK="lk-trap").returncode == 2
    assert not site.imported


# Recipes and models are data

BASE = {"encoder": "dense", "data": {"train": {"path": "a.csv"}}, "loss": "cosent", "output": "run"}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "loss: !!python/object/apply:os.system ['touch run']",
        "loss: !!python/object/new:evil.Bad {}",
        "loss: !!python/name:evil.Bad ''",
        "loss: !!python/module:evil ''",
        "loss: evil:Bad",
        "loss: evil.py",
        "loss: 'loss:loss:evil:Bad'",
        "loss: 'LOSS:evil:Bad'",
        "loss: 'lk-a/evil.py'",
        "loss: {name: ../../evil.py:Bad}",
        "loss: {name: weighted-sum, losses: ['evil-mod:Bad']}",
        "loss: {name: weighted-sum, losses: {a: {name: matryoshka, loss: 'evil-mod:Bad'}}}",
        "loss: {name: gist-embed, guide: 'evil-mod:Bad'}",
        "loss: {name: gist-embed, guide: 'evil :Bad'}",
        'loss: {name: gist-embed, guide: "a\\nb.py:Bad"}',
        "loss: {name: gist-embed, guide: 'encoder: evil:Bad'}",
        "loss: {name: gist-embed, guide: ./evil.PY:Bad}",
        "x: &x {name: 'evil:Bad'}\nloss: {<<: *x}",
        "loss: &x {name: cosent, similarity: *x}",
        "encoder: {name: evil:Bad}",
        "execution: {name: evil:Bad}",
        "execution: evil.py",
        f"{BOMB}loss: *i",
        f"loss: {'[' * 5_000}",
    ],
    ids=range(24),
)
def test_refuses_recipes_that_name_code(home, text) -> None:
    for name in ("evil.py", "evil-mod.py", "evil .py", "evil.PY"):
        Path(name).write_text("open('run', 'w')\nclass Bad: ...\n")
    Path("recipe.yaml").write_text(text)
    with pytest.raises(RecipeError):
        read_recipe([BASE, "recipe.yaml"])
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "expression",
    [
        {"name": "weighted-sum", "losses": {"evil:Bad": "no-such-loss"}},
        {"name": "gist-embed", "guide": {"name": "dense", "model": "m", "trust_remote_code": True}},
        "evil\uff1aBad",
        "evil\u2236Bad",
        "lk-a/evil:b:c",
    ],
    ids=["key", "trust", "full-width", "ratio", "colons"],
)
def test_refuses_expressions_that_only_look_like_code(home, monkeypatch, expression) -> None:
    Path("evil.py").write_text("open('run', 'w')\nclass Bad: ...\n")
    monkeypatch.syspath_prepend(str(home / "work"))
    with pytest.raises((NotFoundError, RecipeError)):
        build(expression, None)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": '{"losskit_encoder": "evil:Bad"}'},
        {"config.json": '{"losskit_encoder": "evil.py"}'},
        {"config.json": '{"losskit_encoder": "encoder:evil:Bad"}'},
        {"config.json": '{"losskit_encoder": "../evil.py:Bad"}'},
        {"config.json": '{"losskit_encoder": ["evil:Bad"]}'},
        {"config.json": '{"losskit_encoder": "no-such/encoder"}'},
        {"config.json": "{}", "recipe.yaml": "encoder: !!python/object/apply:os.system ['touch run']"},
        {"config.json": "{}", "recipe.yaml": f"encoder: {'[' * 5_000}"},
        {"config.json": "[" * 100_000},
        {"config.json": "{}", "provenance.json": "[" * 100_000},
        {"config.json": "{}", "provenance.json": '{"components": [{"distribution": "x:y", "kind": "encoder"}]}'},
        {"config_sentence_transformers.json": '{"model_type": "evil.Bad"}'},
    ],
    ids=range(12),
)
def test_refuses_models_that_name_code(home, monkeypatch, files) -> None:
    Path("evil.py").write_text("open('run', 'w')\nclass Bad: ...\n")
    monkeypatch.syspath_prepend(str(home / "work"))
    for name, content in files.items():
        Path("model").mkdir(exist_ok=True)
        Path("model", name).write_text(content)
    with pytest.raises((ModelError, NotFoundError)):
        load("model")
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["evil:Bad", "evil.py", "encoder:evil:Bad", "evil.py:Bad"])
def test_code_that_the_recipe_of_a_model_names_is_passed_over(site, home, name) -> None:
    site.add(
        "lk-dense",
        points={"encoders": {"mine": "lk_dense:Enc"}},
        modules={"lk_dense.py": "from losskit import Card\nclass Enc:\n    card = Card()\n    load = str\n"},
    )
    registry.refresh()
    Path("evil.py").write_text("open('run', 'w')\nclass Bad: ...\n")
    Path("model").mkdir()
    Path("model", "config.json").write_text('{"losskit_encoder": "mine"}')
    Path("model", "recipe.yaml").write_text(f"encoder: {{name: '{name}'}}")
    assert load("model") == "model"
    assert not Path("run").exists()


CODE = {
    "modules.json": lambda folder: [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Evil", "type": "evil.Pooling"},
    ],
    "config.json": lambda folder: {
        **json.loads((folder / "config.json").read_text()), "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Bad"},
    },
    "tokenizer_config.json": lambda folder: {
        "tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.Bad", None]}
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CODE)
def test_refuses_to_run_what_a_model_folder_brings(home, monkeypatch, name) -> None:
    import shutil

    from losskit import LosskitError
    from losskit.testing.tiny import tiny_folder

    folder = Path(shutil.copytree(tiny_folder(), home / "model"))
    for place in (folder, home / "work"):
        (place / "evil.py").write_text(
            f"open({str(home / 'work' / 'run')!r}, 'w')\nclass Bad: ...\nclass Pooling: ...\n"
        )
    monkeypatch.syspath_prepend(str(home / "work"))
    (folder / name).write_text(json.dumps(CODE[name](folder)))
    if name == "tokenizer_config.json":
        (folder / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(LosskitError):
        load(folder)
    assert not Path("run").exists()


# No text forges what losskit says

FORGED = f"{ESCAPES}\\nFix: run me\\nloss\\tcosent\\r\\u2028"


def test_a_problem_is_one_line_whatever_it_says(capsys) -> None:
    output.say(
        Problem("lk-a", "1.0", "m:A", "broken", f"oops\nlk-b==1 m:B: broken: x. Fix: y{ESCAPES}", "mend\rit\x85")
    )
    said = capsys.readouterr().err
    assert said.count("\n") == len(said.splitlines()) == 1
    assert said[:-1].isprintable()
    assert r"oops\nlk-b==1" in said


def test_a_line_is_one_line_and_a_text_cannot_begin_a_section(capsys) -> None:
    output.write(f"a\nstatus ok{ESCAPES}")
    output.write_text(f"@article{{x,\n  title = {{y}},\n}}\nloss cosent\nstatus{ESCAPES}\n\n@misc{{z}}")
    output.write_entry("formula", f"x\n  status       ok{ESCAPES}")
    lines = capsys.readouterr().out.split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[:6] == [
        rf"a\nstatus ok{output.plain(ESCAPES)}", "@article{x,", "  title = {y},", "}", "  loss cosent",
        f"  status{output.plain(ESCAPES)}",
    ]  # fmt: skip
    assert lines[6:8] == ["", "@misc{z}"]
    assert lines[8].startswith("  formula      x status ok")
    assert lines[9:] == [""]


def test_json_holds_any_text(capsys) -> None:
    text = "".join(map(chr, [*range(0x100), 0x2028, 0x202E, 0xD800, 0xFEFF, 0x1F4A5]))
    output.write_json({"text": text})
    written = capsys.readouterr().out
    assert json.loads(written)["text"] == text
    assert written.isascii()
    assert all(line.isprintable() for line in written.split("\n"))


def test_cells_have_no_tabs_and_no_lines(capsys) -> None:
    output.write_table(["name", "status"], [[f"a\tok\nloss\tb{ESCAPES}", "broken"]])
    heading, row, end = capsys.readouterr().out.split("\n")
    assert (heading, row.count("\t"), end) == ("NAME\tSTATUS", 1, "")
    assert row.replace("\t", "").isprintable()


EVIL = f"""
import losskit
class Evil:
    '''Nice.{FORGED}'''
    card = losskit.Card(
        formats=[losskit.Format(['text'])], formula="{FORGED}", citation="@x{{y}}\\nloss cosent\\n{FORGED}",
        memory="{FORGED}", relations=["{FORGED}"], requirements=["{FORGED}"], recommends=["{FORGED}"],
        aliases=["{FORGED}"], needs=["{FORGED}"], deviations={{"{FORGED}": "{FORGED}"}},
    )
    def __init__(self, model=None, text="{FORGED}", odd: "Literal['{FORGED}']" = 1): ...
"""


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ("list", {}),
        ("list --json", {}),
        ("show evil", {}),
        ("show evil --json", {}),
        ("doctor", {}),
        ("--help", {}),
        ("evil-command", {}),
        ("", complete("losskit show e")),
        ("", complete("losskit show e", "zsh")),
        ("", complete("losskit show e", "fish")),
        ("", complete("losskit ev", "fish")),
        ("", complete("losskit ", "zsh")),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_strangers_write_steers_no_terminal_and_forges_no_line(losskit, site, arguments, environment) -> None:
    points = {
        "losses": {"evil": "lk_evil:Evil", f"x{ESCAPES[:6]}": "lk_evil:Evil", "$(touch run)": "lk_evil:Evil"},
        "commands": {f"y{ESCAPES[:6]}": "lk_evil:x", "`touch run`": "lk_evil:x", "evil-command": "lk_evil:gone"},
        "nonsense": {f"[red]{ESCAPES[:6]}": f"{ESCAPES[:6]}"},
    }
    source = EVIL.replace("Nice.", "Nice \\\\$(touch run) `touch run` \"; touch run; '.")
    site.add("lk-evil", points=points, modules={"lk_evil.py": source})
    result = losskit(*arguments.split(), **environment)
    assert "Traceback" not in result.stderr
    for line in (result.stdout + result.stderr).split("\n"):
        assert line.replace("\t", "").isprintable()
        assert not line.startswith(("loss\tcosent\t\t", "Fix:", "loss cosent"))
    if not arguments:
        assert "evil" in result.stdout
        assert not set("$`;\\") & set(result.stdout.replace("\\\\:", ""))
        assert "Fix" not in result.stdout or "Nice" in result.stdout


def test_junit_is_xml_whatever_a_check_says(site) -> None:
    check = Check("x", None, "failed", f"oops{ESCAPES}\x00\ud800", expected="<a>", got="]]>\x1b", level="static")
    report = Report(f"loss evil{ESCAPES}", "loss", "static", 0, [check])
    text = ElementTree.tostring(report.to_junit(), encoding="utf-8").decode()
    ElementTree.fromstring(text)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_model_card_cannot_be_broken_out_of() -> None:
    from losskit_plugins.training.model_card import fenced

    block = fenced("bibtex", f"@x{{y}}\n```\n# Forged\n````\n{ESCAPES}")
    first, *inside, last = block.split("\n")
    assert (first, last) == ("`````bibtex", "`````")
    assert "# Forged" in inside
    assert all(line.isprintable() for line in inside)


def test_what_losskit_adopts_needs_no_plugin(site, monkeypatch) -> None:
    from losskit.adapt import view

    source = f"import losskit\nclass First:\n    {CARD}\n    adapt = print\n"
    site.add("aa-first", points={"encoders": {"aa-first": "aa_first:First"}}, modules={"aa_first.py": source})
    registry.refresh()
    ours = registry.get("encoder", "cross-encoder").load()
    monkeypatch.setattr(ours, "adapt", lambda model: "adopted")
    assert view(object()) == "adopted"
    assert not site.imported
