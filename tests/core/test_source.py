from __future__ import annotations

import ast
import py_compile
import sys
import zipfile
from importlib.util import spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

import losskit.loss
import losskit.score_loss
import losskit.wrapper
from losskit import registry
from losskit.cache import Cache
from losskit.registry import Spec, get
from losskit.source import BASES, Sources, UnreadableError, parse


def read(source: str, name: str = "A", module: str = "m") -> dict:
    return parse(source, module, "m.py")["classes"][name]


def options(source: str) -> dict[str, tuple]:
    return {
        row["name"]: (row["type"], row["default"], row["required"], row["choices"]) for row in read(source)["options"]
    }


def test_options_keep_type_default_and_choices_as_written() -> None:
    source = """
import math
from typing import Literal
Mode = Literal["a", "b"]
class A:
    def __init__(self, model, scale: float = 20.0, dims: tuple[int, ...] = (64, 32), *, top=math.inf,
                 mode: Mode = "a", kind: Literal[1, 2] | None = None, text: "str | None" = None, need: int): ...
"""
    assert options(source) == {
        "model": ("", None, True, []),
        "scale": ("float", 20.0, False, []),
        "dims": ("tuple[int, ...]", [64, 32], False, []),
        "top": ("", "math.inf", False, []),
        "mode": ("Mode", "a", False, []),
        "kind": ("Literal[1, 2] | None", None, False, [1, 2]),
        "text": ("str | None", None, False, []),
        "need": ("int", None, True, []),
    }
    assert parse(source, "m", "m.py")["literals"] == {"Mode": ["a", "b"]}


def test_fields_of_a_dataclass_are_its_options() -> None:
    source = """
import dataclasses
from typing import ClassVar
@dataclasses.dataclass(frozen=True)
class A:
    card: ClassVar[object] = 1
    threshold: float
    norm: int = 2
"""
    assert options(source) == {"threshold": ("float", None, True, []), "norm": ("int", 2, False, [])}


def test_a_class_without_constructor_states_no_options() -> None:
    assert read("class A: pass")["options"] is None


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from losskit import Card, Format", "Card"),
        ("import losskit as lk", "lk.Card"),
        ("from losskit.card import Card as C, Format", "C"),
        ("if True:\n    from losskit import Card, Format\n", "Card"),
    ],
)
def test_card_is_found_through_aliases(imports: str, call: str) -> None:
    card = read(f"{imports}\nclass A:\n    card: object = {call}(formula='x' 'y', row_wise=False)\n")["card"]
    assert card["fields"] == {"formula": "xy", "row_wise": False}
    assert Sources(Cache()).is_losskit(card["call"], "Card")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("Card(citation=CITATION)", "'CITATION' is not a literal"),
        ("make_card()['x']", "is not Card(...)"),
        ("Card(formats=[Format(INPUTS)])", "'INPUTS' is not a literal"),
        ("Card(formats=[make()] * 2)", "'[make()] * 2' is not a literal"),
        ("Card(**values)", "is not a literal"),
        ("Card(memory='a' + 'b')", "\"'a' + 'b'\" is not a literal"),
        ("Card(formats=[Format(['anchor'], outputs=1e999)])", "is not a literal"),
    ],
)
def test_what_is_not_literal_is_named_with_its_line(card: str, said: str) -> None:
    found = read(f"from losskit import Card, Format\n\nclass A:\n    card = {card}\n")["card"]
    assert found["line"] == 4
    assert said in found["error"]


def test_relative_imports_are_resolved() -> None:
    source = "from . import b\nfrom ..c import d as e\nimport x.y\nimport x.y as z\n"
    assert parse(source, "p.q.m", "")["imports"] == {"b": "p.q.b", "e": "p.c.d", "x": "x", "z": "x.y"}
    assert parse("from .b import c\n", "p.q", "", is_package=True)["imports"] == {"c": "p.q.b.c"}


def test_source_that_does_not_parse_names_file_and_line() -> None:
    with pytest.raises(UnreadableError, match="does not parse") as caught:
        parse("x = 1\nclass A(:\n", "m", "m.py")
    assert (caught.value.file, caught.value.line) == ("m.py", 2)


def test_null_bytes_and_odd_escapes_do_no_harm() -> None:
    with pytest.raises(UnreadableError):
        parse("a\0b", "m", "m.py")
    assert parse("x = '\\d'", "m", "m.py")["classes"] == {}


