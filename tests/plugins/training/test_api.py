"""`losskit.train` on a small encoder and a small file; the quickstart."""

import gzip
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

import losskit
from losskit import DataError, LosskitError, ModelError, NotFoundError, PluginError, RecipeError, Run
from losskit.recipe import read_recipe
from losskit_plugins.training import quickstart

FILES = {
    "1_Pooling", "README.md", "checkpoints", "config.json", "config_sentence_transformers.json", "curves.png",
    "metrics.json", "model.safetensors", "modules.json", "provenance.json", "recipe.yaml",
    "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The quickstart's untrained encoder and texts."""
    folder = tmp_path_factory.mktemp("inputs")
    quickstart.write_inputs(folder)
    return folder / "quickstart"


def small(inputs, output):
    columns = {"anchor": "question", "positive": "answer"}
    return {
        "encoder": {"name": "dense", "model": str(inputs / "encoder")},
        "data": {
            "train": {"path": str(inputs / "train.jsonl"), "columns": columns, "limit": 48},
            "eval": {"path": str(inputs / "eval.jsonl"), "columns": columns, "metrics": ["mrr@10"], "limit": 24},
        },
        "loss": {"name": "multiple-negatives-ranking"},
        "training": {"batch_size": 16, "learning_rate": 1e-3, "epochs": 2, "log_every": 1},
        "output": str(output),
    }


@pytest.fixture
def recipe(inputs, tmp_path):
    return small(inputs, tmp_path / "runs" / "model")


@pytest.fixture(scope="session")
def finished(inputs, tmp_path_factory):
    """A run that no test changes."""
    return losskit.train(small(inputs, tmp_path_factory.mktemp("runs") / "model"))


@pytest.fixture
def there(finished, recipe):
    """A copy of it where the recipe's output is."""
    shutil.copytree(finished.path, recipe["output"])
    return Run(recipe["output"])


MISSPELT = r"columns.anchor .*got 'questoin'.*did you mean 'question'"


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_run_holds_all_that_the_contract_names(finished, inputs):
    assert isinstance(finished, Run)
    assert {file.name for file in finished.path.iterdir()} == FILES
    assert left(finished.path.parent) == ["model"]
    metrics = json.loads((finished.path / "metrics.json").read_text())
    assert metrics.keys() == {"schema", "before", "after", "train"}
    assert metrics["before"].keys() == metrics["after"].keys() == {"mrr@10"}
    assert metrics["train"].keys() == {"steps", "samples_per_second", "loss"}
    assert metrics["train"]["steps"] == 6
    origin = json.loads((finished.path / "provenance.json").read_text())
    assert origin["versions"].keys() == {"losskit", "torch", "transformers", "python"}
    assert {(each["kind"], each["name"]) for each in origin["components"]} == {
        ("encoder", "dense"), ("loss", "multiple-negatives-ranking"), ("similarity", "cosine"),
    }  # fmt: skip
    assert all(each["distribution"] == "losskit" and len(each["sha256"]) == 64 for each in origin["components"])
    assert origin["data"]["train"]["rows"] == 48
    assert origin["data"]["eval"]["rows"] == 24
    assert origin["data"]["eval"]["files"][0]["path"] == str(inputs / "eval.jsonl")
    assert finished.encoder.encode(["a"]).shape == (1, 128)


def test_the_saved_recipe_is_filled_in_and_repeats_the_run(finished, tmp_path):
    saved = read_recipe([finished.path / "recipe.yaml"])
    assert saved.execution == {"name": "direct", "gather": False, "merge": True, "rows": None, "tokens": 1024}
    again = losskit.train(finished.path / "recipe.yaml", output=tmp_path / "again")
    assert again.after == finished.after
    assert again.train["loss"] == finished.train["loss"]


def test_the_model_card_is_one_of_the_hubs(finished):
    card = (finished.path / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["library_name"] == "sentence-transformers"
    assert matter["tags"] == ["sentence-transformers", "losskit", "dense", "loss:MultipleNegativesRankingLoss"]
    for part in ('losskit.load("model")', 'SentenceTransformer("model")', "| mrr@10 |", "@misc{oord2018", "| eval |"):
        assert part in text
    assert "name: multiple-negatives-ranking" in text


def test_interrupted_and_resumed_equals_uninterrupted(recipe, tmp_path):
    recipe["training"]["save_every"] = 2
    whole = losskit.train(recipe, output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        losskit.train(recipe, output=tmp_path / "cut", callbacks=[Stop()])
    assert not (tmp_path / "cut").exists()
    with pytest.raises(RecipeError, match=r"expected no unfinished run.*give --resume to go on with it"):
        losskit.train(recipe, output=tmp_path / "cut")
    resumed = losskit.train(recipe, output=tmp_path / "cut", resume=True)
    assert resumed.before == whole.before
    assert resumed.after == whole.after
    assert resumed.train["loss"] == pytest.approx(whole.train["loss"])
    idle = losskit.train(recipe, output=tmp_path / "cut", resume=True)  # there is nothing left to do
    assert idle.train["loss"] == pytest.approx(whole.train["loss"])
    assert idle.train["samples_per_second"] == pytest.approx(resumed.train["samples_per_second"], rel=0.5)
    one, other = load_file(whole.path / "model.safetensors"), load_file(resumed.path / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list(resumed.path.rglob("training_args.bin"))
    assert left(tmp_path) == ["cut", "whole"]


def test_refuses_to_resume_without_the_plugins_that_an_unfinished_run_began_with(recipe, tmp_path):
    recipe["training"]["save_every"] = 2
    with pytest.raises(KeyboardInterrupt):
        losskit.train(recipe, output=tmp_path / "cut", callbacks=[Stop()])
    file = tmp_path / "cut.partial" / "provenance.json"
    origin = json.loads(file.read_text())
    origin["components"][1] |= {"distribution": "lk-gone", "version": "3.1"}
    file.write_text(json.dumps(origin))
    with pytest.raises(PluginError, match=r"of lk-gone 3.1: .* got no distribution of that name, and another .*3.1'$"):
        losskit.train(recipe, output=tmp_path / "cut", resume=True)
    assert left(tmp_path) == ["cut.partial"]


def test_a_run_of_another_recipe_is_not_resumed(recipe, tmp_path):
    recipe["training"]["save_every"] = 2
    with pytest.raises(KeyboardInterrupt):
        losskit.train(recipe, output=tmp_path / "cut", callbacks=[Stop()])
    with pytest.raises(RecipeError, match=r"--resume into .*cut: expected loss .* as it began, got .*'scale': 3"):
        losskit.train(recipe, output=tmp_path / "cut", resume=True, **{"loss.scale": 3})
    assert left(tmp_path) == ["cut.partial"]
    begun = tmp_path / "cut.partial" / "recipe.yaml"
    text = begun.read_text()
    for odd in ("[1]", "a: !!float b", "\x00"):
        begun.write_text(odd)
        with pytest.raises(RecipeError, match=r"recipe.yaml"):
            losskit.train(recipe, output=tmp_path / "cut", resume=True)
    begun.write_text(text)
    losskit.train(recipe, output=tmp_path / "cut", resume=True)


def test_an_output_that_is_there_is_kept_or_replaced_as_told(recipe, there):
    (there.path / "mine.txt").touch()
    with pytest.raises(RecipeError, match="got one that is not empty"):
        losskit.train(recipe)
    assert (there.path / "mine.txt").exists()
    losskit.train(recipe, force=True)
    assert not (there.path / "mine.txt").exists()


def test_a_finished_run_trains_on(recipe, there):
    longer = losskit.train(recipe, **{"training.epochs": 3}, resume=True)
    assert (there.train["steps"], longer.train["steps"]) == (6, 9)
    assert longer.before == there.before
    assert longer.train["loss"] < there.train["loss"]


def test_a_loss_from_a_file_keeps_what_it_owns(recipe, tmp_path):
    (tmp_path / "owning.py").write_text(
        "import torch\n"
        "from losskit import Card, Format, Loss\n"
        "class Owning(Loss):\n"
        '    """Learns the similarity that it pulls pairs to."""\n'
        '    card = Card(formats=[Format(["anchor", "positive"])])\n'
        "    def __init__(self, model):\n"
        "        super().__init__(model)\n"
        "        self.target = torch.nn.Parameter(torch.tensor(0.5))\n"
        "    def compute(self, columns, labels, rows):\n"
        "        pull = (self.pairwise(columns[0][rows], columns[1][rows]) - self.target).square().mean()\n"
        '        return {"pull": pull, "cost": 0.1 * self.target.square()}\n'
    )
    run = losskit.train(recipe, **{"loss": f"{tmp_path / 'owning.py'}:Owning"})
    assert list(load_file(run.path / "loss.safetensors")) == ["target"]
    assert load_file(run.path / "loss.safetensors")["target"].item() != 0.5
    (component,) = [
        each for each in json.loads((run.path / "provenance.json").read_text())["components"] if each["kind"] == "loss"
    ]
    assert component["file"] == "owning.py"


def test_without_evaluation_and_under_another_execution(recipe, caplog, capsys):
    del recipe["data"]["eval"]
    with caplog.at_level(logging.INFO, logger="losskit"):
        run = losskit.train(recipe, execution={"name": "grad-cache", "mini_batch_size": 8})
    assert read_recipe([run.path / "recipe.yaml"]).execution["name"] == "grad-cache"
    assert (run.before, run.after) == ({}, {})
    assert "## Evaluation" not in (run.path / "README.md").read_text()
    assert "48 rows of" in caplog.text
    assert "Evaluating" not in caplog.text
    assert capsys.readouterr() == ("", "")


def scored(tmp_path, scores):
    (tmp_path / "scored.jsonl").write_text(
        "".join(json.dumps({"text_1": "a", "text_2": "b", "score": score}) + "\n" for score in scores)
    )
    return {"path": str(tmp_path / "scored.jsonl"), "columns": {}}


def corrupt(tmp_path):
    packed = gzip.compress(b'{"question": "a", "answer": "b"}\n' * 1000)
    (tmp_path / "bad.jsonl.gz").write_bytes(packed[:-20])
    return tmp_path / "bad.jsonl.gz"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data.train.columns.anchor": "questoin"}, DataError, MISSPELT),
        ({"data.eval.columns.anchor": "questoin"}, DataError, MISSPELT),
        ({"data.train.path": "nowhere.jsonl"}, DataError, r"nowhere.jsonl: no such file"),
        ({"data.eval.path": "nowhere.jsonl"}, DataError, r"nowhere.jsonl: no such file"),
        ({"data.train.path": corrupt, "data.train.limit": None}, DataError, r"bad.jsonl.gz.*damaged"),
        ({"loss": "cosnt"}, NotFoundError, r"no loss is named 'cosnt'"),
        ({"encoder.name": "dence"}, NotFoundError, r"no encoder is named 'dence'"),
        ({"loss.scal": 3}, RecipeError, r"loss.scal: .*did you mean 'scale'"),
        ({"training.learning_rat": 3}, RecipeError, r"training.learning_rat: unknown"),
        ({"training.batch_sampler": "rnd"}, RecipeError, r"training.batch_sampler"),
        ({"loss.scale": "hot"}, RecipeError, r"loss.scale: expected .*number.*got 'hot'"),
        ({"data.eval.metrics": ["mrr@1"]}, DataError, r"metric 'mrr@1'"),
        ({"encoder.trust_remote_code": True}, RecipeError, r"encoder.trust_remote_code: no recipe may say so"),
        ({"encoder.name": "cross-encoder"}, RecipeError, r"loss multiple-negatives-ranking: expected an encoder"),
        ({"encoder.model": "no/such/model"}, ModelError, r"no/such/model"),
        ({"output": "/proc/losskit/run"}, RecipeError, r"expected a place that can be written"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_leaves_nothing(recipe, tmp_path, change, error, message):
    change = {key: str(value(tmp_path)) if callable(value) else value for key, value in change.items()}
    before = left(tmp_path)
    with pytest.raises(error, match=message) as found:
        losskit.train(recipe, **change)
    assert isinstance(found.value, LosskitError)
    assert "\n" not in str(found.value)
    assert left(tmp_path) == before


@pytest.mark.parametrize(
    ("scores", "place"), [([0.5, float("nan")], "line 2"), ([0.5] * 40 + [float("nan")], "line 41")]
)
def test_scores_that_are_not_numbers_are_refused_with_their_line(recipe, tmp_path, scores, place):
    recipe["data"] = {"train": scored(tmp_path, scores)}
    with pytest.raises(DataError, match=rf"scored.jsonl, {place}, column 'score': expected a finite number, got nan"):
        losskit.train(recipe, loss="cosent")
    assert left(tmp_path) == ["scored.jsonl"]


def test_a_plugins_callback_takes_part_and_a_broken_hook_is_reported(recipe, monkeypatch, caplog):
    class Steps(TrainerCallback):
        seen = 0

        def on_step_end(self, args, state, control, **kwargs):
            Steps.seen += 1

    class Hooks:
        problems = ("other==1.0 other.hooks: broken: it raises",)

        def call(self, hook, **arguments):
            assert (hook, arguments["recipe"].loss) == ("losskit_train_callbacks", recipe["loss"])
            entry = SimpleNamespace(provider="lk-odd", version="1.0")
            return [(entry, Steps()), (entry, object())]

    monkeypatch.setattr("losskit_plugins.training.job.Hooks", Hooks)
    run = losskit.train(recipe)
    assert Steps.seen == 6
    (origin,) = json.loads((run.path / "provenance.json").read_text())["callbacks"]
    assert (origin["distribution"], origin["version"], origin["file"]) == ("lk-odd", "1.0", "test_api.py")
    assert "other==1.0" in caplog.text
    assert "lk-odd gives object, which is no TrainerCallback" in caplog.text


def test_the_quickstart_learns_and_replaces_only_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = losskit.train(**{"training.epochs": 4})
    assert str(run.path) == "runs/quickstart"
    assert run.before["accuracy"] < 0.05
    assert run.after["mrr@10"] > 10 * run.before["mrr@10"]
    saved = read_recipe([run.path / "recipe.yaml"])
    assert saved.data.train.path == "runs/quickstart/quickstart/train.jsonl"
    again = losskit.train(**{"training.steps": 2})
    assert (Run(run.path).train["steps"], again.train["steps"]) == (2, 2)
    shutil.rmtree(tmp_path / "runs" / "quickstart" / "quickstart")
    with pytest.raises(RecipeError, match="got one that is not empty"):
        losskit.train()


def test_a_quickstart_under_a_name_of_its_own_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quickstart.write_inputs(tmp_path / "mine")
    with pytest.raises(RecipeError, match=r"output mine: .*got one that is not empty"):
        losskit.train(output="mine")


def test_force_does_not_remove_what_the_run_is_made_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quickstart.write_inputs(tmp_path)
    recipe = quickstart.recipe(Path()) | {"output": "quickstart"}
    with pytest.raises(RecipeError, match="expected a folder without what the run is made from, got quickstart/"):
        losskit.train(recipe, force=True)
    assert (tmp_path / "quickstart" / "train.jsonl").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_sentence_transformers_gives_the_same_embeddings(finished):
    from sentence_transformers import SentenceTransformer

    texts = ["How do I clean my kettle?", "A soft sponge makes the glass tank shine."]
    theirs = SentenceTransformer(str(finished.path), device="cpu").encode(texts)
    assert np.abs(theirs - finished.encoder.encode(texts)).max() < 1e-5
