"""Losses inside SparseEncoderTrainer and MultiVectorEncoderTrainer train exactly as that library's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import nn

import losskit
from losskit import Direct, GradCache

from .conftest import TEXTS, Objects
from .test_incumbent_trainers import DISTINCT, PAIRS, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.quick,
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

MARGINS = Dataset.from_dict(
    {
        "query": TEXTS[:4],
        "positive": TEXTS[1:],
        "negative": TEXTS[2:] + TEXTS[:1],
        "label": [0.5, 1.5, -0.5, 2.0],
    }
)
WEIGHT = 0.01


def scheduled(weight: float) -> dict[str, Any]:
    """What that library's trainer adds for its own class: a third of the steps, here one, until the full weight."""
    return {"schedule": "quadratic", "to": weight, "warmup": 1 / 3}


SPLADE = {
    "name": "splade", "loss": "multiple-negatives-ranking", "document_regularizer_weight": scheduled(WEIGHT),
    "query_regularizer_weight": scheduled(2 * WEIGHT),
}  # fmt: skip


def incumbent(name: str) -> Callable[[Any], nn.Module]:
    from sentence_transformers.multi_vector_encoder import losses as tokens
    from sentence_transformers.sparse_encoder import losses as sparse

    def splade(model: Any) -> nn.Module:
        inner = sparse.SparseMultipleNegativesRankingLoss(model)
        return sparse.SpladeLoss(model, inner, WEIGHT, query_regularizer_weight=2 * WEIGHT)

    return {
        "splade": splade,
        "margins": lambda model: sparse.SpladeLoss(model, sparse.SparseMarginMSELoss(model), 0.0),
        "csr": sparse.CSRLoss,
        "tokens": tokens.MultiVectorMultipleNegativesRankingLoss,
        "margins of tokens": tokens.MultiVectorMarginMSELoss,
    }[name]


@pytest.mark.parametrize(
    ("kind", "name", "expression", "data"),
    [
        pytest.param("splade", "splade", SPLADE, PAIRS, id="splade"),
        pytest.param("splade", "margins", "margin-mse", MARGINS, id="splade, margins"),
        pytest.param("inference_free", "splade", SPLADE, DISTINCT, id="inference-free splade"),
        pytest.param("csr", "csr", {"name": "csr", "loss": "multiple-negatives-ranking"}, PAIRS, id="csr"),
        pytest.param("multi_vector", "tokens", "multiple-negatives-ranking", PAIRS, id="multi-vector"),
        pytest.param("multi_vector", "margins of tokens", "margin-mse", MARGINS, id="multi-vector, margins"),
    ],
)
def test_trains_as_the_incumbent(
    kind: str, name: str, expression: Any, data: Dataset, objects: Objects, tmp_path: Path
) -> None:
    make = getattr(objects, kind)
    routes = {"question": "query", "answer": "document"} if kind == "inference_free" else {}
    start = make()
    fresh = {key: value.clone() for key, value in start.state_dict().items()}
    theirs = train(start, incumbent(name)(start), data, tmp_path, router_mapping=routes)
    for execution in (Direct(), Direct(tokens=40), GradCache(mini_batch_size=3)):
        model = make()
        loss = losskit.build(expression, model, execution=execution)
        ours = train(model, loss, data, tmp_path, [losskit.ProgressCallback(loss)], router_mapping=routes)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if value.is_floating_point():
                assert (ours[key] - value).abs().max() < 2e-5 * value.abs().max().clamp(min=1), (key, execution)
        assert any((ours[key] - fresh[key]).abs().max() > 1e-3 for key in fresh if fresh[key].is_floating_point())


def test_an_auto_encoder_counts_steps_there_too(objects: Objects, tmp_path: Path) -> None:
    counts = []
    for execution in (Direct(merge=False), GradCache(mini_batch_size=1)):
        model = objects.csr()
        loss = losskit.build({"name": "csr", "loss": "multiple-negatives-ranking"}, model, execution=execution)
        train(model, loss, PAIRS, tmp_path)
        counts.append(model[2].stats_last_nonzero)
    assert torch.equal(*counts)
    assert set(counts[0].tolist()) <= {1, 2, 3}
