"""The kit tested by mutation: a planted defect is found by the check meant for it, what is right is left alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from zoo import ANY, CORRECT, DEFECTS, FOLDER, given, reference

from losskit.testing.examine import examine
from losskit.validation import Report, resolve, validate_all
from losskit.validation.report import Check

FULL = [name for name, defect in DEFECTS.items() if defect.level == "full"]
NUMERIC = [name for name in DEFECTS if name not in FULL]


def shown(report: Report) -> list[str]:
    return [f"{each.id}: {each.told()} ({each.expected}; {each.got})" for each in report.findings]


def lines(name: str) -> list[range]:
    """The lines of a class and of what it is built on in its file."""
    file, _, wanted = name.partition(":")
    classes = {
        node.name: node for node in ast.parse((FOLDER / f"{file}.py").read_text()).body if hasattr(node, "bases")
    }
    found = []
    while wanted in classes:
        node = classes[wanted]
        found.append(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        wanted = node.bases[0].id if node.bases and isinstance(node.bases[0], ast.Name) else ""
    return found


def require_found(name: str, report: Report) -> None:
    found: dict[str, Check] = {each.id: each for each in report.findings}
    assert DEFECTS[name].check in found, shown(report)
    check = found[DEFECTS[name].check]
    assert check.message
    assert check.expected
    assert check.cause
    if check.file is not None and check.line is not None:
        assert Path(check.file) == FOLDER / f"{name.partition(':')[0]}.py"
        assert any(check.line in each for each in lines(name)), check.line


@pytest.mark.parametrize("name", NUMERIC)
def test_a_defect_is_found_by_the_check_meant_for_it(name: str) -> None:
    require_found(name, examine(reference(name), only=[DEFECTS[name].check], **given(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NUMERIC)
def test_a_defect_breaks_only_what_follows_from_it(name: str) -> None:
    report = examine(reference(name), **given(name))
    require_found(name, report)
    others = {each.id for each in report.findings} - {DEFECTS[name].check}
    assert DEFECTS[name].follows == ANY or others <= {*DEFECTS[name].follows}, shown(report)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("name", FULL)
def test_a_defect_between_processes_is_found(name: str) -> None:
    require_found(name, examine(reference(name), level="full", **given(name)))


@pytest.mark.parametrize("name", CORRECT)
def test_what_is_right_gives_no_finding(name: str) -> None:
    report = examine(reference(name), **given(name))
    assert report.fine, (shown(report), report.too_few)


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("name", CORRECT)
def test_what_is_right_gives_no_finding_at_the_level_full(name: str) -> None:
    report = examine(reference(name), level="full", **given(name))
    assert report.fine, (shown(report), report.too_few)


@pytest.mark.parametrize(
    "name",
    [
        "plain_pairs:AddsGlobalNoise",
        "pairs:RemembersOutside",
        "pairs:SetsDtype",
        "drawn:DrawsGlobally",
        "drawn:Noisy",
        "small_kinds:RootOfSquares",
        "encoders:CentersBatch",
    ],
)
def test_the_same_verdict_twice(name: str) -> None:
    examine(reference(name), only=["import"], **given(name))  # which is skipped the second time
    first, second = (examine(reference(name), **given(name)).to_dict() for _ in range(2))
    assert first == second


def test_the_zoo_is_large_and_each_defect_of_another_kind() -> None:
    assert len(DEFECTS) >= 50
    assert len(CORRECT) >= 25
    assert len({defect.kind for defect in DEFECTS.values()}) == len(DEFECTS)
    plain = [name for name in DEFECTS if name.startswith("plain_")]
    assert len(plain) >= len(DEFECTS) // 4
    assert not [name for name in plain if "losskit" in (FOLDER / f"{name.partition(':')[0]}.py").read_text()]


def test_every_class_of_the_zoo_is_tried() -> None:
    public = {
        f"{file.stem}:{node.name}"
        for file in FOLDER.glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert public == {*CORRECT, *DEFECTS}


# What only processes survive


AT_IMPORT = {
    "prints": 'print("squares, version 1")',
    "seeds": "torch.manual_seed(0)",
    "sets_dtype": "torch.set_default_dtype(torch.float64)",
    "writes_a_file": 'open(__file__ + ".mark", "w").close()',
    "configures_logging": "import logging; logging.basicConfig(level=logging.DEBUG)",
    "imports_nothing": "import no_such_package_anywhere",
    "exits": "import sys; sys.exit(0)",
    "aborts": "import os; os.abort()",
    "hangs": "import time; time.sleep(3600)",
}
"""What is added to a module that is right."""
IN_CALLS = {
    "aborts_in_forward": "import os; os.abort()",
    "exits_in_forward": "import sys; sys.exit(3)",
    "kills_itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "hangs_in_forward": "import time; time.sleep(3600)",
}
"""What is added to a forward that is right."""
LIMIT = 6.0


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """What processes of their own say of modules that end, hang or write."""
    folder = tmp_path_factory.mktemp("modules")
    source = (FOLDER / "squares.py").read_text()
    texts = {"sound": source}
    texts |= {name: source.replace("\n\n\nclass", f"\n\n{line}\n\n\nclass", 1) for name, line in AT_IMPORT.items()}
    start = '"""The mean over pairs."""\n'
    texts |= {name: source.replace(start, f"{start}        {line}\n", 1) for name, line in IN_CALLS.items()}
    for name, text in texts.items():
        assert name == "sound" or text != source
        (folder / f"{name}.py").write_text(text)
    targets = [resolve(f"{folder / name}.py:Squares", inputs=("anchor", "positive")) for name in texts]
    found = validate_all(targets, level="interface", time_limit=LIMIT, jobs=2)
    return dict(zip(texts, found, strict=True))


@pytest.mark.slow
@pytest.mark.multiprocess
class TestProcesses:
    """Modules that a process of its own survives."""

    def test_a_sound_module_passes(self, reports: dict[str, Report]) -> None:
        assert reports["sound"].fine, shown(reports["sound"])

    @pytest.mark.parametrize("name", AT_IMPORT)
    def test_what_happens_at_import_is_found(self, reports: dict[str, Report], name: str) -> None:
        found = {each.id: each for each in reports[name].findings}
        assert found["import"].message, shown(reports[name])

    @pytest.mark.parametrize("name", IN_CALLS)
    def test_an_end_in_a_call_is_a_finding_of_the_check_that_called(
        self, reports: dict[str, Report], name: str
    ) -> None:
        report = reports[name]
        assert report.findings
        assert {each.id for each in report.checks} >= {"import", "constructor"}
        assert "import" not in {each.id for each in report.findings}


def test_an_example_that_is_wrong_is_found(tmp_path: Path) -> None:
    source = (FOLDER / "squares.py").read_text()
    wrong = source.replace("    Args:\n", "    >>> 1 + 1\n    3\n\n    Args:\n", 1)
    (tmp_path / "examples.py").write_text(wrong)
    report = examine(f"{tmp_path / 'examples.py'}:Squares", inputs=("anchor", "positive"), only=["examples"])
    assert [each.id for each in report.findings] == ["examples"], shown(report)


@pytest.mark.slow
def test_the_verdict_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from zoo import given, reference;"
        "from losskit.testing.examine import examine;"
        "print(json.dumps(examine(reference(sys.argv[2]), **given(sys.argv[2])).to_dict()))"
    )
    arguments = [sys.executable, "-c", code, str(FOLDER.parents[1] / "helpers"), "pairs:SharesState"]
    found = [
        subprocess.run(arguments, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert found[0]
    assert found[0] == found[1]
