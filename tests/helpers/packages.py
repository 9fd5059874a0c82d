"""Packages that hatchling really builds and pip really installs, in virtual environments of their own.

environment = Environment(tmp_path / "env")
with environment.having(loss_package("lk-life")):
    assert environment.losskit("show", "life").returncode == 0
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "FEW_STEPS",
    "MARK",
    "Environment",
    "Package",
    "encoder_package",
    "loss_package",
    "loss_source",
    "show_test_run",
]

FEW_STEPS = ("training.steps=2", "training.eval_strategy=no")
"""What makes a training as short as can be."""

MARK = "import os\nwith open(os.environ['IMPORTED'], 'a') as marks: marks.write(__name__ + ' ')\n"
"""Lines by which a module notes that it was imported; see `Environment.imported`."""

LOSS = '''
import torch
from losskit import Card, Format, Loss


class {name}(Loss):
    """{summary}"""

    card = Card(formats=[Format(["anchor", "positive"])], encoders=["dense"], api="{api}")

    def __init__(self, model, margin: float = 1.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.margin = margin

    def compute(self, columns, labels, rows):
        anchors, positives = (column.embedding[rows] for column in columns)
        return self.margin * (1 - torch.cosine_similarity(anchors, positives)).mean()
'''

ENCODER = '''
import json
from pathlib import Path

import torch
from losskit import Card, Output
from safetensors.torch import load_file, save_file

WORDS, WIDTH = 64, 8


class WordsEncoder(torch.nn.Module):
    """Averages vectors of words, which it finds by a sum over their letters."""

    card = Card(encoders=["dense"])
    family, similarity, dimension, normalized = "dense", "cosine", WIDTH, False

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)

    def preprocess(self, texts, *, role="text", prompt=None):
        rows = [[1 + sum(map(ord, word)) % (WORDS - 1) for word in text.split()] for text in texts]
        width = max(map(len, rows))
        return {"input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows])}

    def forward(self, features, needs=()):
        mask = (features["input_ids"] > 0).unsqueeze(-1).float()
        return Output((self.words(features["input_ids"]) * mask).sum(1) / mask.sum(1))

    @torch.no_grad()
    def encode(self, texts, *, role="text", prompt=None, batch_size=32, progress=False):
        return self(self.preprocess(texts)).embedding.numpy()

    def save(self, path):
        Path(path, "config.json").write_text(json.dumps({"losskit_encoder": "words"}))
        save_file(self.state_dict(), Path(path, "model.safetensors"))

    @classmethod
    def load(cls, path):
        encoder = cls()
        encoder.load_state_dict(load_file(Path(path, "model.safetensors")))
        return encoder

    @classmethod
    def adapt(cls, model):
        return None
'''


def loss_source(name: str, summary: str = "Pulls a positive to its anchor.", api: str = "1") -> str:
    """A module with one sound loss on pairs, which notes that it was imported."""
    return MARK + LOSS.format(name=name, summary=summary, api=api)


@dataclass(frozen=True)
class Package:
    """A project as its author has it, built by hatchling.

    Args:
        name: of the distribution.
        version: its version.
        files: path below `src/` -> content.
        points: entry-point group, without "losskit." -> name -> target.
        requires: PEP 508 requirements; nothing ever installs them.
    """

    name: str
    version: str = "1.0"
    files: Mapping[str, str] = field(default_factory=dict)
    points: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    requires: Sequence[str] = ("losskit",)

    def write(self, folder: Path) -> Path:
        """Write the project into a folder; that folder."""
        for name, content in {"pyproject.toml": self._pyproject(), **self._sources()}.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        return folder

    def wheel(self, folder: Path) -> Path:
        """Build the wheel into a folder; the file."""
        from hatchling.builders.wheel import WheelBuilder

        with tempfile.TemporaryDirectory() as project:
            builder = WheelBuilder(str(self.write(Path(project))))
            return Path(next(builder.build(directory=str(folder), versions=["standard"])))

    def _sources(self) -> dict[str, str]:
        return {f"src/{name}": content for name, content in self.files.items()}

    def _pyproject(self) -> str:
        """Strings and lists of JSON are those of TOML."""
        lines = [
            "[build-system]",
            'requires = ["hatchling"]',
            'build-backend = "hatchling.build"',
            "[project]",
            f"name = {json.dumps(self.name)}",
            f"version = {json.dumps(self.version)}",
            f"dependencies = {json.dumps([*self.requires])}",
            "[tool.hatch.build.targets.wheel]",
            'only-include = ["src"]',
            'sources = ["src"]',
            "bypass-selection = true",
            "[tool.hatch.build]",
            'dev-mode-dirs = ["src"]',
        ]
        for group, names in self.points.items():
            lines.append(f'[project.entry-points."losskit.{group}"]')
            quoted = ((json.dumps(name, ensure_ascii=False), json.dumps(target)) for name, target in names.items())
            lines += [f"{name} = {target}" for name, target in quoted]
        return "\n".join(lines) + "\n"


def loss_package(name: str, version: str = "1.0", *, loss: str = "life", **options: Any) -> Package:
    """A distribution `lk-x` with one sound loss, `LifeLoss` in its module `lk_x`.

    Args:
        name: of the distribution.
        version: its version.
        loss: the name that the loss is registered under.
        options: of `loss_source`; and `requires`, of the package.
    """
    module = name.replace("-", "_")
    requires = options.pop("requires", ("losskit",))
    files = {f"{module}.py": loss_source("LifeLoss", **options)}
    return Package(name, version, files, {"losses": {loss: f"{module}:LifeLoss"}}, requires)


def encoder_package(name: str, version: str = "1.0") -> Package:
    """A distribution with the encoder `words`, which has a format of its own."""
    points = {"encoders": {"words": "lk_words:WordsEncoder"}}
    return Package(name, version, {"lk_words.py": MARK + ENCODER}, points)


def show_test_run(site: Path) -> None:
    """Let the packages below `site` be found beside those of the test run."""
    seen = sysconfig.get_path("purelib")
    (site / "test_run.pth").write_text(f"import site; site.addsitedir({seen!r})\n", encoding="utf-8")


class Environment:
    """A virtual environment that sees the test run's packages, with a user's folder and a working folder of its own.

    Args:
        path: where it is made; it may lie anywhere, under any name.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.home, self.work = path, path / "home", path / "work"
        venv.create(path, symlinks=True)
        for folder in (self.home, self.work):
            folder.mkdir()
        places = sysconfig.get_paths("venv", {"base": str(path), "platbase": str(path)})
        self.executable, self.site = Path(places["scripts"]) / "python", Path(places["purelib"])
        show_test_run(self.site)

    def install(self, *packages: Package | Path, upgrade: bool = False, editable: bool = False) -> None:
        """Install packages, which are built first, wheels, or folders of projects."""
        wheels = [each.wheel(self.path / "wheels") if isinstance(each, Package) else each for each in packages]
        options = ["--upgrade"] * upgrade + ["--no-build-isolation"]
        named = [part for wheel in wheels for part in [*["--editable"] * editable, str(wheel)]]
        self._pip("install", "--no-index", "--no-deps", *options, *named)

    def uninstall(self, *names: str) -> None:
        """Uninstall distributions."""
        self._pip("uninstall", "--yes", *names)

    def losskit(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command in the working folder, or in another one."""
        return self.run("-P", "-m", "losskit_cli", *arguments, cwd=cwd, **variables)

    def json(self, *arguments: str, **variables: str) -> Any:
        """What the command writes under `--json`."""
        return json.loads(self.losskit(*arguments, "--json", **variables).stdout)

    def python(self, code: str, *arguments: str, **variables: str) -> str:
        """Run code that must not fail; what it prints."""
        done = self.run("-P", "-c", code, *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in the working folder, or in another one."""
        return subprocess.run(
            [self.executable, *arguments],
            cwd=cwd or self.work,
            env={**self._variables(), **variables},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    @property
    def imported(self) -> set[str]:
        """The modules with `MARK` that were imported in it so far."""
        file = self.path / "imported"
        return set(file.read_text(encoding="utf-8").split()) if file.exists() else set()

    def _pip(self, *arguments: str) -> None:
        done = self.run("-P", "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)
        assert done.returncode == 0, done.stderr

    def _variables(self) -> dict[str, str]:
        """The test run's, without what would reach into the environment from outside."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "LOSSKIT_", "PIP_", "XDG_"))
        }
        return {**inherited, "HOME": str(self.home), "IMPORTED": str(self.path / "imported")}
