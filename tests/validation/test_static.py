"""The static checks: a sound plugin passes all; a planted defect is found by the check meant for it, with its place."""

from __future__ import annotations

from importlib import metadata
from zipfile import ZipFile

import pytest

from losskit import registry
from losskit.policy import Policy
from losskit.registry import get
from losskit.testing.catalogue import ALL
from losskit.validation.bibtex import BibtexError, entries
from losskit.validation.ids import CHECKS
from losskit.validation.static import STATIC, static_checks
from losskit.validation.target import all_targets, resolve

SOURCE = '''
"""A loss of a plugin."""

import math
import random
import warnings

import torch

from losskit import Card, Format, Loss


def squared(scores, labels):
    """The squared error.

    Args:
        scores: of pairs.
        labels: what they should be.
    """
    return (scores - labels).square().mean()


class ToyLoss(Loss):
    """Scores of pairs come near to their labels.

    Args:
        model: an encoder.
        factor: of the scores.
        execution: how records come about.
    """

    card = Card(
        formats=[Format(["text", "text"], labels="score", outputs=1)],
        encoders=["dense", "cross-encoder"],
        formula="mean of (s_i - y_i)^2",
        citation="@misc{toy, title = {A Toy}, year = 2026}",
        aliases=["old-toy"],
    )

    def __init__(self, model=None, factor: float = 1.0, *, execution=None):
        super().__init__(model, execution=execution)
        self.factor = factor

    def compute(self, columns, labels, rows):
        return squared(self.factor * self.pairwise(columns[0][rows], columns[1][rows]), labels[rows])
'''
METADATA = """Metadata-Version: 2.4
Name: lk-toy
Version: 1.0
Summary: A toy.
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: losskit~=0.1
Requires-Dist: torch>=2.6
"""
COMPUTE = "        return squared("


@pytest.fixture(scope="module")
def parsed(tmp_path_factory):
    """A folder in which the parsed sources of the built-ins are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _keeps_parsed_sources(request, monkeypatch, parsed) -> None:
    if "home" in request.fixturenames:
        request.getfixturevalue("home")
        monkeypatch.setenv("XDG_CACHE_HOME", str(parsed))


def install(site, source: str = SOURCE, headers: str = METADATA, *, name: str = "toy", typed: bool = True):
    """The fake plugin as a target."""
    folder = site.add(
        "lk-toy",
        points={"losses": {name: "lk_toy.loss:ToyLoss"}},
        modules={"lk_toy/__init__.py": "", "lk_toy/loss.py": source},
    )
    (folder / "METADATA").write_text(headers)
    if typed:
        (site.path / "lk_toy" / "py.typed").touch()
    registry.refresh()
    return resolve(f"lk-toy/{name}")


def found(target) -> dict[str, object]:
    """The checks of a target that are not passed, by their ids."""
    return {each.id: each for each in static_checks(target) if each.status != "passed"}


def place(site, text: str) -> tuple[str, int]:
    """The file and line of a text in the plugin's module."""
    file = site.path / "lk_toy" / "loss.py"
    return str(file), 1 + file.read_text().split(text)[0].count("\n")


def test_a_sound_plugin_passes_every_check(site) -> None:
    checks = static_checks(install(site))
    assert [each.id for each in checks] == ["entry-point", "card", "docstring", "citation", "packaging", "source"]
    assert {each.status for each in checks} == {"passed"}
    assert {each.level for each in checks} == {"static"}
    assert site.imported == set()


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.reference)
def test_every_built_in_passes(target) -> None:
    assert [each for each in static_checks(target) if each.status == "failed"] == []


def test_the_table_of_ids_is_true() -> None:
    assert {law.id for law in ALL} | {check.id for check in STATIC} | {"import"} == CHECKS


def test_a_class_without_card_is_not_asked_for_what_lists_show(home) -> None:
    file = home / "mine.py"
    file.write_text(
        "import torch\n\nclass Mine(torch.nn.Module):\n    def __init__(self, model, scale=1.0):\n        pass\n"
    )
    statuses = {each.id: each.status for each in static_checks(resolve(f"{file}:Mine"))}
    assert statuses == {
        "entry-point": "passed",
        "card": "not_applicable",
        "docstring": "not_applicable",
        "citation": "not_applicable",
        "packaging": "not_applicable",
        "source": "passed",
    }


# Entry points


def test_a_name_in_capitals_is_found(site) -> None:
    check = found(install(site, name="Toy"))["entry-point"]
    assert check.status == "failed"
    assert "'Toy' is not kebab-case" in check.message


