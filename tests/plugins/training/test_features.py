"""`losskit.train` on rows of features: svmlight with the encoder mlp, from file to saved model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

import losskit
from losskit import DataError
from losskit.recipe import read_recipe
from losskit_plugins.encoders.mlp import MLPEncoder
from losskit_plugins.training.job import check

FEATURES = 4
ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted((ROOT / "docs" / "recipes").glob("ltr-*.yaml"))
SHARED = ROOT.parent / "shared" / "data" / "ltr_lightgbm"


def write(path: Path, queries: int, seed: int) -> Path:
    """Lists whose labels follow the second feature; the last feature is always 3, and one list is all alike."""
    draw = random.Random(seed)
    lines = []
    for query in range(queries):
        for _ in range(draw.randint(1, 6)):
            label = draw.randint(0, 2)
            lines.append(f"{label} qid:{query} 1:{draw.random():.3f} 2:{100 * label + 20 * draw.random():.3f} 4:3")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    return {
        "encoder": {"name": "mlp", "hidden": [8]},
        "data": {
            "train": {"path": str(write(tmp_path / "train.svm", 40, seed=0)), "format": "svmlight"},
            "eval": {
                "path": str(write(tmp_path / "test.svm", 20, seed=1)), "metrics": ["ndcg@10", "ndcg-exp@10"],
            },
        },
        "loss": "list-net",
        "training": {"batch_size": 8, "learning_rate": 0.05, "epochs": 4, "save_every": 4},
        "output": str(tmp_path / "runs" / "ltr"),
    }  # fmt: skip


class Stop(TrainerCallback):
    def on_save(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


def test_the_order_is_learned_and_the_saved_model_gives_it(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = losskit.train(recipe)
    assert run.after["ndcg@10"] == pytest.approx(1.0, abs=0.01)
    assert run.before["ndcg-exp@10"] < run.after["ndcg-exp@10"]
    saved = losskit.load(run.path)
    assert isinstance(saved, MLPEncoder)
    assert saved.features == FEATURES
    low, high = saved.encode([("", [0.5, 10.0, 0.0, 3.0]), ("", [0.5, 210.0, 0.0, 3.0])])
    assert low < high
    text = (tmp_path / "train.svm").read_text().splitlines()
    seconds = np.array([float(line.split()[3].removeprefix("2:")) for line in text])
    assert saved.mean.tolist()[1:] == pytest.approx([seconds.mean(), 0.0, 3.0], rel=1e-5)
    assert saved.deviation.tolist()[1:] == pytest.approx([seconds.std(), 1.0, 1.0], rel=1e-5)


def test_the_model_card_says_how_it_is_used_and_names_no_other_library(recipe: dict[str, Any]) -> None:
    card = (losskit.train(recipe).path / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "losskit", "tags": ["losskit", "cross-encoder", "loss:ListNetLoss"],
    }  # fmt: skip
    assert "A model of class `MLPEncoder`, trained with `ListNetLoss`." in text
    assert "Sentence Transformers" not in text
    namespace: dict[str, Any] = {"model": MLPEncoder(3)}
    exec(next(line for line in text.splitlines() if line.startswith("scores = ")), namespace)
    assert namespace["scores"].shape == (2,)


def test_interrupted_and_resumed_equals_uninterrupted(recipe: dict[str, Any], tmp_path: Path) -> None:
    whole = losskit.train(recipe, output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        losskit.train(recipe, output=tmp_path / "cut", callbacks=[Stop()])
    resumed = losskit.train(recipe, output=tmp_path / "cut", resume=True)
    assert resumed.after == whole.after
    one, other = load_file(whole.path / "model.safetensors"), load_file(resumed.path / "model.safetensors")
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_refuses_texts_for_an_mlp(recipe: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"query": "q", "documents": ["a", "b"], "labels": [1, 0]}\n')
    with pytest.raises(DataError, match=r"document 1 of 2: expected a list of numbers, got 'a'\. Fix: for texts take"):
        losskit.train(recipe, **{"data.train": {"path": str(file), "format": "jsonl"}})


def test_refuses_features_that_were_not_trained_on(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test.svm").write_text("1 qid:1 5:1\n0 qid:1 1:1\n")
    with pytest.raises(DataError, match=r"expected 4 numbers at most, got 5\. Fix: give mlp features="):
        losskit.train(recipe)
    run = losskit.train(recipe, **{"encoder.features": 5})
    assert losskit.load(run.path).deviation.tolist()[2:] == [1.0, 1.0, 1.0]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not there")
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
class TestRecipes:
    def test_names_options_and_columns_fit(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        found = check(read_recipe([path]))
        assert path.stem == f"ltr-{found.loss.spec.name}"
        assert found.matched is not None
        assert found.matched.inputs == ("query", "documents")

    @pytest.mark.slow
    def test_it_learns(self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        run = losskit.train(path, output=tmp_path / "run", **{"training.epochs": 2})
        assert run.after["ndcg-exp@10"] > run.before["ndcg-exp@10"] + 0.02
