"""`losskit new` as it is called: what it writes, where, what it asks, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from losskit import registry
from losskit_cli import writing
from losskit_cli.naming import LONGEST


@pytest.fixture
def call(in_process):
    return partial(in_process, "new")


def contents(folder: Path) -> dict[str, str]:
    """All files below a folder, hidden ones too."""
    return {
        str(file.relative_to(folder)): file.read_text(encoding="utf-8")
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_json_says_what_was_written_and_what_comes_next(call, home) -> None:
    code, out, err = call("loss", "my-margin", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert list(record) == ["schema", "path", "files", "next"]
    assert record["path"] == str(home / "work" / "losskit-my-margin")
    assert record["files"] == sorted(contents(home / "work" / "losskit-my-margin"))
    assert record["next"] == [
        "cd losskit-my-margin",
        "pip install -e '.[test]'",
        "losskit validate loss:my-margin",
        "pytest",
        "losskit train loss=my-margin",
    ]
    assert [path.name for path in (home / "work").iterdir()] == ["losskit-my-margin"]


def test_text_lists_the_same(call, home) -> None:
    code, out, _ = call("loss", "my-margin", "--out", "a folder/b")
    assert code == 0
    folder = home / "work" / "a folder" / "b"
    assert out.splitlines()[:2] == ["a folder/b:", "  .github/workflows/release.yml"]
    assert "  cd 'a folder/b'" in out
    assert "src/losskit_my_margin/my_margin.py" in contents(folder)


def test_folders_and_files_have_the_usual_permissions(call, home) -> None:
    mask = os.umask(0o027)
    try:
        assert call("loss", "my-margin")[0] == 0
    finally:
        os.umask(mask)
    folder = home / "work" / "losskit-my-margin"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert stat.S_IMODE((folder / "README.md").stat().st_mode) == 0o640


def test_a_dry_run_says_the_same_and_writes_nothing(call, home) -> None:
    planned = json.loads(call("loss", "my-margin", "--dry-run", "--json")[1])
    assert not list((home / "work").iterdir())
    assert json.loads(call("loss", "my-margin", "--json")[1]) == planned


def test_every_answer_is_an_option(call, home) -> None:
    options = ["--summary", "Keeps a margin", "--author", "Ada Lovelace", "--email", "ada@example.org"]
    options += ["--license", "MIT", "--distribution", "Ada.margins", "--out", "here"]
    assert call("regularizer", "my-margin", *options)[0] == 0
    files = contents(home / "work" / "here")
    assert 'description = "Keeps a margin."' in files["pyproject.toml"]
    assert 'authors = [{ name = "Ada Lovelace", email = "ada@example.org" }]' in files["pyproject.toml"]
    assert "Copyright (c) Ada Lovelace" in files["LICENSE"]
    assert 'my-margin = "ada_margins.my_margin:MyMarginRegularizer"' in files["pyproject.toml"]
    assert "src/ada_margins/my_margin.py" in files


def test_one_file_is_the_component_alone(call, home) -> None:
    (home / "work" / "other.txt").touch()
    code, out, _ = call("loss", "my-margin", "--single-file", "--json")
    assert code == 0
    assert json.loads(out) == {
        "schema": 1,
        "path": str(home / "work"),
        "files": ["my_margin.py"],
        "next": ["losskit validate my_margin.py", "losskit train loss=my_margin.py"],
    }
    assert registry.get("loss", "my_margin.py").class_name == "MyMarginLoss"


@pytest.mark.parametrize(
    ("kind", "origin", "said"),
    [
        ("loss", "margin-mse", ['Format(inputs=["query", "positive", "negative+"], labels="margins"', "ScoreLoss"]),
        ("loss", "TripletLoss", ['Format(inputs=["anchor", "positive", "negative"], labels="none")']),
        ("wrapper", "weighted-sum", ["losses: Mapping[str, Loss]"]),
        ("similarity", "cosine", ["def transform(self"]),
        ("encoder", "cross-encoder", ['encoders=["cross-encoder"]']),
    ],
)
def test_from_begins_with_the_shape_of_a_built_in(call, home, kind, origin, said) -> None:
    assert call(kind, "mine", "--from", origin, "--single-file")[0] == 0
    text = (home / "work" / "mine.py").read_text(encoding="utf-8")
    assert all(part in text for part in said)


def test_from_keeps_to_the_encoders_of_the_built_in(call, home) -> None:
    assert call("loss", "mine", "--from", "angle", "--single-file")[0] == 0
    assert 'encoders=["dense", "sparse"],' in (home / "work" / "mine.py").read_text(encoding="utf-8")


def test_an_empty_folder_is_filled_and_one_that_holds_something_is_refused(call, home) -> None:
    folder = home / "work" / "mine"
    folder.mkdir()
    assert call("loss", "my-margin", "--out", "mine")[0] == 0
    before = contents(folder)
    code, _, err = call("loss", "your-margin", "--out", "mine")
    assert code == 2
    assert err == (
        "losskit: mine: expected nothing there, or an empty folder, got something. "
        "Fix: write --force to replace what is written anew, or another --out\n"
    )
    assert contents(folder) == before


def test_force_replaces_what_is_written_anew_and_leaves_the_rest(call, home) -> None:
    folder = home / "work" / "losskit-my-margin"
    assert call("loss", "my-margin")[0] == 0
    written = contents(folder)
    (folder / "README.md").write_text("mine")
    (folder / "notes.txt").write_text("mine too")
    assert call("loss", "my-margin", "--force")[0] == 0
    assert contents(folder) == {**written, "notes.txt": "mine too"}


def test_the_working_folder_can_be_the_packages(call, home) -> None:
    assert call("loss", "my-margin", "--out", ".")[0] == 0
    assert (Path.cwd() / "pyproject.toml").is_file()


@pytest.mark.parametrize("fails_at", [0, 3, 16])
def test_what_fails_half_way_leaves_everything_untouched(call, home, monkeypatch, fails_at) -> None:
    folder = home / "work" / "losskit-my-margin"
    assert call("loss", "my-margin")[0] == 0
    (folder / "README.md").write_text("mine")
    (folder / "LICENSE").unlink()
    shutil.rmtree(folder / ".github")
    before = contents(folder)
    rename, count = Path.rename, iter(range(1000))

    def failing(self: Path, target: Path) -> Path:
        if "new" in self.parts and next(count) == fails_at:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    code, _, err = call("loss", "my-margin", "--force")
    assert code == 2
    assert "expected a folder that can be written, got OSError" in err
    assert contents(folder) == before
    assert not (folder / "LICENSE").exists()
    assert not (folder / ".github").exists()


def test_what_appears_meanwhile_is_untouched(call, home, monkeypatch) -> None:
    write = writing.Path.write_text

    def writing_beside(self: Path, text: str, **options: object) -> int:
        write(home / "work" / "my_margin.py", "mine")
        return write(self, text, **options)

    monkeypatch.setattr(writing.Path, "write_text", writing_beside)
    code, _, err = call("loss", "my-margin", "--single-file")
    assert (code, "File exists: 'my_margin.py'" in err) == (2, True)
    assert contents(home / "work") == {"my_margin.py": "mine"}


def test_what_is_interrupted_while_writing_leaves_nothing(call, home, monkeypatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.Path, "write_text", interrupted)
    assert call("loss", "my-margin", "--out", "deep/er/below")[0] == 130
    assert not list((home / "work").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["los", "x"], "KIND: expected one of loss, wrapper"),
        (["los", "x"], "Fix: did you mean 'loss'?"),
        (["loss", "MyMargin"], "name 'MyMargin': expected lower-case words and hyphens, such as my-margin"),
        (["loss", "my_margin"], "Fix: write my-margin"),
        (["loss", "2d"], "name '2d': expected lower-case words"),
        (["loss", "größe"], "expected lower-case words and hyphens"),
        (["loss", "a\x1b[31m"], "name 'a\\x1b[31m'"),
        (["loss", ""], "name '': expected lower-case words"),
        (["loss", "a" * (LONGEST + 1)], "name: expected at most 40 characters, got 41"),
        (["loss", "class"], "name 'class': expected a name for a module, got a keyword of Python"),
        (["loss", "reference"], "got the module of the formula in loops. Fix: write my-reference"),
        (["loss", "laws"], "got the name of tests that every package has. Fix: write my-laws"),
        (["encoder", "true"], "got what YAML takes for no name. Fix: write my-true"),
        (["loss", "torch", "--single-file"], "got the module torch, which a file of that name would hide"),
        (["loss", "json", "--single-file"], "expected a name for a file, got the module json"),
        (["loss", "score"], "name 'score': expected a class of its own, got losskit.ScoreLoss"),
        (["loss", "cosent"], "name 'cosent': expected a free one, got the loss cosent of losskit=="),
        (["wrapper", "cosent"], "got the loss cosent of losskit=="),
        (["loss", "my-triplet", "--distribution", "torch"], "got the package torch, which is installed"),
        (["loss", "x", "--distribution", "losskit"], "distribution 'losskit': expected a name of your own"),
        (["loss", "x", "--distribution", "json"], "can import as its own, got the package json"),
        (["loss", "x", "--distribution", "Tests"], "can import as its own, got the package tests"),
        (["loss", "x", "--distribution", "a b"], "letters, digits, and between them '.', '_' and '-'"),
        (["loss", "x", "--distribution", "-a"], "letters, digits, and between them '.', '_' and '-'"),
        (["loss", "x", "--distribution", "1a"], "got the package 1a"),
        (["loss", "x", "--summary", "a\nb"], "expected one line of 1 to 100 printable characters, got 'a\\nb'"),
        (["loss", "x", "--summary", "a" * 101], "--summary: expected one line"),
        (["loss", "x", "--author", "\x1b]0;x\x07"], "--author: expected one line"),
        (["loss", "x", "--email", "not an address"], "--email: expected an address such as me@example.org"),
        (["loss", "x", "--summary", "\u6f22 " * 40], "got '\u6f22 \u6f22"),
        (["loss", "x", "--summary", "\u6f22 " * 40], "Fix: wide characters and backslashes count twice"),
        *((["loss", "x", "--email", each], "--email: expected an address such as me@example.org")
          for each in ("a..b@c", "a\x7fb@c", "a@b@c", "a@b.", "a,b@c", "\xe4@b.de", '"a"@b', "@", "a@")),
        (["loss", "x", "--license", "GPL"], "--license: expected one of Apache-2.0, MIT, BSD-3-Clause, got 'GPL'"),
        (["loss", "x", "--from", "matryoshka"], "--from matryoshka: expected a built-in loss, got a wrapper"),
        (["loss", "x", "--from", "tripled"], "no loss is named 'tripled'. Fix: did you mean 'triplet'?"),
        (["loss", "x", "--single-file", "--author", "Ada"], "--author: expected a package, got --single-file"),
        (["loss", "x", "--out", "taken"], "--out taken: expected a folder, got a file of that name"),
        (["loss", "x", "--out", "taken/below"], "--out taken/below: expected a folder that can be written"),
        (["loss", "x", "--single-file", "--out", "taken"], "--out taken: expected a folder"),
        (["loss", "x", "--out", "~nobody-of-that-name/x"], "expected the home of somebody"),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be_right_in_one_line_and_writes_nothing(call, home, arguments, said) -> None:
    (home / "work" / "taken").touch()
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in (home / "work").iterdir()] == ["taken"]


def test_refuses_a_link_to_nothing(call, home) -> None:
    (home / "work" / "link").symlink_to("nothing")
    assert call("loss", "x", "--out", "link")[2] == "losskit: --out link: expected a folder, got a link to nothing\n"


def test_what_lies_in_the_working_folder_hides_nothing(call, home, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", ["", str(home / "work"), *sys.path])
    (home / "work" / "things").mkdir()
    (home / "work" / "mine.py").touch()
    assert call("loss", "mine", "--distribution", "things", "--out", "new")[0] == 0
    assert call("loss", "mine", "--single-file", "--force")[0] == 0


def test_refuses_names_of_installed_packages_unless_these_are_blocked(call, site) -> None:
    site.add_loss("lk-a", "toy", class_name="ToyLoss")
    registry.refresh()
    assert "got the loss toy of lk-a==1.0. Fix: choose another name, or block lk-a" in call("loss", "toy")[2]
    assert "class ToyLoss: expected a free one" in call("loss", "toy-loss")[2]
    assert "which is installed" not in call("regularizer", "toy", "--dry-run")[2]
    assert call("loss", "toy", "--block", "lk-a", "--dry-run")[0] == 0
    registry.refresh()
    code, _, err = call("loss", "toys", "--distribution", "lk-a")
    assert (code, "expected a free name, got one that is installed" in err) == (2, True)
    assert call("loss", "toys", "--distribution", "lk-a", "--force", "--dry-run")[0] == 0
    assert not site.imported


def test_refuses_to_write_through_links_and_over_folders(call, home) -> None:
    folder = home / "work" / "mine"
    (home / "elsewhere").mkdir()
    (folder / "README.md").mkdir(parents=True)
    code, _, err = call("loss", "my-margin", "--out", "mine", "--force")
    assert (code, err) == (2, "losskit: mine/README.md: expected a file or nothing, got a folder\n")
    (folder / "README.md").rmdir()
    (folder / "src").symlink_to(home / "elsewhere")
    code, _, err = call("loss", "my-margin", "--out", "mine", "--force")
    assert (code, err) == (2, "losskit: mine/src: expected a folder, got a link\n")
    assert not list((home / "elsewhere").iterdir())


def test_a_terminal_is_asked_for_what_no_option_says_and_again_for_what_cannot_be(call, home, monkeypatch) -> None:
    import typer

    typed = iter(["Keeps a margin", "Ada", "ada", "ada@example.org", "GPL", "MIT"])
    asked: list[str] = []

    def prompt(text, default, *, err, value_proc):
        assert err
        asked.append(text)
        while True:
            try:
                return value_proc(next(typed))
            except typer.BadParameter:
                asked.append("again")

    monkeypatch.setattr(typer, "prompt", prompt)
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert call("loss", "my-margin")[0] == 0
    assert asked == [
        "summary", "author", "email (may be empty)", "again", "licence (Apache-2.0, MIT, BSD-3-Clause)", "again",
    ]  # fmt: skip
    files = contents(home / "work" / "losskit-my-margin")
    assert 'authors = [{ name = "Ada", email = "ada@example.org" }]' in files["pyproject.toml"]
    assert files["LICENSE"].startswith("MIT License")


def test_the_end_of_the_input_and_an_interrupt_end_the_questions(call, home, monkeypatch) -> None:
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    for error in (EOFError, KeyboardInterrupt):
        monkeypatch.setattr(sys.stdin, "readline", Mock(side_effect=error), raising=False)
        assert call("loss", "my-margin")[0] == 130
    assert not list((home / "work").iterdir())


def test_it_needs_no_network_no_other_program_and_nothing_heavy(site) -> None:
    site.add_loss("lk-a", "toy")
    program = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.fork', 'os.posix_spawn')):\n"
        "        raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "from losskit_cli.app import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "new", "loss", "my-margin"],
        env={**os.environ, "PYTHONPATH": str(site.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("[]\n")
    assert not site.imported


@pytest.mark.parametrize(
    ("line", "offered"),
    [("losskit new sim", {"similarity"}), ("losskit new loss x --license M", {"MIT"}),
     ("losskit new loss x --from margin", {"margin-mse"})],
)  # fmt: skip
def test_the_shell_completes_kinds_licences_and_origins(losskit, line, offered) -> None:
    result = losskit(_LOSSKIT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(line.split()) - 1))
    assert set(result.stdout.split()) == offered