def test_a_class_that_is_not_there_is_found_by_its_entry_point_alone(site) -> None:
    checks = found(install(site, SOURCE.replace("class ToyLoss", "class Other")))
    assert {name for name, each in checks.items() if each.status == "failed"} == {"entry-point"}
    assert "defines no class ToyLoss" in checks["entry-point"].message


def test_a_missing_requirement_is_found(site) -> None:
    checks = found(install(site, headers=METADATA + "Requires-Dist: no-such-distribution\n"))
    assert "it needs no-such-distribution" in checks["entry-point"].message
    assert checks["entry-point"].got == "status missing-dependency"


@pytest.mark.parametrize(("name", "other"), [("cosent", "losskit=="), ("matryoshka", "losskit=="), ("mine", "lk-b==")])
def test_a_name_that_is_taken_is_found(site, name, other) -> None:
    site.add_loss("lk-b", name="mine")
    check = found(install(site, name=name))["entry-point"]
    assert check.status == "failed"
    assert other in check.message
    assert "of this name too" in check.message


def test_a_name_that_only_a_blocked_distribution_has_is_free(site) -> None:
    site.add_loss("lk-b", name="mine")
    target = install(site, name="mine")
    registry.refresh(Policy.read(block=["lk-b"]))
    assert "entry-point" not in found(target)


@pytest.mark.parametrize("alias", ["cosent", "theirs"])
def test_an_alias_that_is_taken_is_found(site, alias) -> None:
    site.add_loss("lk-b", name="theirs")
    check = found(install(site, SOURCE.replace("old-toy", alias)))["entry-point"]
    assert f"the alias {alias!r} already means the loss" in check.message


def test_a_built_in_is_not_blamed_for_those_who_take_its_name(site) -> None:
    install(site, name="cosent")
    assert "entry-point" not in found(resolve("losskit/cosent"))


# Cards


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('formula="mean of (s_i - y_i)^2"', "formula=math.pi * 'x'", "the card is not literal"),
        ('formula="mean of (s_i - y_i)^2",\n', "", "no formula"),
        ('        formats=[Format(["text", "text"], labels="score", outputs=1)],\n', "", "no formats"),
        ('encoders=["dense", "cross-encoder"],', "", "names no encoders"),
        (", outputs=1", "", "what a cross-encoder must put out"),
        ("aliases=", "reads={'model': [0, 2]}, aliases=", "columns for 'model' that no format has"),
        ("aliases=", "deviations={'gradients': 'kinks'}, aliases=", "'gradients', which is no check"),
        ("aliases=", "deviations={'gradient': ''}, aliases=", "no reason for the deviation from 'gradient'"),
        ("    card = Card(", "    cards = Card(", "ToyLoss has no card"),
    ],
)
def test_a_flaw_of_a_card_is_found(site, old, new, message) -> None:
    assert old in SOURCE
    checks = found(install(site, SOURCE.replace(old, new)))
    assert {name for name, each in checks.items() if each.status == "failed"} == {"card"}
    assert message in checks["card"].message
    assert checks["card"].file == place(site, "class ToyLoss")[0]
    assert checks["card"].line >= place(site, "class ToyLoss")[1]


def test_a_wrapper_needs_no_formats_and_checks_of_others_may_be_deviated_from(site) -> None:
    source = (
        SOURCE.replace(", Loss\n", ", Wrapper\n").replace("(Loss)", "(Wrapper)").replace("model=None", "model, loss")
    )
    source = source.replace('        formats=[Format(["text", "text"], labels="score", outputs=1)],\n', "")
    source = source.replace("aliases=", "deviations={'lk-other/speed': 'slow'}, aliases=")
    source = source.replace("        factor:", "        loss: what is wrapped.\n        factor:")
    install(site, source)
    assert found(resolve(f"{site.path / 'lk_toy' / 'loss.py'}:ToyLoss")) == {
        "packaging": static_checks(resolve(f"{site.path / 'lk_toy' / 'loss.py'}:ToyLoss"))[4]
    }


def test_a_declared_deviation_is_held_against_what_is_found(site) -> None:
    declared = SOURCE.replace("aliases=", "deviations={'docstring': 'kept short'}, aliases=")
    check = found(install(site, declared.replace("        factor: of the scores.\n", "")))["docstring"]
    assert (check.status, check.message) == ("deviating", "kept short")


def test_a_declared_deviation_that_does_not_occur_is_found(site) -> None:
    check = found(install(site, SOURCE.replace("aliases=", "deviations={'docstring': 'short'}, aliases=")))["docstring"]
    assert (check.status, check.message) == ("failed", "declared as a deviation, but it holds")


