import subprocess
import sys

import pytest

from losskit import NotFoundError, RecipeError
from losskit_plugins.training.components import resolve


def names(component):
    return [(each.path, each.spec.name) for each in component.tree()]


def test_a_tree_of_losses_is_found_with_its_paths():
    tree = resolve({"name": "matryoshka", "dims": [8], "loss": {"name": "multiple-negatives-ranking"}}, "loss")
    assert names(tree) == [("loss", "matryoshka"), ("loss.loss", "multiple-negatives-ranking")]
    assert tree.formats[0].inputs == ("anchor", "positive", "negative*")
    assert tree.families == ("dense", "sparse", "multi-vector")


def test_losses_by_name_and_components_that_are_no_losses_are_found():
    inner = {"name": "multiple-negatives-ranking", "similarity": {"name": "dot"}}
    tree = resolve({"name": "weighted-sum", "losses": {"a": inner, "b": "multiple-negatives-ranking"}}, "loss")
    assert names(tree)[1:] == [
        ("loss.losses.a", "multiple-negatives-ranking"),
        ("loss.losses.a.similarity", "dot"),
        ("loss.losses.b", "multiple-negatives-ranking"),
    ]
    assert tree.formats[0].labels == "none"


def test_a_name_stays_a_name_where_the_option_takes_text():
    assert names(resolve({"name": "cosent", "similarity": "dot"}, "loss")) == [("loss", "cosent")]


def test_formats_of_unlike_losses_are_left_to_the_built_loss():
    tree = resolve({"name": "weighted-sum", "losses": {"a": "cosent", "b": "multiple-negatives-ranking"}}, "loss")
    assert tree.formats == ()


def test_an_unknown_option_is_refused_with_its_path():
    with pytest.raises(RecipeError, match=r"^loss\.loss\.scal: expected an option of cosent .*did you mean 'scale'\?"):
        resolve({"name": "matryoshka", "dims": [8], "loss": {"name": "cosent", "scal": 1}}, "loss")


def test_a_misspelt_name_is_refused_where_it_stands():
    with pytest.raises(NotFoundError, match=r"no loss is named 'cosnt'.*did you mean 'cosent'"):
        resolve({"name": "matryoshka", "dims": [8], "loss": "cosnt"}, "loss")


def test_checking_a_recipe_imports_nothing_heavy(tmp_path):
    (tmp_path / "train.csv").write_text("anchor,positive\na,b\n")
    recipe = {
        "encoder": {"name": "dense", "model": "m"},
        "data": {"train": {"path": str(tmp_path / "train.csv")}, "eval": {"path": str(tmp_path / "train.csv")}},
        "loss": "multiple-negatives-ranking",
        "training": {"bf16": True},
        "output": "run",
    }
    code = f"""
import sys
from losskit.recipe import read_recipe
from losskit_plugins.training.api import train_from
from losskit_plugins.training.job import check
check(read_recipe([{recipe!r}]))
print(sorted({{"torch", "transformers", "datasets"}} & sys.modules.keys()))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