def test_table_of_bases_is_what_the_classes_say() -> None:
    for cls in (losskit.loss.Loss, losskit.score_loss.ScoreLoss, losskit.wrapper.Wrapper):
        found = Sources(Cache()).class_at(cls.__module__, cls.__name__)
        assert BASES[f"losskit.{cls.__name__}"] == found.options


def test_every_exported_base_is_in_the_table() -> None:
    tree = ast.parse(Path(losskit.__file__).read_text())
    exported = {name for node in ast.walk(tree) if isinstance(node, ast.Constant) for name in [node.value]}
    protocols = {"LossProtocol", "Encoder", "Regularizer", "Similarity", "Weighting"}
    assert {name.partition(".")[2] for name in BASES if name.startswith("losskit.")} == protocols | {
        "Loss", "ScoreLoss", "Wrapper",
    }  # fmt: skip
    assert protocols <= exported


BASE = """
from losskit import Card, Format
from typing import Literal

Mode = Literal["x", "y"]

class Base:
    card = Card(formats=[Format(["text"])])
    def __init__(self, model=None, margin: float = 1.0, mode: Mode = "x"): ...
"""


def spec_of(name: str = "child") -> Spec:
    registry.refresh()
    return get("loss", name)


def test_card_and_options_come_from_a_base_in_the_same_distribution(site) -> None:
    site.add(
        "lk-a",
        points={"losses": {"child": "lk_a.child:Child"}},
        modules={
            "lk_a/__init__.py": "from .base import Base\n",
            "lk_a/base.py": BASE,
            "lk_a/child.py": "from lk_a import Base\nclass Child(Base):\n    '''A child.'''\n",
        },
    )
    spec = spec_of()
    assert (spec.status, spec.summary, spec.card.formats[0].inputs) == ("ok", "A child.", ("text",))
    assert [(option.name, option.choices) for option in spec.options] == [("margin", ()), ("mode", ("x", "y"))]
    assert (spec.file, spec.line) == (str(site.path / "lk_a" / "child.py"), 3)
    assert not site.imported


def test_a_base_in_a_required_distribution_counts_any_other_does_not(site) -> None:
    site.add("lk-base", modules={"lk_base.py": BASE})
    child = "from lk_base import Base\nclass Child(Base): pass\n"
    site.add("lk-a", points={"losses": {"one": "lk_a:Child"}}, modules={"lk_a.py": child}, requires=["lk-base>=1"])
    site.add("lk-b", points={"losses": {"two": "lk_b:Child"}}, modules={"lk_b.py": child})
    assert spec_of("one").status == "ok"
    broken = spec_of("two")
    assert broken.status == "broken"
    assert "base lk_base.Base cannot be read: it lies neither in the same distribution" in broken.problem.reason
    assert (broken.problem.file, broken.problem.line) == (str(site.path / "lk_b.py"), 3)


def test_bases_that_losskit_exports_serve_everybody(site) -> None:
    source = """
from losskit import Card, Format, ScoreLoss
class Child(ScoreLoss):
    card = Card(formats=[Format(["query", "documents"], labels="scores", outputs=1)])
"""
    site.add("lk-a", points={"losses": {"child": "lk_a:Child"}}, modules={"lk_a.py": source})
    assert [option.name for option in spec_of().options] == ["activation", "similarity", "scale"]


def test_a_plain_module_with_a_card_is_legal(site) -> None:
    source = """
import torch
from losskit import Card, Format
class Child(torch.nn.Module):
    card = Card(formats=[Format(["text"])])
"""
    site.add("lk-a", points={"losses": {"child": "lk_a:Child"}}, modules={"lk_a.py": source})
    spec = spec_of()
    assert (spec.status, spec.options) == ("ok", ())


def test_a_diamond_is_read_in_pythons_order(site) -> None:
    source = """
from losskit import Card
class Base:
    card = Card(formula="base")
    def __init__(self, a): ...
class Left(Base): pass
class Right(Base):
    card = Card(formula="right")
    def __init__(self, b): ...
class Child(Left, Right): pass
"""
    site.add("lk-a", points={"similarities": {"child": "lk_a:Child"}}, modules={"lk_a.py": source})
    registry.refresh()
    spec = get("similarity", "child")
    assert (spec.card.formula, [option.name for option in spec.options]) == ("right", ["b"])


