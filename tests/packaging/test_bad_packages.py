"""A zoo of bad packages, really built and installed: what losskit says of each, and that all else goes on."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.bad_packages import HARMLESS, ZOO, Bad, Said, many, one_with_many
from tests.helpers.packages import Environment, Package, loss_package

from losskit import find

pytestmark = pytest.mark.packaging

COMPLETION = {"_LOSSKIT_COMPLETE": "complete_bash", "COMP_WORDS": "losskit show co", "COMP_CWORD": "2"}
LOOKING = {
    "list": ["list"],
    "list-json": ["list", "--json"],
    "show": ["show", "cosent"],
    "doctor": ["doctor"],
    "doctor-json": ["doctor", "--json"],
    "help": ["--help"],
    "new": ["new", "loss", "my-margin", "--dry-run", "--json"],
    "validate": ["validate", "cosent", "--level", "static"],
}
EXITS = {"doctor": 1, "doctor-json": 1}


def installed(folder: Path, zoo: list[Bad]) -> Environment:
    """An environment with the zoo, in this order."""
    environment = Environment(folder)
    environment.install(*[bad.package for bad in zoo])
    for bad in zoo:
        bad.spoil(environment.site)
    return environment


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """All of it at once."""
    return installed(tmp_path_factory.mktemp("zoo") / "environment", ZOO)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What harms nobody else."""
    return installed(tmp_path_factory.mktemp("harmless") / "environment", HARMLESS)


@pytest.fixture(scope="module")
def doctored(harmless: Environment) -> list[dict[str, Any]]:
    """The problems that `doctor --load` tells of packages; what losskit brings takes long to import, and is tested."""
    ours = ",".join(f"losskit/{spec.name}" for spec in find(provider="losskit"))
    done = harmless.losskit("doctor", "--load", "--time-limit", "12", "--json", LOSSKIT_PLUGINS_BLOCK=ours)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    (harmless.path / "imported").unlink()
    return [each for each in json.loads(done.stdout)["problems"] if each["distribution"] != "losskit"]


def told(problems: list[dict[str, Any]], bad: Bad) -> list[dict[str, Any]]:
    return [problem for problem in problems if problem["distribution"] == bad.package.name]


def agree(problems: list[dict[str, Any]], expected: list[Said | None]) -> None:
    """Each problem is the one that is expected in its place."""
    said = [each for each in expected if each is not None]
    assert len(problems) == len(said), problems
    for problem, each in zip(problems, said, strict=True):
        assert each.reason in problem["reason"]
        assert each.fix in problem["fix"]
        assert problem["status"] == each.status
        assert len(problem["reason"]) < 2_000
        assert "\n" not in problem["reason"] + problem["fix"]


