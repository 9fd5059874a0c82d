from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import losskit as package

MARKED = "import losskit\n"


def test_version_and_help(losskit) -> None:
    assert losskit("--version").stdout == f"losskit {package.__version__}\n"
    result = losskit("--help")
    assert (result.returncode, result.stderr) == (0, "")
    options = ("--allow", "--block", "--no-plugins", "--install-completion")
    for word in ("list", "show", "validate", "train", "doctor", *options):
        assert word in result.stdout
    assert losskit("-h").stdout == result.stdout


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("losskit")
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"losskit {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "No such command 'lst'"),
        (["list", "--nope"], "No such option"),
        (["list", "--kind", "los"], "losskit: kind: expected one of loss, "),
        (["list", "--kind"], "requires an argument"),
        (["show"], "Missing argument"),
        (["show", "cosnt"], "losskit: no component is named 'cosnt'. Fix: did you mean 'cos"),
        (["list", "--block"], "losskit: --block: expected a distribution, got none"),
        (["list", "--allow", "--json"], "losskit: --allow: expected a distribution, got --json"),
    ],
)
def test_wrong_input_exits_with_2_and_one_clear_line(losskit, arguments, said) -> None:
    result = losskit(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(losskit) -> None:
    for arguments in (["show", "cosnt", "--debug"], ["--debug", "show", "cosnt"]):
        result = losskit(*arguments)
        assert result.returncode == 2
        assert "Traceback" in result.stderr


def test_a_configuration_that_cannot_be_read_is_the_users_input(losskit, home) -> None:
    (home / "work" / "pyproject.toml").write_text("[tool.losskit]\nalow = []\n")
    result = losskit("list")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean 'allow'" in result.stderr
    assert losskit("--help").returncode == 0
    assert losskit("list", "--no-plugins").returncode == 0


def test_policy_options_stand_anywhere(losskit, site) -> None:
    site.add_loss("lk-a", "toy-a")
    site.add_loss("lk-b", "toy-b")

    def statuses(*arguments: str, **environment: str) -> list[str]:
        result = losskit(*arguments, "--json", **environment)
        components = json.loads(result.stdout)["components"]
        return [item["status"] for item in components if item["provider"] in ("lk-a", "lk-b")]

    assert statuses("list") == ["ok", "ok"]
    assert statuses("--block", "lk-a", "list") == statuses("list", "--block=LK_A") == ["blocked", "ok"]
    assert statuses("list", "--allow", "lk-a") == ["ok", "blocked"]
    assert statuses("list", "--block", "lk-a,lk-b/toy-b") == ["blocked", "blocked"]
    assert statuses("list", "--no-plugins") == ["blocked", "blocked"]
    assert statuses("list", LOSSKIT_PLUGINS_BLOCK="lk-b") == ["ok", "blocked"]
    assert statuses("list", LOSSKIT_PLUGINS_ALLOW="") == ["blocked", "blocked"]
    assert not site.imported


COMMANDS = """
import typer

app = typer.Typer()

@app.command()
def one(name: str = "you"):
    "Greets."
    print("one", name)

@app.command()
def two():
    raise typer.Exit(4)

def plain(count: int):
    "A plain function."
    print("plain", count + 1)
"""


def test_commands_of_plugins_are_named_and_imported_only_when_called(losskit, site) -> None:
    points = {"commands": {"greet": "lk_a:app", "plain": "lk_a:plain"}}
    site.add("lk-a", points=points, modules={"lk_a.py": COMMANDS})
    assert re.search(r"greet +From lk-a==1\.0", losskit("--help").stdout)
    losskit("list")
    assert not site.imported
    assert losskit("greet", "one", "--name", "me").stdout == "one me\n"
    assert site.imported == {"lk_a"}
    assert losskit("plain", "3").stdout == "plain 4\n"
    assert losskit("plain", "x").returncode == 2
    assert losskit("greet", "two").returncode == 4
    assert "Greets." in losskit("greet", "--help").stdout
    assert "greet" not in losskit("--help", "--no-plugins").stdout
    assert losskit("greet", "one", "--block", "lk-a").returncode == 2


def test_commands_of_plugins_that_fail_exit_with_3(losskit, site) -> None:
    site.add("lk-a", points={"commands": {"boom": "lk_a:app"}}, modules={"lk_a.py": "raise RuntimeError('boom')"})
    site.add("lk-b", points={"commands": {"leave": "lk_b:app"}}, modules={"lk_b.py": "import sys; sys.exit(0)"})
    site.add("lk-c", points={"commands": {"none": "lk_c:app"}}, modules={"lk_c.py": "app = 3"})
    late = {"points": {"commands": {"late": "lk_d:app"}}, "modules": {"lk_d.py": "app = 3"}}
    site.add("lk-d", **late, requires=["losskit>=99"])
    for name, provider in (
        ("boom", "lk-a 1.0 (lk_a:app): got RuntimeError: boom"),
        ("leave", "lk-b 1.0"),
        ("none", "lk-c 1.0 (lk_c:app): got TypeError: it is int, neither a Typer application nor a command"),
        ("late", "lk-d 1.0 (lk_d:app): got it needs losskit>=99, "),
    ):
        result = losskit(name)
        assert result.returncode == 3
        assert provider in result.stderr
        assert "Traceback" not in result.stderr
    assert "lk_d" not in site.imported
    assert losskit("list").returncode == 0


def test_our_commands_cannot_be_replaced_and_doubles_are_refused(losskit, site) -> None:
    for name in ("lk-a", "lk-b"):
        module = name.replace("-", "_")
        points = {"commands": {"list": f"{module}:plain", "twice": f"{module}:plain"}}
        site.add(name, points=points, modules={f"{module}.py": COMMANDS})
    assert "cosent" in losskit("list").stdout
    result = losskit("twice")
    assert result.returncode == 2
    assert "command 'twice' is provided by lk-a==1.0 and lk-b==1.0" in result.stderr
    found = json.loads(losskit("doctor", "--json").stdout)["problems"]
    assert [(each["distribution"], each["status"], each["reason"]) for each in found] == [
        ("lk-a", "broken", "losskit has a command 'list' itself"),
        ("lk-a", "ambiguous", "the command 'twice' is also provided by lk-b==1.0"),
        ("lk-b", "broken", "losskit has a command 'list' itself"),
        ("lk-b", "ambiguous", "the command 'twice' is also provided by lk-a==1.0"),
    ]
    assert not site.imported
    assert losskit("twice", "1", "--block", "lk-a").stdout == "plain 2\n"


def test_what_nobody_expected_exits_with_70_and_a_report(losskit, site, tmp_path) -> None:
    source = "import losskit\ndef crash():\n    raise KeyError('unforeseen')\n"
    site.add("lk-a", points={"commands": {"crash": "lk_a:crash"}}, modules={"lk_a.py": source})
    result = losskit("crash", TMPDIR=str(tmp_path))
    assert result.returncode == 70
    assert "Traceback" not in result.stderr
    [report] = re.findall(r"A report is in (\S+)", result.stderr)
    assert "KeyError: 'unforeseen'" in Path(report).read_text()
    assert result.stderr.startswith(
        "losskit: error in command 'crash' of lk-a 1.0 (lk_a:crash): KeyError: 'unforeseen'. "
    )
    assert "Traceback" in losskit("crash", "--debug", TMPDIR=str(tmp_path)).stderr


def test_an_interrupt_exits_with_130(site) -> None:
    source = "import time\ndef wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
    site.add("lk-a", points={"commands": {"wait": "lk_a:wait"}}, modules={"lk_a.py": source})
    process = subprocess.Popen(
        [sys.executable, "-m", "losskit_cli", "wait"],
        env={**os.environ, "PYTHONPATH": str(site.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # What runs in the background of a shell ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 130


def test_a_reader_that_leaves_early_is_no_error(site) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "losskit_cli", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdout.close()
        time.sleep(0)
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", ["--version", "list --json", "show multiple-negatives-ranking"])
def test_a_full_disk_is_one_line(arguments) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "losskit_cli", *arguments.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 2
    assert re.fullmatch(r"losskit: .*No space left on device.*\n", result.stderr)


def test_closed_streams_are_no_error() -> None:
    command = f"{shlex.quote(sys.executable)} -m losskit_cli list >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("losskit ", {"list", "show", "validate", "new", "train", "doctor", "greet"}),
        ("losskit show cos", {"cosent", "cosine", "cosine-similarity"}),
        ("losskit show to", {"toy"}),
        ("losskit list --kind w", {"wrapper", "weighting"}),
        ("losskit list --inputs anchor,pos", {"anchor,positive"}),
        ("losskit list --st", {"--status", "--strict"}),
    ],
)
def test_the_shell_completes_names_without_torch(losskit, site, line, offered) -> None:
    site.add_loss("lk-b", "toy")
    site.add("lk-a", points={"commands": {"greet": "lk_a:app"}}, modules={"lk_a.py": COMMANDS})
    words = line.split(" ")
    result = losskit(_LOSSKIT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1))
    assert set(result.stdout.split()) == offered
    assert not site.imported


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        (["--version"], {}),
        (["list"], {}),
        (["list", "--kind", "loss", "--json"], {}),
        (["list", "--kind", "los"], {}),
        (["show", "cosent"], {}),
        (["validate", "--help"], {}),
        (["new", "loss", "my-margin", "--dry-run"], {}),
        ([], {"_LOSSKIT_COMPLETE": "complete_bash", "COMP_WORDS": "losskit show co", "COMP_CWORD": "2"}),
    ],
)
def test_commands_that_only_look_import_nothing_heavy(site, arguments, environment) -> None:
    heavy = ("torch", "transformers", "datasets", "pydantic", "packaging")
    program = (
        "import sys; from losskit_cli.app import main; sys.argv[0] = 'losskit'\n"
        f"try:\n    main()\nfinally:\n    print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.endswith("HEAVY []\n")
