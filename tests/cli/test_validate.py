"""`losskit validate` as it is called: targets, exit codes, what is written, and what is left behind."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from rich.console import Console

import losskit.validation.report
from losskit.validation import Check, Report
from losskit.validation.run import validate as validate_for_real
from losskit_cli import validate as command
from losskit_cli.progress import CheckBar

MINIMUM = {"static": {"loss": 2}, "interface": {"loss": 5}, "numeric": {"loss": 12}}
PASSED = [Check(f"check-{number}", number, "passed") for number in range(1, 13)]
ENOUGH = [
    *(Check(name, None, "passed", level="static") for name in ("entry-point", "card")),
    *(
        Check(name, None, "passed", level="interface")
        for name in ("import", "protocol", "constructor", "copies", "ids")
    ),
    *PASSED,
]
FAILED = Check(
    "gradient", None, "failed", "what the gradient says is not what finite differences give", "0.5", "0.25",
    "/folder/mine.py", 12, "dense-anchor-1-rows: anchor ['sun']", "a branch that is detached",
)  # fmt: skip
SKIPPED = Check("processes", 4, "skipped", "gloo is not there")
DEVIATING = Check("batch-size", None, "deviating", "the paper sums")
INAPPLICABLE = Check("of-lists-alone", 5, "not_applicable", "it reads no lists")
MIXED = [*ENOUGH, INAPPLICABLE, FAILED, SKIPPED, DEVIATING]


def report(*checks: Check, target: str = "cosent", **settings) -> Report:
    return Report(target, "loss", settings.pop("level", "numeric"), 0, checks or tuple(ENOUGH), **settings)


@pytest.fixture
def call(in_process):
    return partial(in_process, "validate")


@pytest.fixture
def gives(monkeypatch):
    """Let validations give these reports; what they were asked is noted."""
    asked: list[tuple[object, dict[str, object]]] = []

    def use(*reports: Report) -> list[tuple[object, dict[str, object]]]:
        def one(target, *, on_check, **settings):
            asked.append((target, settings))
            on_check("gradient")
            return reports[0]

        def several(targets, *, on_report, **settings):
            asked.append((targets, settings))
            for each in reversed(reports):
                on_report(each)
            return list(reports)

        monkeypatch.setattr(command, "validate_one", one)
        monkeypatch.setattr(command, "validate_all", several)
        monkeypatch.setattr(losskit.validation.report, "MINIMUM", MINIMUM)
        return asked

    return use


# What is asked


def test_options_are_yaml_and_all_that_describes_a_target_is_handed_on(call, gives, home) -> None:
    (home / "work" / "mine.py").write_text(
        "class Mine:\n    def __init__(self, model, margin, loss=None, deep=None): ...\n"
    )
    asked = gives(report())
    options = ["margin=2e-1", "loss=cosent", "loss.scale=10", "deep={a: [1, no]}"]
    described = ["--inputs", "anchor,positive,negative*", "--labels", "score", "--encoder", "sparse"]
    code, _, _ = call(
        "mine.py:Mine", *options, *described, "--seed", "3", "--level", "full", "--select", "gradient,a/b"
    )
    assert code == 0
    [(target, settings)] = asked
    assert target.options == {"margin": 0.2, "loss": {"name": "cosent", "scale": 10}, "deep": {"a": [1, "no"]}}
    assert [(form.inputs, form.labels) for form in target.formats] == [(("anchor", "positive", "negative*"), "score")]
    assert (target.encoders, target.kind) == (("sparse",), None)
    assert settings == {"level": "full", "only": ["gradient", "a/b"], "seed": 3, "time_limit": 60.0}


def test_all_means_every_component_or_those_of_a_kind(call, gives) -> None:
    asked = gives(report())
    assert call("--all", "--level", "static", "--jobs", "3")[0] == 0
    assert call("--all", "--kind", "similarity")[0] == 0
    (everything, settings), (similarities, others) = asked
    assert {target.kind for target in everything} == {
        "loss", "wrapper", "regularizer", "weighting", "similarity", "encoder",
    }  # fmt: skip
    assert {target.kind for target in similarities} == {"similarity"}
    assert (settings["level"], settings["jobs"], others["jobs"]) == ("static", 3, None)


def test_where_nothing_matches_the_exit_code_is_4(call, gives) -> None:
    asked = gives(report())
    names = ",".join(f"losskit/{name}" for name in WEIGHTINGS)
    assert call("--all", "--kind", "weighting", "--block", names) == (4, "", "nothing matched\n")
    assert not asked


@pytest.mark.parametrize("seed", ["-1", str(2**32), "one"])
def test_refuses_seeds_that_no_generator_takes(call, gives, seed) -> None:
    asked = gives(report())
    code, out, err = call("cosent", "--seed", seed)
    assert (code, out, asked) == (2, "", [])
    assert "Invalid value for '--seed'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "TARGET: expected one component, or --all, got none"),
        (["cosent", "angle"], "TARGET: expected one component, or --all, got cosent, angle"),
        (["cosent", "--all"], "--all: expected no target beside it, nor what describes one, got cosent"),
        (["--all", "scale=3"], "--all: expected no target beside it, nor what describes one, got scale=3"),
        (["--all", "--inputs", "text"], "--all: expected no target beside it, nor what describes one, got --inputs"),
        (["--all", "--kind", "los"], "kind: expected one of loss, "),
        (["cosnt"], "no component is named 'cosnt'. Fix: did you mean 'cos"),
        (["loss:cosnt"], "no loss is named 'cosnt'. Fix: did you mean 'cosent'"),
        (["nowhere.py:Mine"], "loss 'nowhere.py:Mine': got "),
        (["cosent", "scal=3"], "scal: expected an option of cosent (scale, similarity), got an unknown one. Fix: did"),
        (["cosent", "scale=[1"], "override scale, line 1: no YAML"),
        (["cosent", "--level", "numerc"], "--level: expected one of static, interface, numeric, full, gpu, got "),
        (["cosent", "--select", "gradeint"], "--select: expected ids of checks, got 'gradeint'. Fix: did you mean '"),
        (["cosent", "--labels", "scroe", "--inputs", "text"], "--labels: expected one of none, "),
        (["cosent", "--labels", "score"], "--labels: expected --inputs beside it"),
        (["cosent", "--encoder", "dens"], "--encoder: expected one of dense, sparse, multi-vector, got 'dens'. Fix"),
        (["cosent", "--encoder", "cross-encoder"], "--encoder: expected one of dense, sparse, multi-vector, got "),
        (["cosent", "--kind", "similarity"], "no similarity is named 'cosent'"),
        (["cosent", "--junit", "missing/folder/report.xml"], "--junit missing/folder/report.xml: expected a file in a"),
        (["cosent", "--junit", "."], "--junit .: expected a file in a folder that can be written"),
    ],
)  # fmt: skip
def test_refuses_mistakes_in_one_line_with_exit_code_2(call, gives, arguments, message) -> None:
    asked = gives(report())
    code, out, err = call(*arguments)
    assert (code, out, asked) == (2, "", [])
    assert err.startswith(f"losskit: {message}")
    assert err.count("\n") == 1


# What is said


@pytest.mark.parametrize(
    ("reports", "code", "said"),
    [
        ([report()], 0, ""),
        ([report(*MIXED)], 1, ""),
        ([report(FAILED)], 1, "too few checks ran: cosent: static: 0 of at least 2 checks ran"),
        ([report(*PASSED)], 4, "too few checks ran: cosent: static: 0 of at least 2 checks ran"),
        ([report(*PASSED[:1], restricted=True)], 0, ""),
        ([report(SKIPPED, restricted=True)], 4, "too few checks ran: none of those selected could be made"),
    ],
    ids=["fine", "findings", "findings win", "too few", "restricted", "restricted to nothing"],
)
def test_exit_codes(call, gives, reports, code, said) -> None:
    gives(*reports)
    got, _, err = call("cosent")
    assert (got, err.strip()) == (code, said)
    assert call("--all")[0] == code


def test_a_pipe_gets_a_line_for_each_check_then_the_findings_and_counts(call, gives) -> None:
    gives(report(*MIXED))
    code, out, err = call("cosent")
    assert (code, err) == (1, "")
    table, finding, counts = out.split("\n\n")
    lines = [line.split("\t") for line in table.splitlines()]
    assert lines[0] == ["CHECK", "LAW", "STATUS", "WHY"]
    assert lines[1:3] == [["entry-point", "", "passed", ""], ["card", "", "passed", ""]]
    assert lines[-4:] == [
        ["of-lists-alone", "5", "not applicable", "it reads no lists"],
        ["processes", "4", "skipped", "gloo is not there"],
        ["batch-size", "", "deviating", "the paper sums"],
        ["gradient", "", "failed", "/folder/mine.py:12"],
    ]
    assert finding.splitlines() == [
        "cosent: gradient failed",
        "  found        what the gradient says is not what finite differences give",
        "  example      dense-anchor-1-rows: anchor ['sun']",
        "  expected     0.5",
        "  got          0.25",
        "  at           /folder/mine.py:12",
        "  usual cause  a branch that is detached",
    ]
    assert counts == "19 passed, 1 failed, 1 skipped, 1 deviating, 1 not applicable\n"


@pytest.mark.parametrize("columns", [24, 40, 80])
@pytest.mark.parametrize("arguments", [["cosent"], ["--all"]], ids=["one", "all"])
def test_a_terminal_gets_what_fits_its_width(call, gives, monkeypatch, columns, arguments) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    target = "loss:a-distribution/a-loss-with-a-name-that-is-longer-than-most"
    gives(report(*MIXED, target=target), report(target="loss:losskit/cosent"))
    code, out, err = call(*arguments)
    assert (code, err) == (1, "")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert max(map(len, lines)) <= columns
    joined = "".join(line.strip() for line in lines).replace(" ", "")
    assert "usualcauseabranchthatisdetached" in joined
    if columns == 80:
        if arguments == ["cosent"]:
            assert "  static       entry-point, card" in lines
            assert any(line.startswith("  numeric      check-1 (1), check-2 (2)") for line in lines)
        assert not any("check-1" in line for line in lines if "passed" in line)


def test_quiet_is_findings_and_counts(call, gives) -> None:
    gives(report(*MIXED))
    counts = "19 passed, 1 failed, 1 skipped, 1 deviating, 1 not applicable"
    for arguments in (["cosent"], ["--all"]):
        code, out, err = call(*arguments, "--quiet")
        assert (code, err) == (1, "")
        first, *_, last = out.strip().splitlines()
        assert first == "cosent: gradient failed"
        assert last.removeprefix("1 components: ") == counts
        assert "\t" not in out
    gives(report())
    assert call("cosent", "--quiet")[1] == "19 passed, 0 failed, 0 skipped, 0 deviating, 0 not applicable\n"


def test_json_has_the_shape_of_the_contracts(call, gives) -> None:
    gives(report(*MIXED))
    code, out, err = call("cosent", "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert list(found) == ["schema", "target", "level", "seed", "counts", "checks"]
    assert (found["schema"], found["target"], found["level"], found["seed"]) == (1, "cosent", "numeric", 0)
    assert found["counts"] == {"passed": 19, "failed": 1, "skipped": 1, "deviating": 1, "not_applicable": 1}
    keys = ["id", "law", "status", "message", "expected", "got", "file", "line"]
    assert all(list(check) == keys for check in found["checks"])
    assert found["checks"][1] == dict.fromkeys(keys, "") | {
        "id": "card", "law": None, "status": "passed", "file": None, "line": None,
    }  # fmt: skip


def test_json_of_all_holds_the_reports_without_their_schema(call, gives) -> None:
    gives(report(*MIXED), report(target="angle"))
    code, out, err = call("--all", "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert list(found) == ["schema", "level", "seed", "counts", "reports"]
    assert found["counts"] == {"passed": 38, "failed": 1, "skipped": 1, "deviating": 1, "not_applicable": 1}
    assert [list(each) for each in found["reports"]] == [["target", "level", "seed", "counts", "checks"]] * 2
    assert [each["target"] for each in found["reports"]] == ["cosent", "angle"]


def test_all_in_a_pipe_gives_a_line_for_each_as_it_is_done_and_reasons_below(call, gives) -> None:
    gives(report(*MIXED, target="loss:losskit/cosent"), report(*PASSED, target="loss:losskit/angle"))
    code, out, _ = call("--all")
    assert code == 1
    rows, noted, finding, counts = out.split("\n\n")
    assert rows.splitlines() == [
        "KIND\tTARGET\tPASSED\tFAILED\tSKIPPED\tDEVIATING\tNOT APPLICABLE\tRESULT",
        "loss\tlosskit/angle\t12\t0\t0\t0\t0\ttoo few",
        "loss\tlosskit/cosent\t19\t1\t1\t1\t1\tfailed",
    ]
    assert noted.splitlines() == [
        "TARGET\tCHECK\tSTATUS\tWHY",
        "loss:losskit/cosent\tprocesses\tskipped\tgloo is not there",
        "loss:losskit/cosent\tbatch-size\tdeviating\tthe paper sums",
    ]
    assert finding.startswith("loss:losskit/cosent: gradient failed\n")
    assert counts == "2 components: 31 passed, 1 failed, 1 skipped, 1 deviating, 1 not applicable\n"


def test_what_a_target_says_cannot_steer_the_terminal(call, gives, monkeypatch) -> None:
    evil = "\x1b[31m[red]x[/]\n\u202ey"
    bad = Check("gradient", None, "failed", evil, evil, evil, evil, 1, evil, evil)
    gives(report(bad, Check("leak", None, "deviating", evil)))
    monkeypatch.setenv("NO_COLOR", "1")
    for tty in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda tty=tty: tty, raising=False)
        for arguments in (["cosent"], ["--all"]):
            out = re.sub(r"\x1b\[[01]m", "", call(*arguments)[1])
            assert not set(re.findall(r"[\x00-\x08\x0b-\x1f\u202e]", out))
            assert "[red]" in out


def test_what_is_long_is_cut_but_in_json(call, gives) -> None:
    gives(report(Check("untouched", 6, "failed", "m" * 9999, "e" * 9999)))
    assert max(map(len, call("cosent")[1].splitlines())) < 600
    assert "e" * 9999 in call("cosent", "--json")[1]


# JUnit


def test_junit_has_a_suite_for_each_target(call, gives, home) -> None:
    gives(report(*MIXED), report(*PASSED, target="ang\x00le"))
    assert call("--all", "--junit", "out.xml")[0] == 1
    file = home / "work" / "out.xml"
    root = Xml.parse(file).getroot()
    assert (root.tag, root.attrib) == (
        "testsuites",
        {"name": "losskit validate", "tests": "36", "failures": "1", "errors": "1", "skipped": "3"},
    )
    assert [suite.get("name") for suite in root] == ["cosent", "ang\\x00le"]
    [failure] = root.iter("failure")
    assert "expected: 0.5\ngot: 0.25" in failure.text
    assert list(file.parent.iterdir()) == [file]


def test_junit_is_written_whole_or_untouched(call, gives, home, monkeypatch) -> None:
    gives(report())
    file = home / "work" / "out.xml"
    file.write_text("old")
    monkeypatch.setattr(command, "validate_one", _interrupted)
    assert call("cosent", "--junit", "out.xml")[0] == 130
    assert (file.read_text(), list(file.parent.iterdir())) == ("old", [file])
    monkeypatch.setattr(command, "validate_one", lambda *_, **__: report())
    assert call("cosent", "--junit", "out.xml")[0] == 0
    assert Xml.parse(file).getroot().get("tests") == "19"


def _interrupted(*_, **__) -> Report:
    raise KeyboardInterrupt


def test_refuses_a_junit_file_whose_folder_vanishes(call, home, monkeypatch) -> None:
    folder = home / "work" / "out"
    folder.mkdir()

    def vanish(*_, **__) -> Report:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return report()

    monkeypatch.setattr(command, "validate_one", vanish)
    code, out, err = call("cosent", "--junit", "out/report.xml")
    assert (code, out) == (2, "")
    assert err.startswith("losskit: --junit out/report.xml: expected a file in a folder that can be written, got File")


# The bar


def test_the_bar_shows_what_is_under_way_on_a_terminal_only() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=60, color_system=None)
        with CheckBar(console=console) as bar:
            bar.begin("gradient")
            bar.begin("evil[red]\x1b[31m")
            bar.bars.refresh()
        shown = console.file.getvalue()
        assert ("evil[red]\\x1b[31m" in shown and "1/?" in shown) is terminal
        assert (shown == "") is not terminal
    console = Console(file=io.StringIO(), force_terminal=True, width=60, color_system=None)
    with CheckBar(total=3, console=console) as bar:
        bar.end("loss:cosent")
        bar.bars.refresh()
    assert re.search(r"loss:cosent .*1/3", console.file.getvalue())
    console = Console(file=io.StringIO(), force_terminal=True)
    with CheckBar(quiet=True, console=console):
        pass
    assert console.file.getvalue() == ""


# In earnest


def test_level_static_imports_neither_the_target_nor_torch(losskit, site) -> None:
    site.add_loss("lk-a")
    (site.path / "torch.py").write_text("raise RuntimeError('torch is imported')")
    result = losskit("validate", "toy", "--level", "static", "--json")
    found = json.loads(result.stdout)
    assert {check["id"] for check in found["checks"]} >= {"entry-point", "card", "docstring", "packaging", "source"}
    assert not site.imported
    assert losskit("validate", "--help").returncode == 0


def test_what_cannot_be_used_is_found_or_refused(losskit, site) -> None:
    site.add_loss("lk-one", "twice")
    site.add_loss("lk-two", "twice")
    site.add(
        "lk-computed",
        points={"losses": {"computed": "lk_computed:A"}},
        modules={"lk_computed.py": "import losskit\nTEXT = ''\nclass A:\n    card = losskit.Card(citation=TEXT)\n"},
    )
    broken = losskit("validate", "computed", "--level", "static", "--json")
    assert broken.returncode == 1
    card = next(check for check in json.loads(broken.stdout)["checks"] if check["id"] == "card")
    assert (card["status"], card["file"], card["line"]) == ("failed", str(site.path / "lk_computed.py"), 5)
    blocked = losskit("validate", "computed", "--level", "static", "--block", "lk-computed")
    assert (blocked.returncode, blocked.stdout) == (2, "")
    assert "loss 'lk-computed/computed': got blocked: lk-computed is blocked by the command line" in blocked.stderr
    ambiguous = losskit("validate", "twice", "--level", "static")
    assert ambiguous.returncode == 2
    assert "lk-one==1.0, lk-two==1.0" in ambiguous.stderr
    assert losskit("validate", "lk-one/twice", "--level", "static").returncode == 1  # its docstring names no option
    assert not site.imported


CHECKS = """
import losskit
from losskit.testing import Violation, law

