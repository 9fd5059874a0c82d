"""Recipes: strict, merged left to right, and filled in so that they read back."""
# ruff: noqa: E501  tables of messages

import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losskit.errors import RecipeError
from losskit.recipe import EvalSource, Recipe, Training, read_recipe
from losskit.yaml12 import dump_yaml, parse_yaml

BASE = {
    "encoder": {"name": "dense", "model": "folder"},
    "data": {"train": {"path": "pairs.jsonl", "columns": {"anchor": "question"}}, "eval": {"path": "dev.jsonl"}},
    "loss": "cosent",
    "output": "run",
}
ARGUMENTS = {"learning_rate", "num_train_epochs", "bf16", "per_device_train_batch_size", "warmup_steps", "optim"}


def refusal(*overrides, base=BASE):
    with pytest.raises(RecipeError) as caught:
        read_recipe([base], list(overrides))
    return str(caught.value)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


class TestReading:
    def test_defaults_are_filled_in(self):
        recipe = read_recipe([BASE])
        assert recipe.training == Training()
        assert recipe.seed == recipe.training.seed == 0
        assert recipe.execution is None
        assert recipe.data.eval == EvalSource(path="dev.jsonl")

    def test_files_merge_left_to_right_maps_deeply_and_other_values_whole(self, tmp_path):
        first = write(
            tmp_path / "a.yaml",
            "encoder: {name: dense, model: m, pooling: mean}\ndata: {train: {path: a.csv}}\n"
            "loss: {name: matryoshka, dims: [4, 2], loss: cosent}\noutput: run\ntraining: {epochs: 1, bf16: true}\n",
        )
        second = write(tmp_path / "b.yaml", "encoder: {pooling: cls}\nloss: {dims: [3]}\ntraining: {epochs: 2}\n")
        recipe = read_recipe([first, str(second), {"training": {"seed": 7}}])
        assert recipe.encoder == {"name": "dense", "model": "m", "pooling": "cls"}
        assert recipe.loss == {"name": "matryoshka", "dims": [3], "loss": "cosent"}
        assert (recipe.training.epochs, recipe.training.seed) == (2, 7)
        assert recipe.training.arguments_given == {"bf16": True}

    def test_overrides_come_last_and_are_yaml(self):
        recipe = read_recipe(
            [BASE], ["training.learning_rate=3e-4", "loss.dims=[2, 1]", "data.eval.metrics=[spearman]"]
        )
        assert recipe.training.learning_rate == 3e-4
        assert recipe.loss == {"name": "cosent", "dims": [2, 1]}
        assert recipe.data.eval.metrics == ["spearman"]

    def test_an_override_replaces_a_component_by_name(self):
        base = BASE | {"loss": {"name": "matryoshka", "dims": [2], "loss": "cosent"}}
        assert read_recipe([base], ["loss=cosent"]).loss == "cosent"
        assert read_recipe([base], ["loss.loss.scale=3"]).loss["loss"] == {"name": "cosent", "scale": 3}

    def test_overrides_from_python_merge_maps(self):
        recipe = read_recipe([BASE], {"training": {"epochs": 3}, "training.seed": 5, "output": "elsewhere"})
        assert (recipe.training.epochs, recipe.training.seed, recipe.output) == (3, 5, "elsewhere")

    def test_paths_may_be_path_objects(self, tmp_path):
        assert read_recipe([BASE | {"output": tmp_path}]).output == str(tmp_path)

    def test_sources_are_left_alone(self):
        base = {"training": {"epochs": 1}, **BASE}
        read_recipe([base], ["training.epochs=2", "loss.scale=1"])
        assert base == {"training": {"epochs": 1}, **BASE}

    def test_filled_in_recipe_reads_back(self):
        base = BASE | {
            "loss": {"name": "x", "text": "2e-5", "yes": "no", "empty": "", "date": "2024-01-01", "none": None},
            "training": {"num_train_epochs": 3, "optim": "adafactor", "learning_rate": 1e-5},
        }
        base["data"]["train"]["columns"]["label"] = {"column": "s", "from": [0, 5]}
        recipe = read_recipe([base])
        again = read_recipe([parse_yaml(recipe.to_yaml())])
        assert again == recipe
        assert again.to_yaml() == recipe.to_yaml()
        assert "epochs" not in recipe.to_dict()["training"].keys() - {"num_train_epochs"}

    def test_the_recipe_of_the_design(self, tmp_path):
        text = """
encoder: {name: dense, model: sentence-transformers/all-MiniLM-L6-v2, pooling: mean}
data:
  train: {path: pairs.jsonl, columns: {anchor: question, positive: answer}}
  eval:  {path: dev.jsonl, metrics: [retrieval]}
loss: {name: matryoshka, dims: [384, 128, 64], loss: {name: multiple-negatives-ranking, scale: 20}}
execution: {name: grad-cache, mini_batch_size: 32}
training: {epochs: 1, batch_size: 128, learning_rate: 2e-5}
output: runs/my-model
"""
        recipe = read_recipe([write(tmp_path / "r.yaml", text)])
        assert recipe.data.train.columns == {"anchor": "question", "positive": "answer"}
        assert recipe.training.learning_rate == 2e-5
        assert read_recipe([write(tmp_path / "filled.yaml", recipe.to_yaml())]) == recipe

    def test_schema_names_every_section(self):
        schema = Recipe.schema()
        assert set(schema["required"]) == {"encoder", "data", "loss", "output"}
        assert set(schema["properties"]) == set(Recipe.model_fields)
        assert schema["additionalProperties"] is False

    def test_no_torch_is_imported(self):
        code = "import sys, losskit.recipe; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


