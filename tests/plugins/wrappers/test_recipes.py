"""A recipe with drawn layers, drawn sizes and a scheduled weight: resumed exactly, and evaluated cut."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import losskit
from losskit.recipe import EvalSource
from losskit_plugins.evaluation import evaluate, read_evaluation
from losskit_plugins.training import quickstart

STEPS = 6


class Watch(TrainerCallback):
    """Notes what was drawn and weighed in each step, and stops once."""

    def __init__(self, stop=None):
        self.stop = stop
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        layers = model.losses["ranking"].loss
        self.seen.append((model._weight("ranking"), layers.drawn, layers.loss.drawn))
        if state.global_step == self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def recipe(tmp_path):
    quickstart.write_inputs(tmp_path)
    columns = {"anchor": "question", "positive": "answer"}
    path = tmp_path / "quickstart"
    ranking = {"name": "matryoshka-2d", "dims": [128, 32, 8], "loss": "multiple-negatives-ranking"}
    return {
        "encoder": {"name": "dense", "model": str(path / "encoder")},
        "data": {
            "train": {"path": str(path / "train.jsonl"), "columns": columns, "limit": 48},
            "eval": {"path": str(path / "eval.jsonl"), "columns": columns, "metrics": ["mrr@10"], "limit": 24},
        },
        "loss": {
            "name": "weighted-sum",
            "losses": {"ranking": ranking, "symmetric": "multiple-negatives-symmetric-ranking"},
            "weights": {"ranking": {"schedule": "quadratic", "from": 0.5, "to": 2.0, "delay": 0.2}},
        },
        "training": {"batch_size": 16, "learning_rate": 1e-3, "epochs": 2, "save_every": 2},
    }


def test_resumed_equals_uninterrupted_and_is_evaluated_cut(recipe, tmp_path):
    whole, first, rest = Watch(), Watch(stop=4), Watch()
    run = losskit.train(recipe, output=tmp_path / "whole", callbacks=[whole])
    with pytest.raises(KeyboardInterrupt):
        losskit.train(recipe, output=tmp_path / "cut", callbacks=[first])
    resumed = losskit.train(recipe, output=tmp_path / "cut", callbacks=[rest], resume=True)
    assert first.seen == whole.seen[:4]
    assert rest.seen == whole.seen[2:]  # since the last checkpoint
    progress = [step / STEPS for step in range(STEPS)]
    expected = [0.5 if moment < 0.2 else 0.5 + 1.5 * ((moment - 0.2) / 0.8) ** 2 for moment in progress]
    assert [weight for weight, *_ in whole.seen] == pytest.approx(expected)
    assert len(set(whole.seen)) == STEPS
    one, other = (load_file(each.path / "model.safetensors") for each in (run, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)

    data = read_evaluation(EvalSource(**recipe["data"]["eval"]))
    cuts = [{}, {"truncate_dim": 32}, {"layers": 1}, {"layers": 1, "truncate_dim": 8}]
    found = []
    for cut in cuts:
        encoder = losskit.build({"name": "dense", "model": str(run.path), **cut}, kind="encoder")
        found.append(evaluate(encoder, data, ["mrr@10"])["mrr@10"])
    assert found[0] == run.after["mrr@10"]
    assert len(set(found)) == len(cuts)