def test_classes_that_inherit_from_each_other_are_broken(site) -> None:
    modules = {
        "lk_a/__init__.py": "",
        "lk_a/x.py": "from .y import Y\nclass X(Y): pass\n",
        "lk_a/y.py": "from .x import X\nclass Y(X): pass\n",
    }
    site.add("lk-a", points={"losses": {"child": "lk_a.x:X"}}, modules=modules)
    assert "inherits from itself" in spec_of().problem.reason


def test_namespace_packages_are_searched_everywhere(site, tmp_path, monkeypatch) -> None:
    other = tmp_path / "other"
    (other / "spread" / "deep").mkdir(parents=True)
    (other / "spread" / "deep" / "child.py").write_text(BASE)
    monkeypatch.syspath_prepend(str(other))
    site.add(
        "lk-a",
        points={"losses": {"child": "spread.deep.child:Base"}},
        modules={"spread/deep/another.py": "", "spread/more.py": ""},
    )
    assert spec_of().status == "ok"
    assert not {name for name in sys.modules if name.startswith("spread")}


def test_import_finders_of_editable_installs_are_asked(site, tmp_path, monkeypatch) -> None:
    source = tmp_path / "project" / "child.py"
    source.parent.mkdir()
    source.write_text(BASE)

    def find_spec(name: str, path: object = None, target: object = None) -> object:
        return spec_from_file_location(name, source) if name == "hooked_child" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, SimpleNamespace(find_spec=find_spec)])
    site.add("lk-a", points={"losses": {"child": "hooked_child:Base"}})
    assert spec_of().status == "ok"


def test_a_finder_that_raises_is_named_and_does_no_other_harm(site, monkeypatch) -> None:
    def find_spec(name: str, path: object = None, target: object = None) -> object:
        raise KeyError("finder")

    site.add_loss("lk-good", "good")
    site.add("lk-a", points={"losses": {"child": "lk_a:Child"}})
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    broken = spec_of()
    assert "module lk_a is not found" in broken.problem.reason
    assert "KeyError" in broken.problem.reason
    assert get("loss", "good").status == "ok"


def test_zipped_distributions_work(site, monkeypatch) -> None:
    folder = site.add_loss("lk-zip", "zipped")
    archive = site.path / "lk.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for file in (site.path / "lk_zip.py", *folder.iterdir()):
            stream.write(file, file.relative_to(site.path))
            file.unlink()
    folder.rmdir()
    monkeypatch.syspath_prepend(str(archive))
    spec = spec_of("zipped")
    assert (spec.status, spec.provider) == ("ok", "lk-zip")
    assert len(spec.provenance()["sha256"]) == 64


def test_a_module_without_source_is_broken_with_the_reason(site) -> None:
    site.add_loss("lk-a", "child")
    source = site.path / "lk_a.py"
    py_compile.compile(str(source), cfile=str(site.path / "lk_a.pyc"))
    source.unlink()
    assert spec_of().problem.reason == "module lk_a has no source"


def test_cache_serves_what_is_unchanged_and_survives_anything(site) -> None:
    site.add_loss("lk-a", "child")
    assert spec_of().summary == "A loss of lk-a."
    [file] = (site.path.parent / "cache" / "losskit").iterdir()
    assert spec_of().summary == "A loss of lk-a."

    module = site.path / "lk_a.py"
    module.write_text(module.read_text().replace("A loss of", "Another loss of"))
    assert spec_of().summary == "Another loss of lk-a."

    whole = file.read_bytes()
    for damaged in (b"", whole[:100], b"\xff\xfe", b"1\n{}", whole.replace(b"Another", b"Amother")):
        file.write_bytes(damaged)
        assert spec_of().summary == "Another loss of lk-a."

    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the folder should be")
    assert spec_of().summary == "Another loss of lk-a."


def test_cache_gives_the_same_as_the_source(site) -> None:
    registry.refresh()
    fresh = registry.find()
    registry.refresh()
    assert registry.find() == fresh
    assert list((site.path.parent / "cache" / "losskit").glob("*.json"))


def test_cache_forgets_files_that_are_gone(tmp_path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.touch()
    two.touch()
    cache = Cache(tmp_path / "cache")
    cache.put(str(one), (1, 1), {"module": "one"})
    cache.save()
    one.unlink()
    cache = Cache(tmp_path / "cache")
    cache.put(str(two), (2, 2), {"module": "two"})
    cache.save()
    cache = Cache(tmp_path / "cache")
    assert cache.get(str(one), (1, 1)) is None
    assert cache.get(str(two), (2, 2)) == {"module": "two"}
    assert cache.get(str(two), (2, 3)) is None