@law(None, "weighting", cause="a name that is too short")
def long_name(subject):
    "The class has a long name."
    raise Violation("the name is compared", "100 letters", len(subject.looked_at.__name__))

@losskit.hookimpl
def losskit_checks():
    return [long_name, 3]
"""


def test_checks_of_other_packages_run_and_their_faults_are_said(losskit, site) -> None:
    site.add("lk-a", points={"hooks": {"checks": "lk_a"}}, modules={"lk_a.py": CHECKS})
    site.add("lk-b", points={"hooks": {"checks": "lk_b"}}, modules={"lk_b.py": "raise RuntimeError('boom')"})
    result = losskit("validate", "weighting:no-weighting", "--select", "card,lk-a/long-name")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[1] == "card\t\tpassed\t"
    assert "weighting:no-weighting: lk-a/long-name failed" in lines
    assert "  expected     100 letters" in lines
    assert lines[-1] == "1 passed, 1 failed, 0 skipped, 0 deviating, 0 not applicable"
    assert (
        "lk-a==1.0 lk_a: broken: losskit_checks gives an object of type int, no law of losskit.testing" in result.stderr
    )
    assert "lk-b==1.0 lk_b: broken: loading it raises RuntimeError: boom" in result.stderr
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("source", "reason"), [("while True: pass", "did not end"), ("import os; os._exit(3)", "code 3")]
)
def test_hooks_that_never_end_are_held_against_their_package(losskit, site, source, reason) -> None:
    site.add("lk-a", points={"hooks": {"checks": "lk_a"}}, modules={"lk_a.py": source})
    site.add("lk-b", points={"hooks": {"checks": "lk_b"}}, modules={"lk_b.py": CHECKS})
    chosen = ("--select", "card,lk-a/hooks,lk-b/long-name", "--time-limit", "5")
    found = json.loads(losskit("validate", "weighting:no-weighting", "--json", *chosen).stdout)
    checks = {check["id"]: check for check in found["checks"]}
    assert [*checks] == ["card", "lk-a/hooks", "lk-b/long-name"]
    assert reason in checks["lk-a/hooks"]["message"]
    assert checks["lk-a/hooks"]["file"] is None


SLEEPS = """
import os, subprocess, time
from pathlib import Path
child = subprocess.Popen(["sleep", "600"])
Path("pids").open("a").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
class Mine: ...
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(condition, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.multiprocess
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.parametrize("arguments", [["hangs.py:Mine"], ["--all", "--kind", "weighting", "--jobs", "2"]])
def test_no_process_is_left_behind(site, home, sent, arguments) -> None:
    """Of two components that hang at import, each with a child, when the command is ended while they do."""
    site.add("lk-a", points={"weightings": {"a": "lk_a:Mine"}}, modules={"lk_a.py": SLEEPS})
    site.add("lk-b", points={"weightings": {"b": "lk_b:Mine"}}, modules={"lk_b.py": SLEEPS})
    (home / "work" / "hangs.py").write_text(SLEEPS)
    noted, wanted = home / "work" / "pids", 2 if "--all" in arguments else 1
    temporary = home / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "losskit_cli", "validate", *arguments, "--level", "interface", "--block",
         ",".join(f"losskit/{name}" for name in WEIGHTINGS)],
        env={**os.environ, "PYTHONPATH": str(site.path), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with process:
        assert _until(lambda: noted.exists() and len(noted.read_text().splitlines()) == wanted)
        began = time.monotonic()
        process.send_signal(sent)
        process.wait()
        assert time.monotonic() - began < 30
    assert process.returncode == (130 if sent == signal.SIGINT else -9)
    pids = [int(pid) for pid in noted.read_text().split()]
    assert _until(lambda: not any(map(_alive, pids)), 10)
    assert _until(lambda: not any(temporary.iterdir()), 10)


WEIGHTINGS = ("lambda-rank", "ndcg-loss1", "ndcg-loss2", "ndcg-loss2pp", "no-weighting")


@pytest.mark.multiprocess
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_processes_that_a_target_starts_end_with_its_level(home) -> None:
    file = home / "work" / "starts.py"
    file.write_text(SLEEPS.replace("time.sleep(600)", ""))
    validate_for_real("starts.py:Mine", level="interface")
    pids = [int(line.split()[1]) for line in (home / "work" / "pids").read_text().splitlines()]
    assert pids
    assert _until(lambda: not any(map(_alive, pids)), 10)


@pytest.mark.multiprocess
def test_a_crash_and_a_hang_are_findings_and_the_command_goes_on(call, home, monkeypatch) -> None:
    (home / "work" / "crash.py").write_text("import os\nos.abort()\nclass Mine: ...\n")
    (home / "work" / "hang.py").write_text("import time\ntime.sleep(600)\nclass Mine: ...\n")
    begun: list[str] = []
    monkeypatch.setattr(
        command, "validate_one", lambda target, **given: validate_for_real(target, **given | {"on_check": begun.append})
    )
    code, out, _ = call("crash.py:Mine", "--level", "interface")
    assert code == 1
    assert "\nimport\t\tfailed\tcrash.py:3\n" in out
    assert "  found        it ended Python by SIGABRT" in out
    assert begun == ["import"]
    code, out, _ = call("hang.py:Mine", "--level", "interface", "--time-limit", "2")
    assert code == 1
    assert "  found        it did not end within 2 seconds" in out
