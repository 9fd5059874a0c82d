"""`losskit train` as it is called."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from losskit_cli.app import main
from losskit_plugins.training import quickstart


def call(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of a call in this process."""
    monkeypatch.setattr(sys, "argv", ["losskit", "train", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_quickstart_prints_a_table_and_says_what_it_does(here, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "training.steps=3", "training.eval_strategy='no'")
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["METRIC", "BEFORE", "AFTER", "CHANGE"]
    assert [line[0] for line in lines[1:]] == ["ndcg@10", "mrr@10", "recall@10", "accuracy"]
    assert re.search(r"^672 rows of runs/quickstart/quickstart/train.jsonl: anchor = question", err, re.MULTILINE)
    assert re.search(r"^3 steps at \d+ samples per second, .*; saved in runs/quickstart$", err, re.MULTILINE)
    assert "\x1b" not in out + err


def test_json_is_the_final_metrics_and_quiet_is_quiet(here, monkeypatch, capsys):
    options = ("training.steps=1", "training.eval_strategy='no'", "output=model", "--json", "--quiet")
    code, out, err = call(monkeypatch, capsys, *options)
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record.keys() == {"schema", "path", "before", "after", "train"}
    assert (record["schema"], record["path"], record["train"]["steps"]) == (1, "model", 1)


def test_recipes_are_merged_and_overridden(here, monkeypatch, capsys):
    quickstart.write_inputs(here)
    inputs = here / "quickstart"
    (here / "base.yaml").write_text(
        f"encoder: {{name: dense, model: {inputs / 'encoder'}}}\n"
        f"data: {{train: {{path: {inputs / 'train.jsonl'}, columns: {{anchor: question, positive: answer}}}}}}\n"
        "loss: multiple-negatives-ranking\n"
    )
    (here / "more.yaml").write_text("training: {steps: 5, batch_size: 8}\noutput: model\n")
    code, out, err = call(monkeypatch, capsys, "base.yaml", "more.yaml", "training.steps=2")
    assert (code, out) == (0, "")
    assert "2 steps at" in err
    code, out, err = call(monkeypatch, capsys, "base.yaml", "more.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("losskit: output model: expected a new or an empty folder")
    assert err.count("\n") == 1


def test_schema_is_one_of_recipes(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--schema")
    assert code == 0
    assert {"encoder", "data", "loss", "training", "output"} <= json.loads(out)["properties"].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "losskit: recipe nowhere.yaml: no such file"),
        (["training.epocs=2"], "losskit: training.epocs: unknown; did you mean 'epochs'"),
        (["epochs=2"], "losskit: epochs: unknown"),
        (["--resume", "--force"], "losskit: --resume and --force: expected one of them, got both"),
        (["loss.name=cosnt"], "losskit: no loss is named 'cosnt'. Fix: did you mean 'cosent'"),
        (["data.train.path=a.csv"], "losskit: encoder"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(here, monkeypatch, capsys, arguments, message):
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not any(here.iterdir())


def test_code_in_a_recipe_needs_the_users_word(here, monkeypatch, capsys):
    (here / "mine.py").write_text("raise SystemExit('must not run')\n")
    (here / "recipe.yaml").write_text(
        "{encoder: dense, data: {train: {path: a.csv}}, loss: 'mine.py:Mine', output: run}\n"
    )
    code, _, err = call(monkeypatch, capsys, "recipe.yaml")
    assert code == 2
    assert "give --plugin mine.py:Mine" in err
    code, _, err = call(monkeypatch, capsys, "recipe.yaml", "--plugin", "mine.py:Mine")
    assert code != 0
    assert "give --plugin" not in err
    assert "must not run" not in err


@pytest.mark.slow
def test_on_a_terminal_of_80_columns_nothing_is_wrapped(tmp_path):
    """A bar while it trains, and a table at the end."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "losskit_cli", "train", "training.epochs=1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        output = b""
        try:
            while part := os.read(leader, 65536):
                output += part
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(leader)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    frames = [frame for frame in re.split(r"[\r\n]+", text) if frame]
    assert any(re.match(r"training .* \d+/21 loss \d\.\d{4} ", frame) for frame in frames)
    assert any(re.match(r"metric +before +after +change", frame) for frame in frames)
    assert max(map(len, (frame for frame in frames if not frame.startswith("672 rows")))) <= 80
