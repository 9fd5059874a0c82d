"""`losskit.train` on encoders of other families than the dense transformer, and what it saves."""

import json
import warnings

import numpy as np
import pytest

import losskit
from losskit_plugins.training import quickstart


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The quickstart's untrained encoder and texts."""
    folder = tmp_path_factory.mktemp("inputs")
    quickstart.write_inputs(folder)
    return folder / "quickstart"


def trained(inputs, output, encoder, execution):
    columns = {"anchor": "question", "positive": "answer"}
    return losskit.train(
        {
            "encoder": {"model": str(inputs / "encoder"), **encoder},
            "data": {
                "train": {"path": str(inputs / "train.jsonl"), "columns": columns, "limit": 48},
                "eval": {"path": str(inputs / "eval.jsonl"), "columns": columns, "metrics": ["mrr@10"], "limit": 24},
            },
            "loss": {"name": "multiple-negatives-ranking"},
            "execution": execution,
            "training": {"batch_size": 16, "learning_rate": 1e-2, "epochs": 3, "log_every": 1},
            "output": str(output),
        }
    )


MULTI_VECTOR = {"name": "multi-vector", "dimension": 12, "query_expansion": {"length": 12}, "skiplist_words": ["the"]}
CACHED = {"name": "grad-cache", "mini_batch_size": 5}


@pytest.mark.parametrize(
    ("encoder", "execution"),
    [
        pytest.param(MULTI_VECTOR, None, id="multi-vector, packed"),
        pytest.param(MULTI_VECTOR, CACHED, id="multi-vector, cached"),
        pytest.param({"name": "static", "dimension": 24}, None, id="static, new"),
        pytest.param({"name": "static", "normalize": True}, CACHED, id="static of words, cached"),
    ],
)
def test_learns_and_is_saved_as_the_incumbent_opens_it(encoder, execution, inputs, tmp_path):
    st = pytest.importorskip("sentence_transformers", minversion="6.2")
    run = trained(inputs, tmp_path / "run", encoder, execution)
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["after"]["mrr@10"] > metrics["before"]["mrr@10"]
    assert metrics["train"]["steps"] == 9

    model = losskit.load(run.path)
    texts = ["how are the leaves sorted?", "a"]
    family = st.MultiVectorEncoder if encoder["name"] == "multi-vector" else st.SentenceTransformer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = family(str(run.path), device="cpu")
        for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
            for own, other in zip(model.encode(texts, role=role), encode(texts, convert_to_numpy=True), strict=True):
                np.testing.assert_allclose(own, other, atol=2e-6)
