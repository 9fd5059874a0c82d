"""What `losskit new` writes, looked at without installing it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from scaffolds import EXAMPLES, GOLDEN, LONGEST_NAME, example, tree, write_tree

import losskit
import losskit_templates
from losskit.discover import GROUPS
from losskit_cli.naming import LONGEST
from losskit_templates import LICENCES, SHAPES, Answers, package, shape_like, single_file
from losskit_templates.answers import GROUPS as KINDS_GROUPS

TEMPLATES = Path(losskit_templates.__file__).parent
ROOT = Path(__file__).parents[2]
each_shape = pytest.mark.parametrize(("kind", "shape"), EXAMPLES)


@each_shape
def test_the_tree_is_byte_for_byte_what_was_looked_at(kind, shape) -> None:
    """After a change that is wanted: `python tests/helpers/scaffolds.py`, and look at the difference."""
    assert tree(kind, shape) == (GOLDEN / f"{kind}-{shape}.txt").read_text(encoding="utf-8")


def test_there_is_a_tree_for_every_shape_and_no_other() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == {f"{kind}-{shape}" for kind, shape in EXAMPLES}


def test_every_template_belongs_to_a_shape_or_to_all() -> None:
    kinds = {file.relative_to(TEMPLATES).as_posix() for kind in SHAPES for file in (TEMPLATES / kind).iterdir()}
    known = {f"{kind}/{shape}{part}.tmpl" for kind, shape in EXAMPLES for part in (".py", ".reference.py", ".test.py")}
    known |= {f"{kind}/usage.md.tmpl" for kind in SHAPES}
    assert {name for name in kinds if not name.partition("/")[2].startswith("_")} == known
    others = [file for file in TEMPLATES.rglob("*") if file.is_file() and file.suffix not in (".tmpl", ".py", ".pyc")]
    assert not others


def test_every_built_in_has_one_shape_that_reads_what_it_reads() -> None:
    for kind, shapes in SHAPES.items():
        built_in = {spec.name: spec for spec in losskit.find(kind, provider="losskit") if spec.kind == kind}
        like = [name for shape in shapes.values() for name in shape.like]
        assert sorted(like) == sorted(built_in)
        for name, spec in built_in.items():
            shape = shape_like(kind, name)
            assert kind == "weighting" or set(shape.encoders) & set(spec.card.encoders), name
            labels = {form.labels for form in spec.card.formats}
            assert not labels or shape.labels in labels or name == "distill-kl-div", name


def test_groups_are_those_of_the_registry() -> None:
    assert {f"losskit.{group}": kind for kind, group in KINDS_GROUPS.items()}.items() <= GROUPS.items()


@pytest.mark.parametrize("name", ["x", LONGEST_NAME], ids=["shortest", "longest"])
def test_the_linter_has_nothing_to_say_whatever_the_length_of_names(tmp_path, name) -> None:
    assert len(LONGEST_NAME) == LONGEST
    for kind, shape in EXAMPLES:
        write_tree(tmp_path / f"{kind}-{shape}", package(example(kind, shape, name)))
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--output-format=concise", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@each_shape
def test_files_are_what_their_names_say(kind, shape) -> None:
    answers = example(kind, shape)
    files = package(answers)
    for path, text in files.items():
        assert "<%" not in text
        assert not text or text.endswith("\n")
        assert "\n\n\n\n" not in text
        if path.endswith(".py"):
            ast.parse(text)
        elif path.endswith((".yml", ".yaml", ".cff")):
            assert yaml.safe_load(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"] == {f"losskit.{answers.group}": {answers.name: answers.target}}
    assert (project["description"], project["license"]) == (answers.summary, answers.licence)
    assert project["authors"][0]["name"] == answers.author
    assert yaml.safe_load(files["CITATION.cff"])["authors"][0]["name"] == answers.author
    assert single_file(answers) == {f"{answers.module}.py": files[f"src/{answers.package}/{answers.module}.py"]}


@pytest.mark.parametrize(
    ("kind", "name", "class_name", "module"),
    [
        ("loss", "my-margin", "MyMarginLoss", "my_margin"),
        ("loss", "margin-loss", "MarginLoss", "margin"),
        ("wrapper", "my-wrapper", "MyWrapperLoss", "my_wrapper"),
        ("wrapper", "two-d", "TwoDLoss", "two_d"),
        ("regularizer", "l2", "L2Regularizer", "l2"),
        ("weighting", "top-1", "Top1Weighting", "top_1"),
        ("similarity", "similarity", "SimilaritySimilarity", "similarity"),
        ("encoder", "n-gram-encoder", "NGramEncoder", "n_gram"),
    ],
)
def test_names_follow_from_the_components_name(kind, name, class_name, module) -> None:
    answers = Answers(kind, name, next(iter(SHAPES[kind].values())))
    assert (answers.class_name, answers.module) == (class_name, module)
    assert answers.function != answers.module


def test_a_name_that_a_template_misspells_is_an_error(monkeypatch) -> None:
    from jinja2 import UndefinedError

    from losskit_templates import rendering

    monkeypatch.setattr(rendering, "_text", lambda template: "<%= summery %>")
    rendering._environment.cache_clear()
    with pytest.raises(UndefinedError, match="summery"):
        single_file(example(*EXAMPLES[0]))
    rendering._environment.cache_clear()


def test_licences_are_whole() -> None:
    texts = {name: (TEMPLATES / "licences" / f"{name}.tmpl").read_text(encoding="utf-8") for name in LICENCES}
    assert texts["Apache-2.0"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert {file.name.removesuffix(".tmpl") for file in (TEMPLATES / "licences").iterdir()} == set(LICENCES)