MAPS = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner), max_leaves=8
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), MAPS), max_size=4))
def test_merging_options_leaves_what_the_last_source_said(options):
    sources = [BASE | {"loss": {"name": "x"}}, *({"loss": {"options": each}} for each in options)]
    merged = read_recipe(sources).loss.get("options", {})

    def agrees(last, whole):
        return all(agrees(v, whole[k]) if isinstance(v, dict) else whole[k] == v for k, v in last.items())

    assert not options or agrees(options[-1], merged)
    assert set(merged) == set().union(*options)


class TestRefusals:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("outptu=x", "outptu: unknown; did you mean 'output'?"),
            ("data.trian.path=x", "data.trian: unknown; did you mean 'train'?"),
            ("data.train.colums.anchor=x", "data.train.colums: unknown; did you mean 'columns'?"),
            ("data.train.metrics=[spearman]", "data.train.metrics: unknown: expected one of columns, format, limit, path, split, transform"),
            ("data.eval.columns.label={column: s, form: [0, 5]}", "data.eval.columns.label.form: unknown; did you mean 'from'?"),
            ("data.eval.columns.label={from: [0, 5]}", "data.eval.columns.label.column: missing; the data's name of the label"),
            ("data.eval.columns.label={column: s, from: [1, 1]}", "data.eval.columns.label.from: expected two different numbers, got [1, 1]"),
            ("data.eval.columns.label={column: s, to: [0, 2]}", "data.eval.columns.label: expected 'from' beside 'to', got {'column': 's', 'to': [0, 2]}"),
            ("data.eval.columns.anchor=3", "data.eval.columns.anchor: expected a column's name, or a list of names, got 3"),
            ("data.train.format=xml", "data.train.format: expected 'jsonl', 'json', 'csv', 'tsv', 'parquet', 'svmlight' or 'beir', got 'xml'"),
            ("data.train.limit=0", "data.train.limit: expected greater than or equal to 1, got 0"),
            ("data=x", "data: expected a map with train, eval, got 'x'"),
            ("training.epochs=two", "training.epochs: expected a valid number, got 'two'"),
            ("training.batch_size=yes", "training.batch_size: expected a valid integer, got 'yes'"),
            ("training.seed=4294967296", "training.seed: expected less than 4294967296, got 4294967296"),
            ("training.learning_rate=.nan", "training.learning_rate: expected a finite number, got nan"),
            ("loss={scale: 3}", "loss: expected a component's name, or a map with its 'name' and options, got {'scale': 3}"),
            ("output.x=1", "override output.x: expected output to be a map, got 'run'"),
            ("training.epochs", "override 'training.epochs': expected key=value or key.sub=value"),
            ("training..x=1", "override 'training..x': expected key=value or key.sub=value"),
            ("plugins=[losskit>=99]", "plugins.0: expected losskit>=99, got 0.1.0. Fix: pip install 'losskit>=99'"),
            ("plugins=[no-such-distribution]", "plugins.0: expected no-such-distribution, got not installed. Fix: pip install 'no-such-distribution'"),
            ("plugins=['lk-x @ https://host/x.whl']", "plugins.0: expected lk-x, got not installed. Fix: pip install 'lk-x'"),
            ('plugins=["lk-x===1\'&echo"]', "plugins.0: expected a distribution, as 'name>=1.0', got \"lk-x===1'&echo\""),
            ("plugins=['a b']", "plugins.0: expected a distribution, as 'name>=1.0', got 'a b'"),
        ],
    )  # fmt: skip
    def test_one_line_with_the_path(self, override, message):
        assert refusal(override) == message

    def test_missing_section(self):
        assert refusal(base={key: BASE[key] for key in BASE if key != "output"}) == (
            "output: missing; the folder that the trained model is written to"
        )

    def test_two_names_for_one_thing(self):
        assert refusal("training.epochs=2", "training.num_train_epochs=2") == (
            "training.epochs and training.num_train_epochs: expected one of them, for they are one thing, got both"
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- a\n", "expected a map of sections, got list"),
            ("loss: a\nloss: b\n", ", line 2: no YAML: the key 'loss' is there twice"),
            ("loss: {\n", "no YAML: expected the node content"),
            ("? [a]\n: b\n", ", line 1: no YAML: a key must be a scalar"),
            ("a: !!python/object:os.system x\n", ", line 1: no YAML: could not determine a constructor"),
            (f"a:\n {'[' * 5000}{']' * 5000}\n", ", line 2: no YAML: more than 64 levels"),
            (f"a: {'9' * 5000}\n", ", line 1: no YAML: no whole number, or one that is too long"),
        ],
    )
    def test_files_that_are_no_recipe(self, tmp_path, text, message):
        file = write(tmp_path / "r.yaml", text)
        with pytest.raises(RecipeError) as caught:
            read_recipe([file])
        assert str(file) in str(caught.value)
        assert message in str(caught.value)

    def test_missing_and_unreadable_files(self, tmp_path):
        with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such file"):
            read_recipe([tmp_path / "nowhere.yaml"])
        (tmp_path / "latin.yaml").write_bytes(b"output: \xff")
        with pytest.raises(RecipeError, match="expected a readable YAML file"):
            read_recipe([tmp_path / "latin.yaml"])

    def test_a_plugin_for_another_python_is_not_asked_for(self):
        assert read_recipe([BASE], ["plugins=['lk-x; python_version < \"3\"']"]).plugins

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("!!float abc", "no number"),
            ("!!int abc", "no whole number, or one that is too long"),
            ("!!bool abc", "neither true nor false"),
            ("!!timestamp 2026-01-01", "could not determine a constructor"),
            ("!!set {a, b}", "could not determine a constructor"),
            ("!!pairs [a: b]", "could not determine a constructor"),
            ("!!binary YQ==", "could not determine a constructor"),
        ],
    )
    def test_tags_say_no_more_than_the_core_schema_does(self, value, said):
        with pytest.raises(RecipeError, match=f"^x, line 1: no YAML: {said}"):
            parse_yaml(f"a: {value}", "x")

    def test_an_empty_file_says_nothing(self, tmp_path):
        assert read_recipe([BASE, write(tmp_path / "empty.yaml", "# nothing\n")]) == read_recipe([BASE])


