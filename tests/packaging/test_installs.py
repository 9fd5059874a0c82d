"""Plugins as build backends really make them: wheels, and the editable installs of each kind."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.quick]

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "lk-real"
version = "1.2"
dependencies = ["losskit"]

[project.entry-points."losskit.losses"]
real = "{package}.losses.real:RealLoss"

[tool.setuptools.packages.find]
where = ["{where}"]
namespaces = true
"""
MODULES = {
    "losses/base.py": """
from losskit import Card, Format

class Base:
    card = Card(formats=[Format(["text"])])

    def __init__(self, model=None, margin: float = 0.5): ...
""",
    "losses/real.py": """
from .base import Base

class RealLoss(Base):
    '''A real one.'''
""",
}
LOOK = """
import json, site, sys
site.addsitedir(sys.argv[1])
import losskit
spec = losskit.get("loss", "real")
imported = [name for name in sys.modules if name.startswith("lk_real")]
print(json.dumps([spec.status, str(spec.problem), spec.summary, spec.provider, spec.version, spec.file, imported]))
print(spec.load().__name__)
"""


def build(project: Path, out: Path, how: str, settings: dict[str, str]) -> Path:
    """Let the backend make a wheel, and unpack it as an installer does."""
    program = f"import setuptools.build_meta as b; print('WHEEL', b.{how}({str(out)!r}, {settings!r}))"
    result = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=True)
    wheel = out / result.stdout.rpartition("WHEEL ")[2].strip()
    folder = out / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("namespace", [False, True], ids=["package", "namespace"])
@pytest.mark.parametrize(
    ("how", "where", "settings"),
    [
        ("build_wheel", "src", {}),
        ("build_editable", "src", {}),
        ("build_editable", ".", {}),
        ("build_editable", "src", {"editable_mode": "strict"}),
        ("build_editable", "src", {"editable_mode": "compat"}),
    ],
    ids=["wheel", "editable-path", "editable-flat", "editable-strict", "editable-compat"],
)
def test_a_real_install_is_found_read_and_loaded(tmp_path, how, where, settings, namespace) -> None:
    project, out = tmp_path / "project", tmp_path / "out"
    package = "lk_real_space.inner" if namespace else "lk_real"
    root = project / where / package.replace(".", "/")
    for name, source in {**MODULES, **({} if namespace else {"__init__.py": "", "losses/__init__.py": ""})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    (project / "pyproject.toml").write_text(PYPROJECT.format(package=package, where=where))
    out.mkdir()
    site = build(project, out, how, settings)
    if how == "build_editable":
        origin = {"url": project.as_uri(), "dir_info": {"editable": True}}
        (next(site.glob("*.dist-info")) / "direct_url.json").write_text(json.dumps(origin))

    result = subprocess.run([sys.executable, "-c", LOOK, str(site)], capture_output=True, text=True, check=True)
    first, name = result.stdout.splitlines()
    status, problem, summary, provider, version, file, imported = json.loads(first)
    assert (status, problem) == ("ok", "None")
    assert (summary, provider, version, name) == ("A real one.", "lk-real", "1.2", "RealLoss")
    assert Path(file).name == "real.py"
    assert imported == []


def test_the_wheel_of_losskit_registers_its_components(tmp_path) -> None:
    root = Path(__file__).parents[2]
    program = f"from hatchling.build import build_wheel; print('WHEEL', build_wheel({str(tmp_path)!r}))"
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    wheel = tmp_path / result.stdout.rpartition("WHEEL ")[2].strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "losskit_cli", "list", "--json"],
        env={"PYTHONPATH": str(tmp_path / "site"), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    components = json.loads(listed.stdout)["components"]
    assert len(components) > 10
    assert {item["status"] for item in components} == {"ok"}
    assert (tmp_path / "site" / "losskit" / "losses.pyi").is_file()