# Docstrings


SUMMARY = '"""Scores of pairs come near to their labels.'


@pytest.mark.parametrize(
    ("old", "new", "message", "got"),
    [
        (SUMMARY, SUMMARY[:-1], "does not end with a full stop", "'Scores of pairs come near to their labels'"),
        (SUMMARY, f'"""{"a" * 119}.', "the summary is too long", "120"),
        ("        factor: of the scores.\n", "", "the option 'factor' is described nowhere", "none"),
    ],
)
def test_a_flaw_of_a_docstring_is_found(site, old, new, message, got) -> None:
    checks = found(install(site, SOURCE.replace(old, new)))
    assert list(checks) == ["docstring"]
    assert message in checks["docstring"].message
    assert checks["docstring"].got == got
    assert (checks["docstring"].file, checks["docstring"].line) == place(site, "class ToyLoss")


def test_no_docstring_is_found(site) -> None:
    start, end = SOURCE.index(SUMMARY), SOURCE.index("    card = Card(")
    check = found(install(site, SOURCE[:start] + SOURCE[end:].lstrip()))["docstring"]
    assert check.message == "ToyLoss has no docstring"


@pytest.mark.parametrize(
    "style",
    [
        "factor (float): of the scores.",
        "factor (float, optional): of the scores: more.",
        "``factor``: of the scores.",
        "scale, factor: of the scores.",
        "factor : float\n            of the scores.",
        ":param factor: of the scores.",
        ":param float factor: of the scores.",
    ],
)
def test_options_may_be_described_in_any_usual_style_and_place(site, style) -> None:
    source = SOURCE.replace("        factor: of the scores.\n", "")
    constructor = "execution=None):\n"
    source = source.replace(
        constructor, f'{constructor}        """Make it.\n\n        Args:\n            {style}\n        """\n'
    )
    assert found(install(site, source)) == {}


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        ("", None),
        ("    def __init__(self, model=None, scale=1.0): ...\n", "the option 'scale' is described nowhere"),
    ],
    ids=["inherited", "own"],
)
def test_options_that_are_a_base_of_losskits_are_described_there(site, constructor, message) -> None:
    head = SOURCE[: SOURCE.index("    def __init__")].replace("        factor: of the scores.\n", "")
    source = head.replace(", Loss\n", ", ScoreLoss\n").replace("(Loss)", "(ScoreLoss)") + constructor
    check = found(install(site, source)).get("docstring")
    assert (check and check.message) == message


def test_options_may_be_described_by_the_base_that_takes_them(site) -> None:
    source = (
        SOURCE.replace("class ToyLoss(Loss)", "class Base(Loss)") + '\n\nclass ToyLoss(Base):\n    """The same."""\n'
    )
    assert found(install(site, source)) == {}


# Citations


@pytest.mark.parametrize(
    ("citation", "message"),
    [
        ("Toy et al., 2026", "there is no entry"),
        ("@misc{toy, title = {A Toy}", "braces do not balance"),
        ("@misc{toy, title = {A Toy}}}", "braces do not balance"),
        ("@misc{title = {A Toy}}", "an entry has no key"),
        ("@misc{toy}", "an entry has no key"),
        ("@misc{toy, }", "entry 'toy' has no fields"),
        ("@misc{toy, title = {A} year = 2026}", "a comma is missing in entry 'toy'"),
        ("@misc{toy, title {A}}", "does not go on with a field"),
        ("@misc{toy, title = }", "a field has no value"),
        ("@misc{toy, title = 'A'}", "a field has no value"),
        ('@misc{toy, title = "A}', "a quotation mark stays open"),
        ("@misc{toy, title = {A}}\n@misc{toy, title = {B}}", "two entries have the key 'toy'"),
    ],
)
def test_a_citation_that_is_no_bibtex_is_found(site, citation, message) -> None:
    checks = found(
        install(
            site,
            SOURCE.replace(
                "@misc{toy, title = {A Toy}, year = 2026}", citation.replace('"', '\\"').replace("\n", "\\n")
            ),
        )
    )
    assert list(checks) == ["citation"]
    assert message in checks["citation"].message
    with pytest.raises(BibtexError, match=r"\w"):
        entries(citation)


def test_bibtex_in_all_its_forms() -> None:
    text = """Seen in
@article {a:1, author = "B and {C}", title={{D}: E},
    year = 2026, month = jan,}

@misc{b, url = {x}}"""
    assert entries(text) == {
        "a:1": {"author": "B and {C}", "title": "{D}: E", "year": "2026", "month": "jan"},
        "b": {"url": "x"},
    }