class TestCode:
    """A recipe file names registered components only."""

    @pytest.mark.parametrize(
        "target",
        ["package.module:Loss", "module:Loss", "losses/mine.py:Loss", "./a b.py:Loss", "mödule:Loss", "losses/mine.py"],
    )
    @pytest.mark.parametrize(
        "place",
        [
            "loss: '{}'",
            "loss: {{name: '{}'}}",
            "loss: {{name: w, losses: {{a: ['{}']}}}}",
            "loss: {{name: w, losses: {{prompts: '{}'}}}}",
            "loss: {{name: w, guide: {{name: dense, prompts: {{name: '{}'}}}}}}",
        ],
    )
    def test_refused_in_a_file_unless_allowed(self, tmp_path, target, place):
        file = write(tmp_path / "r.yaml", place.format(target))
        with pytest.raises(RecipeError, match="expected a registered component") as caught:
            read_recipe([BASE, file])
        assert caught.value.fix == f"if you trust that code, give --plugin {shlex.quote(target)}"
        read_recipe([BASE, file], allowed_targets=[target])

    def test_a_file_that_is_allowed_allows_its_classes_and_no_others(self, tmp_path):
        file = write(tmp_path / "r.yaml", "loss: mine.py:Loss")
        read_recipe([BASE, file], allowed_targets=["mine.py"])
        with pytest.raises(RecipeError, match="expected a registered component"):
            read_recipe([BASE, file], allowed_targets=["yours.py", "mine.py:Other"])
        with pytest.raises(RecipeError, match="expected a registered component"):
            read_recipe([BASE, write(tmp_path / "s.yaml", "loss: mine.py")], allowed_targets=["mine.py:Loss"])
        with pytest.raises(RecipeError, match="expected a registered component"):
            read_recipe([BASE, write(tmp_path / "m.yaml", "loss: mine:Loss")], allowed_targets=["mine"])

    @pytest.mark.parametrize(
        "text",
        [
            "loss: loss:cosent",
            "loss: our-losses/cosent",
            "encoder: {prompts: {query: q:x}}",
            "encoder: {prompts: {name: 'q:'}}",
            "encoder: {model: 'https://host/model'}",
            "loss: {name: x, note: 'a: b'}",
        ],
    )
    def test_references_and_prompts_are_no_code(self, tmp_path, text):
        read_recipe([BASE, write(tmp_path / "r.yaml", text)])

    def test_accepted_from_python_and_the_command_line(self):
        assert read_recipe([BASE | {"loss": "mine.py:Loss"}]).loss == "mine.py:Loss"
        assert read_recipe([BASE], ["loss=mine.py:Loss"]).loss == "mine.py:Loss"


