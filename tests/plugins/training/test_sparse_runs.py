"""What `losskit.train` measures of a sparse encoder before and after."""

import json

import pytest

import losskit
from losskit_plugins.training import quickstart

ACTIVITY = ["active-dims-query", "active-dims-document", "flops", "sparsity"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The quickstart's untrained encoder and texts."""
    folder = tmp_path_factory.mktemp("inputs")
    quickstart.write_inputs(folder)
    return folder / "quickstart"


def trained(inputs, output, **recipe):
    columns = {"anchor": "question", "positive": "answer"}
    return losskit.train(
        {
            "encoder": {"name": "csr", "model": str(inputs / "encoder"), "hidden_dim": 64, "k": 4, "k_aux": 8},
            "data": {
                "train": {"path": str(inputs / "train.jsonl"), "columns": columns, "limit": 32},
                "eval": {"path": str(inputs / "eval.jsonl"), "columns": columns, "limit": 16, **recipe.pop("eval", {})},
            },
            "loss": {"name": "csr", "loss": "multiple-negatives-ranking"},
            "training": {"batch_size": 16, "epochs": 1},
            "output": str(output),
            **recipe,
        }
    )


def test_active_dimensions_are_measured_before_and_after(inputs, tmp_path):
    run = trained(inputs, tmp_path / "run")
    metrics = json.loads((run.path / "metrics.json").read_text())
    for moment in ("before", "after"):
        assert list(metrics[moment]) == ["ndcg@10", "mrr@10", "recall@10", "accuracy", *ACTIVITY]
        assert 0 < metrics[moment]["active-dims-query"] <= 4
        assert metrics[moment]["flops"] <= 4
        mean = (metrics[moment]["active-dims-query"] + metrics[moment]["active-dims-document"]) / 2
        assert metrics[moment]["sparsity"] == pytest.approx(1 - mean / 64, abs=0.01)
    assert all(name in (run.path / "README.md").read_text() for name in ACTIVITY)


def test_metrics_that_are_asked_for(inputs, tmp_path):
    run = trained(inputs, tmp_path / "run", eval={"metrics": ["mrr@10", "sparse"]})
    assert list(json.loads((run.path / "metrics.json").read_text())["after"]) == ["mrr@10", *ACTIVITY]
