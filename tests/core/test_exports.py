from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import losskit
from losskit import registry

TORCH_FREE = {
    "Card", "Format", "Spec", "find", "get", "build", "losses", "train", "load", "hookimpl", "__version__",
    "LosskitError", "DataError", "RecipeError", "NotFoundError", "AmbiguousError", "LossError", "ModelError",
    "PluginError",
}  # fmt: skip
WITH_TORCH = {
    "Loss", "ScoreLoss", "Wrapper", "Output", "Tokens", "Execution", "Direct", "GradCache", "Run", "Trainer",
    "ProgressCallback", "LossProtocol", "Encoder", "Regularizer", "Weighting", "Similarity",
}  # fmt: skip
HEAVY = ("torch", "transformers", "datasets")


def test_exports_are_those_of_the_contracts() -> None:
    assert set(losskit.__all__) == TORCH_FREE | WITH_TORCH | {"math", "testing"}
    assert len(losskit.__all__) == len(set(losskit.__all__))
    assert set(losskit.__all__) <= set(dir(losskit))


@pytest.mark.parametrize("name", sorted(set(losskit.__all__) - {"train", "Trainer", "Run", "ProgressCallback"}))
def test_every_export_is_there(name) -> None:
    assert getattr(losskit, name) is getattr(losskit, name)


@pytest.mark.parametrize("name", ["train", "Trainer", "Run", "ProgressCallback"])
def test_what_lives_in_the_plugins_comes_through_our_own_entry_points(name) -> None:
    module = getattr(losskit, name).__module__
    assert module.startswith("losskit_plugins.training.")


def test_another_distribution_cannot_fill_the_api(site, monkeypatch) -> None:
    site.add("aaa", points={"api": {"train": "aaa:train", "surprise": "aaa:train"}}, modules={"aaa.py": "train = 1"})
    registry.refresh()
    monkeypatch.delitem(vars(losskit), "train", raising=False)
    assert losskit.train.__module__.startswith("losskit_plugins")
    with pytest.raises(AttributeError, match="no attribute 'surprise'"):
        _ = losskit.surprise
    assert not site.imported


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(losskit.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname or alias.name for node in block.body for alias in getattr(node, "names", [])}
    assert seen | {"__version__"} == set(losskit.__all__)


def loaded(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has after running code."""
    program = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import losskit",
        *(f"from losskit import {name}" for name in sorted(TORCH_FREE)),
        "import losskit.recipe",
        "import losskit; losskit.find(encoder='dense', inputs=['anchor', 'positive'])",
        "import losskit; losskit.get('loss', 'cosent').provenance()",
        "import losskit; dir(losskit); dir(losskit.losses); losskit.registry.problems()",
    ],
)
def test_what_needs_no_torch_does_not_import_it(code) -> None:
    assert loaded(code) == set()


def test_the_check_for_torch_can_fail() -> None:
    assert "torch" in loaded("from losskit import Loss")


def test_core_imports_no_other_root_at_run_time() -> None:
    others = ("losskit_plugins", "losskit_compat", "losskit_cli", "losskit_templates")
    for file in Path(losskit.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] in others], f"{file}:{node.lineno}"


def test_the_stub_of_losses_is_what_is_registered() -> None:
    specs = [spec for kind in ("loss", "wrapper") for spec in registry.find(kind=kind) if spec.builtin]
    expected = {spec.class_name: spec.target.partition(":")[0] for spec in specs}
    tree = ast.parse(Path(losskit.__file__).with_name("losses.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == expected
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