# Distributions


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Requires-Dist: losskit~=0.1\n", "", "it does not require losskit"),
        ("losskit~=0.1", "losskit~=0.1 ; extra == 'all'", "it does not require losskit"),
        ("losskit~=0.1", "losskit>=0.1", "has no upper bound"),
        ("losskit~=0.1", "losskit", "has no upper bound"),
        ("torch>=2.6", "torch=={torch}", "a single version of torch"),
        ("Summary: A toy.\n", "", "no summary"),
        ("Summary: A toy.", "Summary: UNKNOWN", "no summary"),
        ("License-Expression: MIT\n", "", "no licence"),
        ("Requires-Python: >=3.11\n", "", "which Python it needs"),
    ],
)
def test_a_flaw_of_the_metadata_is_found(site, old, new, message) -> None:
    assert old in METADATA
    headers = METADATA.replace(old, new.format(torch=metadata.version("torch")))
    checks = found(install(site, headers=headers))
    assert list(checks) == ["packaging"]
    assert message in checks["packaging"].message
    assert checks["packaging"].message.startswith("lk-toy: ")
    assert checks["packaging"].file.endswith("METADATA")


def test_a_requirement_on_another_losskit_is_found(site) -> None:
    checks = found(install(site, headers=METADATA.replace("losskit~=0.1", "losskit>=99,<100")))
    assert "another losskit than this" in checks["packaging"].message
    assert checks["packaging"].got == "losskit<100,>=99"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("losskit~=0.1", "losskit>=0.1,<1"),
        ("losskit~=0.1", "losskit==0.*"),
        ("losskit~=0.1", "losskit @ https://example.org/losskit.whl"),
        ("torch>=2.6", "torch==2.*"),
        ("License-Expression: MIT", "License: MIT"),
        ("License-Expression: MIT", "Classifier: License :: OSI Approved :: MIT License"),
    ],
)
def test_other_ways_to_say_it_in_metadata_pass(site, old, new) -> None:
    assert "packaging" not in found(install(site, headers=METADATA.replace(old, new)))


def test_a_package_without_marker_of_types_is_found_and_a_lone_module_is_not_asked(site) -> None:
    assert "no py.typed" in found(install(site, typed=False))["packaging"].message
    site.add_loss("lk-lone", name="lone")
    registry.refresh()
    assert "py.typed" not in found(resolve("lk-lone/lone"))["packaging"].message


def test_the_marker_of_types_is_found_in_an_archive(site, monkeypatch) -> None:
    install(site)
    archive = site.path / "all.zip"
    with ZipFile(archive, "w") as packed:
        for name in ("__init__.py", "loss.py", "py.typed"):
            packed.write(site.path / "lk_toy" / name, f"lk_zip/{name}")
    monkeypatch.syspath_prepend(str(archive))
    site.add("lk-zip", points={"losses": {"zipped": "lk_zip.loss:ToyLoss"}})
    registry.refresh()
    assert "py.typed" not in found(resolve("zipped"))["packaging"].message


# Source