@pytest.mark.quick
def test_list_says_what_is_wrong_with_each_and_imports_none(zoo) -> None:
    done = zoo.losskit("list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    listed = json.loads(done.stdout)
    found = {(item["provider"], item["name"]): item["status"] for item in listed["components"] if not item["builtin"]}
    assert found == {(bad.package.name, bad.name): bad.status for bad in ZOO if bad.name}
    for bad in ZOO:
        agree(told(listed["problems"], bad), [bad.found])
    assert len(listed["problems"]) == sum(bad.found is not None for bad in ZOO)
    assert not zoo.imported


def test_doctor_finds_by_importing_what_only_that_shows(doctored) -> None:
    for bad in HARMLESS:
        agree(told(doctored, bad), [bad.found, bad.loaded])
    expected = {bad.package.name for bad in HARMLESS if bad.found or bad.loaded}
    assert {problem["distribution"] for problem in doctored} == expected


@pytest.mark.parametrize("command", LOOKING)
@pytest.mark.quick
def test_commands_that_look_work_and_import_nothing(zoo, command) -> None:
    done = zoo.losskit(*LOOKING[command])
    assert done.returncode == EXITS.get(command, 0), done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert all(line.replace("\t", "").isprintable() for line in done.stdout.split("\n"))
    assert max(map(len, done.stdout.splitlines()), default=0) < 5_000
    if "--json" in LOOKING[command]:
        json.loads(done.stdout)
    assert not zoo.imported


def test_what_is_built_in_is_shown_as_if_nothing_else_were_there(zoo, tmp_path) -> None:
    alone = Environment(tmp_path / "alone")
    for command in (["show", "multiple-negatives-ranking"], ["list", "--provider", "losskit"]):
        assert zoo.losskit(*command).stdout == alone.losskit(*command).stdout


def test_completion_offers_what_a_shell_can_take(zoo) -> None:
    done = zoo.losskit(**COMPLETION)
    assert done.returncode == 0
    assert {"cosent", "cosine", "computed"} <= set(done.stdout.split())
    assert done.stderr == ""
    assert not zoo.imported


SHOW = """
import contextlib, io, json, sys
from losskit_cli import app
results = {}
for reference in json.load(open(sys.argv[1])):
    out, err = io.StringIO(), io.StringIO()
    sys.argv[1:] = ["show", "--", reference]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.main()
        except SystemExit as end:
            code = end.code
    results[reference] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(results))
"""


def test_each_is_shown_with_its_problem(zoo) -> None:
    shown = [bad for bad in ZOO if bad.name]
    file = zoo.path / "references.json"
    file.write_text(json.dumps([f"{bad.package.name}/{bad.name}" for bad in shown]))
    results = json.loads(zoo.python(SHOW, str(file)))
    for bad in shown:
        code, out, err = results[f"{bad.package.name}/{bad.name}"]
        assert code == 0, err
        assert all(line.replace("\t", "").isprintable() for line in (out + err).split("\n"))
        assert max(map(len, out.splitlines())) < 25_000
        assert f"  status       {bad.status}\n" in out
        assert out.partition("\ncitation\n")[0].count("\n  status ") == 1
        if bad.found is None or bad.status == "ok":  # what is wrong may be beside the component
            assert err == ""
        else:
            assert err.count("\n") == 1
            assert bad.found.reason in err
            assert bad.found.fix in err.partition(" Fix: ")[2]
    assert not zoo.imported


def test_names_that_are_taken_are_shown_as_they_must_be_written(zoo) -> None:
    taken = zoo.losskit("show", "lk-takes-a-name/cosent").stdout
    assert 'losskit.build("lk-takes-a-name/cosent", model)' in taken
    assert 'losskit.build("cosent", model)' in zoo.losskit("show", "cosent", "--kind", "loss").stdout
    done = zoo.losskit("validate", "taken-twice", "--level", "static")
    assert done.returncode == 2
    assert "lk-twice-one/taken-twice or lk-twice-two/taken-twice" in done.stderr


def test_something_else_is_trained(harmless) -> None:
    done = harmless.losskit("train", "training.steps=1", "training.batch_size=8", "output=run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train"]["steps"] == 1
    assert harmless.imported == {"lk_hook_raises", "lk_hook_unknown", "lk_hook_argument"}
    (harmless.path / "imported").unlink()


LIST = """
import contextlib, io, json, sys
from losskit import registry
from losskit.cache import Cache
before, results = sys.path[:], {}
for name, folder in json.load(open(sys.argv[1])).items():
    sys.path[:] = [*before, folder]
    registry.refresh()
    specs = [spec for spec in registry.find() if not spec.builtin]
    results[name] = [[spec.status for spec in specs], [each.to_dict() for each in registry.problems()]]
print(json.dumps(results))
"""


def test_each_alone_is_told_as_in_company(tmp_path) -> None:
    alone = [bad for bad in ZOO if "twice" not in str(bad) and str(bad) != "url-needed"]
    folders = {}
    for bad in alone:
        folder = tmp_path / str(bad)
        with zipfile.ZipFile(bad.package.wheel(tmp_path)) as wheel:
            wheel.extractall(folder)
        bad.spoil(folder)
        folders[bad.package.name] = str(folder)
    file = tmp_path / "folders.json"
    file.write_text(json.dumps(folders))
    lonely = Environment(tmp_path / "environment")
    results = json.loads(lonely.python(LIST, str(file)))
    for bad in alone:
        statuses, problems = results[bad.package.name]
        assert statuses == ([bad.status] if bad.name else [])
        agree(problems, [bad.found])
    assert not lonely.imported


def outputs(environment: Environment, **variables: str) -> list[str]:
    """What commands write, which should depend on nothing."""
    commands = [LOOKING[name] for name in ("list", "list-json", "doctor-json", "help")]
    done = [
        environment.losskit(*command, **variables) for command in [*commands, ["show", "lk-markup-texts/markup-texts"]]
    ]
    return [each.stdout + each.stderr for each in done]


def test_neither_order_nor_hash_seed_matters(tmp_path) -> None:
    folder = tmp_path / "environment"
    environment = installed(folder, ZOO)
    expected = outputs(environment, PYTHONHASHSEED="0")
    assert all(expected)
    assert outputs(environment, PYTHONHASHSEED="1") == expected
    assert outputs(environment, PYTHONHASHSEED="2") == expected
    shutil.rmtree(folder)
    assert outputs(installed(folder, ZOO[::-1])) == expected


def test_the_order_of_the_path_does_not_matter(zoo, tmp_path) -> None:
    environment = Environment(tmp_path / "environment")
    halves = [tmp_path / "one", tmp_path / "two"]
    for index, bad in enumerate(ZOO):
        with zipfile.ZipFile(bad.package.wheel(tmp_path)) as wheel:
            wheel.extractall(halves[index % 2])
        bad.spoil(halves[index % 2])
    orders = [os.pathsep.join(map(str, each)) for each in (halves, halves[::-1])]
    first, second = (outputs(environment, PYTHONPATH=each) for each in orders)
    assert first == second
    listed = json.loads(zoo.losskit("list", "--json").stdout)["components"]
    assert [item["name"] for item in json.loads(first[1])["components"]] == [item["name"] for item in listed]


@pytest.fixture
def empty(tmp_path: Path) -> Environment:
    """An environment with nothing of anybody's."""
    return Environment(tmp_path / "environment")


def problems_of(environment: Environment, **variables: str) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = environment.json("list", **variables)["problems"]
    return problems


def test_a_distribution_twice_on_the_path_is_the_one_that_python_imports(empty, tmp_path) -> None:
    folders = [tmp_path / name for name in ("old", "same", "new")]
    for folder, version in zip(folders, ("1.0", "1.0", "2.0"), strict=True):
        with zipfile.ZipFile(loss_package("lk-twice", version, loss="twice").wheel(tmp_path)) as wheel:
            wheel.extractall(folder)
    for order, version in (((0, 2), "1.0"), ((2, 0), "2.0"), ((0, 1), "1.0"), ((1, 0), "1.0")):
        path = os.pathsep.join(str(folders[index]) for index in order)
        [shown] = empty.json("show", "twice", PYTHONPATH=path)["components"]
        assert (shown["version"], shown["status"]) == (version, "ok")
        assert shown["file"].startswith(str(folders[order[0]]))
        assert problems_of(empty, PYTHONPATH=path) == []


def test_a_version_installed_over_another_is_told(empty) -> None:
    empty.install(loss_package("lk-twice", "1.10", loss="twice"))
    kept = empty.path / "kept"
    shutil.copytree(empty.site / "lk_twice-1.10.dist-info", kept)
    shutil.copytree(kept, empty.site / "lk_twice-1.9.dist-info")
    file = empty.site / "lk_twice-1.9.dist-info" / "METADATA"
    file.write_text(file.read_text().replace("Version: 1.10", "Version: 1.9"))
    [problem] = problems_of(empty)
    assert problem["reason"] == "1.9 and 1.10 are installed over one another"
    assert problem["fix"] == "pip uninstall lk-twice until none is left, then pip install lk-twice"
    assert (problem["distribution"], problem["version"]) == ("lk-twice", "1.10")
    [shown] = empty.json("show", "twice")["components"]
    assert (shown["version"], shown["status"]) == ("1.10", "ok")


def test_what_an_interrupted_pip_leaves_behind_is_nothing(empty) -> None:
    empty.install(loss_package("lk-left", loss="left"))
    (empty.site / "lk_left-1.0.dist-info").rename(empty.site / "~k_left-1.0.dist-info")
    listed = empty.json("list")
    assert listed["problems"] == []
    assert all(item["builtin"] for item in listed["components"])


def test_an_editable_installation_whose_folder_is_gone_says_so(empty, tmp_path) -> None:
    project = loss_package("lk-stale", loss="stale").write(tmp_path / "a folder" / "stale")
    empty.install(project, editable=True)
    assert empty.json("show", "stale")["components"][0]["status"] == "ok"
    moved = project / "src" / "lk_stale.py"
    moved.rename(moved.with_name("lk_moved.py"))
    [problem] = problems_of(empty)
    assert problem["reason"] == "module lk_stale is not found"
    assert problem["fix"] == f"pip install -e {project} again if that has moved since, or mend the entry point there"
    shutil.rmtree(project)
    [problem] = problems_of(empty)
    assert problem["fix"].startswith(
        f"{project}, which lk-stale was installed from, is gone: pip install lk-stale again"
    )
    assert not empty.imported


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("name", ["lk_secret.py", "lk_secret-1.0.dist-info/METADATA", "lk_secret-1.0.dist-info"])
def test_what_may_not_be_read_is_told(empty, name) -> None:
    empty.install(loss_package("lk-secret", loss="secret"))
    (empty.site / name).chmod(0)
    [problem] = problems_of(empty)
    assert problem["distribution"] == "lk-secret"
    assert "read" in problem["reason"]
    (empty.site / name).chmod(0o755)


def test_a_name_that_one_distribution_gives_twice(empty) -> None:
    points = {"losses": {"both": "lk_both:Bad"}, "wrappers": {"both": "lk_both:Bad"}}
    whole = next(many(1))
    source = whole.files["lk_many_0.py"]
    empty.install(Package("lk-both", files={"lk_both.py": source}, points=points))
    first, second = problems_of(empty)
    for problem in (first, second):
        assert problem["status"] == "ambiguous"
        assert problem["fix"] == "update lk-both, or report it to its authors"
    assert first["reason"] == "lk-both gives the name to wrapper lk_both:Bad too"


def test_five_hundred_distributions_and_a_thousand_components(empty) -> None:
    empty.install(*many(500), one_with_many(1000))
    listed = empty.json("list")
    assert listed["problems"] == []
    found = [item for item in listed["components"] if not item["builtin"]]
    assert (len(found), {item["status"] for item in found}) == (1500, {"ok"})
    distributions = {item["distribution"]: item["components"] for item in empty.json("doctor")["distributions"]}
    assert (len(distributions), distributions["lk-crowd"], distributions["lk-many-499"]) == (502, 1000, 1)
    assert empty.losskit("show", "crowd-999").returncode == 0
    assert "did you mean 'crowd-99" in empty.losskit("show", "crowd-9999").stderr
    assert empty.losskit(**COMPLETION).returncode == 0
    assert not empty.imported
