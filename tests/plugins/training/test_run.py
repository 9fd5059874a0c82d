import json
import math

import pytest

from losskit import ModelError
from losskit_plugins.training.run import Run, rows_of_metrics, write_json

METRICS = {
    "schema": 1,
    "before": {"mrr@10": 0.25},
    "after": {"mrr@10": 0.75},
    "train": {"steps": 8, "samples_per_second": 100.4, "loss": 1.5},
}


def test_a_run_is_read_from_its_folder(tmp_path):
    write_json(tmp_path / "metrics.json", METRICS)
    run = Run(tmp_path)
    assert run.metrics == METRICS
    assert (run.before, run.after, run.train) == ({"mrr@10": 0.25}, {"mrr@10": 0.75}, METRICS["train"])
    assert run.summary.splitlines() == [
        "metric  before   after   change",
        "mrr@10  0.2500  0.7500  +0.5000",
        f"8 steps at 100 samples per second, mean loss 1.5000; saved in {tmp_path}",
    ]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"expected a folder with metrics.json, got FileNotFoundError"):
        Run(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"before": 3}', "[" * 100_000], ids=lambda text: text[:13])
def test_refuses_metrics_of_another_shape(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ModelError, match=r"expected a folder with metrics.json, got \w+Error"):
        Run(tmp_path)


def test_what_is_not_finite_is_null_in_the_file_and_a_dash_in_the_table(tmp_path):
    write_json(tmp_path / "a.json", {"before": {"spearman": math.nan}, "loss": [math.inf, 1.0]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"before": {"spearman": None}, "loss": [None, 1.0]}
    assert rows_of_metrics({"spearman": None}, {"spearman": 0.5}) == [("spearman", "-", "0.5000", "-")]