@pytest.mark.parametrize(
    ("line", "message", "got"),
    [
        ("torch.zeros(3, device='cuda')", "it names the device 'cuda'", "torch.zeros(3, device='cuda')"),
        ("labels.to('cuda:0')", "it names the device 'cuda:0'", "labels.to('cuda:0')"),
        ("torch.device('mps')", "it names the device 'mps'", "torch.device('mps')"),
        ("torch.device('cuda' if torch.cuda.is_available() else 'cpu')", "it names the device 'cuda'", None),
        ("labels.cuda()", "a device of its own choice", "labels.cuda()"),
        ("torch.manual_seed(0)", "torch.manual_seed seeds the generator", "torch.manual_seed(0)"),
        ("random.seed(0)", "random.seed seeds the generator", "random.seed(0)"),
        ("from numpy import random as r; r.seed(0)", "numpy.random.seed seeds the generator", "r.seed(0)"),
        ("torch.set_default_dtype(torch.float64)", "torch.set_default_dtype changes a setting", None),
        ("torch.use_deterministic_algorithms(True)", "torch.use_deterministic_algorithms changes a setting", None),
        ("torch.set_grad_enabled(False)", "torch.set_grad_enabled holds for the whole process", None),
        ("torch.backends.cudnn.benchmark = True", "it changes torch.backends.cudnn.benchmark", None),
        ("import os; os.environ['A'] = '1'", "it changes os.environ", "os.environ['A'] = '1'"),
        ("warnings.filterwarnings('ignore')", "warnings.filterwarnings changes a setting", None),
        ("print(labels)", "it prints", "print(labels)"),
        ("try: math.log(0)\n        except: labels = 0", "it hides every error", None),
        ("try: math.log(0)\n        except Exception: pass", "it hides every error", None),
    ],
)
def test_a_line_that_reaches_beyond_is_found(site, line, message, got) -> None:
    checks = found(install(site, SOURCE.replace(COMPUTE, f"        {line}\n{COMPUTE}")))
    assert list(checks) == ["source"]
    assert message in checks["source"].message
    assert got in (None, checks["source"].got)
    where = "except" if "except" in line else line.partition("\n")[0]
    assert (checks["source"].file, checks["source"].line) == place(site, where)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("factor=[1.0]", "a default that all instances share"),
        ("factor=dict()", "a default that all instances share"),
        ("factor=1.0, *args", "__init__ takes *args"),
        ("factor=1.0, **kwargs", "__init__ takes **kwargs"),
    ],
)
def test_a_constructor_that_hides_or_shares_is_found(site, parameter, message) -> None:
    signature = "factor: float = 1.0, *, execution=None"
    new = (
        f"{parameter}, execution=None"
        if "*args" in parameter
        else f"{parameter.replace(', **', ', *, execution=None, **')}"
    )
    checks = found(install(site, SOURCE.replace(signature, new if "execution" in new else f"{new}, *, execution=None")))
    assert "source" in checks
    assert message in checks["source"].message
    assert checks["source"].line == place(site, "def __init__")[1]


@pytest.mark.parametrize(
    "line",
    [
        "labels = labels.to(scores.device) if (scores := columns[0].embedding) is not None else labels",
        "labels = labels.to('cpu') if labels.device.type == 'cuda' else labels",
        "with torch.random.fork_rng(): torch.manual_seed(0)",
        "with warnings.catch_warnings(): warnings.simplefilter('ignore')",
        "with torch.set_grad_enabled(False): labels = labels + 0",
        "torch.Generator().manual_seed(0)",
        "random = torch.Generator(); random.seed()",
        "print = repr; print(labels)",
        "import io; print(labels, file=io.StringIO())",
        "try: math.log(0)\n        except ValueError: pass",
        "try: math.log(0)\n        except: raise",
    ],
)
def test_what_only_looks_like_it_passes(site, line) -> None:
    assert found(install(site, SOURCE.replace(COMPUTE, f"        {line}\n{COMPUTE}"))) == {}


def test_only_what_the_class_uses_is_read_and_what_runs_at_import(site) -> None:
    unused = "\n\ndef unused():\n    print(1)\n\n\nif __name__ == '__main__':\n    print(2)\n"
    target = install(site, SOURCE + unused)
    assert found(target) == {}
    (site.path / "lk_toy" / "loss.py").write_text(SOURCE + "\nprint(3)\n")
    assert found(target)["source"].got == "print(3)"
    (site.path / "lk_toy" / "loss.py").write_text(
        SOURCE.replace("    return (scores", "    print(4)\n    return (scores")
    )
    assert found(target)["source"].got == "print(4)"


def test_a_plain_module_may_hand_keywords_on(home) -> None:
    file = home / "mine.py"
    source = "import torch\n\nclass Mine(torch.nn.Module):\n    def __init__(self, model, **kwargs):\n        {}\n"
    file.write_text(source.format("self.loss = torch.nn.MSELoss(**kwargs)"))
    assert static_checks(resolve(f"{file}:Mine"))[-1].status == "passed"
    file.write_text(source.format("self.scale = kwargs.get('scale')") + "#")
    assert "swallows misspelt options" in static_checks(resolve(f"{file}:Mine"))[-1].message


def test_all_findings_are_told_and_the_first_is_pointed_to(site) -> None:
    lines = "".join(f"        print({number})\n" for number in range(6))
    check = found(install(site, SOURCE.replace(COMPUTE, lines + COMPUTE)))["source"]
    assert check.got == "print(0)"
    assert check.message.endswith("; and 2 more")
    assert check.message.count("it prints") == 4


def test_the_checks_of_one_component_are_the_same_twice(site) -> None:
    target = install(site, SOURCE.replace(COMPUTE, f"        print(labels)\n{COMPUTE}"))
    assert static_checks(target) == static_checks(target)
    assert get("loss", "lk-toy/toy") == target.spec