class TestTrainingArguments:
    def test_short_names_become_those_of_transformers(self):
        made = Training(epochs=2, steps=9, batch_size=8, warmup=100, bf16=True).arguments(ARGUMENTS, devices=2)
        assert made == {
            "num_train_epochs": 2, "max_steps": 9, "per_device_train_batch_size": 4, "learning_rate": 2e-5,
            "warmup_steps": 100, "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": 0, "logging_steps": 10, "bf16": True,
        }  # fmt: skip
        assert isinstance(made["warmup_steps"], int)
        assert Training(warmup=0.25).arguments(ARGUMENTS)["warmup_steps"] == 0.25

    def test_the_long_name_wins_over_our_default(self):
        training = Training(per_device_train_batch_size=3)
        assert training.arguments(ARGUMENTS, devices=5)["per_device_train_batch_size"] == 3
        assert "batch_size" not in training.model_dump()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("lerning_rate", "training.lerning_rate: unknown; did you mean 'learning_rate'?"),
            ("batchsize", "training.batchsize: unknown; did you mean 'batch_size' or 'batch_sampler'?"),
            ("optm", "training.optm: unknown; did you mean 'optim'?"),
            ("output_dir", "training.output_dir: unknown. Fix: write `output` at the top of the recipe"),
        ],
    )
    def test_unknown_names(self, name, message):
        with pytest.raises(RecipeError) as caught:
            Training(**{name: 1}).arguments(ARGUMENTS | {"output_dir"})
        assert str(caught.value) == message

    def test_a_batch_that_devices_cannot_share(self):
        with pytest.raises(RecipeError, match=r"training.batch_size: expected a multiple of 3, got 8"):
            Training(batch_size=8).arguments(ARGUMENTS, devices=3)


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("2e-5", 2e-5), ("1.", 1.0), (".5", 0.5), ("+1.5E3", 1500.0), ("-.inf", float("-inf")), ("010", 10),
            ("0o17", 15), ("0xff", 255), ("-3", -3), ("no", "no"), ("on", "on"), ("y", "y"), ("1_000", "1_000"),
            ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("0b11", "0b11"), ("true", True), ("~", None), ("", None),
            ("null", None), ("<<", "<<"), ("'2'", "2"), ("1e", "1e"), ("e5", "e5"), ("[1, no]", [1, "no"]), ("{1: a}", {1: "a"}),
        ],
    )  # fmt: skip
    def test_scalars_of_yaml_1_2(self, text, value):
        found = parse_yaml(text)
        assert found == value
        assert type(found) is type(value)

    @given(
        st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text())
    )
    def test_what_is_written_reads_back(self, value):
        assert parse_yaml(dump_yaml(value)) == value
