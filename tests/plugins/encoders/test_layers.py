"""A dense encoder cut after some of its layers: what it gives, how it is saved, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, ModernBertConfig, Qwen3Config

import losskit
from losskit import ModelError, RecipeError
from losskit_plugins.encoders.backbone import keep_layers
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.evaluation.evaluate import evaluate
from losskit_plugins.evaluation.scored_pairs import ScoredPairs

TEXTS = ["a cat sat on the mat", "dogs bark", "lazy cats, lazy dogs"]
SIZE = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, word_piece):
    path = tmp_path_factory.mktemp("deep") / "model"
    config = BertConfig(vocab_size=120, max_position_embeddings=32, initializer_range=0.5, **SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DenseEncoder(AutoModel.from_config(config), tokenizer=word_piece, normalize=True).save(path)
    return path


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_gives_what_adaptive_layers_train(folder, layers):
    whole, cut = DenseEncoder(folder).eval(), DenseEncoder(folder, layers=layers).eval()
    features = whole.preprocess(TEXTS)
    trained = whole(features, needs=("layers",)).layers[layers]
    torch.testing.assert_close(cut(features).embedding, trained)
    assert len(cut(features, needs=("layers",)).layers) == layers + 1
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters()) or layers == 3


def test_is_saved_as_a_smaller_model_that_the_incumbent_opens(folder, tmp_path):
    cut = DenseEncoder(folder, layers=2, truncate_dim=4)
    cut.save(tmp_path / "small")
    again = losskit.load(tmp_path / "small")
    assert again.transformer.config.num_hidden_layers == 2
    assert again.get_config_dict() == {"model": str(tmp_path / "small")}
    np.testing.assert_allclose(again.encode(TEXTS), cut.encode(TEXTS), rtol=1e-6)
    original = pytest.importorskip("sentence_transformers").SentenceTransformer(str(tmp_path / "small"), device="cpu")
    np.testing.assert_allclose(original.encode(TEXTS), cut.encode(TEXTS), rtol=1e-4, atol=1e-6)


def test_is_measured_at_any_cut(folder):
    pairs = ScoredPairs(TEXTS, TEXTS[::-1], [0.1, 0.9, 0.3])
    found = {
        (layers, size): evaluate(
            losskit.build(
                {"name": "dense", "model": str(folder), "layers": layers, "truncate_dim": size}, kind="encoder"
            ),
            pairs,
            ["spearman"],
        )["spearman"]
        for layers in (1, 3)
        for size in (2, 8)
    }
    assert all(-1 <= value <= 1 for value in found.values())
    assert found[3, 8] == evaluate(DenseEncoder(folder), pairs, ["spearman"])["spearman"]


@pytest.mark.parametrize(
    "config",
    [
        ModernBertConfig(vocab_size=50, pad_token_id=0, **SIZE),
        Qwen3Config(vocab_size=50, pad_token_id=0, num_key_value_heads=2, head_dim=4, **SIZE),
    ],
    ids=lambda config: config.model_type,
)
def test_layers_of_several_kinds_are_cut_together(config):
    keep_layers(config, 2)
    assert (config.num_hidden_layers, len(config.layer_types)) == (2, 2)
    assert len(AutoModel.from_config(config).layers) == 2


def test_refuses_what_cannot_be(folder):
    for layers in (0, 4, -1, True):
        with pytest.raises(RecipeError, match=rf"layers: expected 1 to the transformer's 3, got {layers}"):
            DenseEncoder(folder, layers=layers)
    encoder = DenseEncoder(folder)
    with pytest.raises(RecipeError, match="layers: expected None with a model that is given as an object, got 2"):
        DenseEncoder(encoder.transformer, tokenizer=encoder.tokenizer.base, layers=2)

    unknown = SimpleNamespace(model_type="odd", get_text_config=object)
    with pytest.raises(ModelError, match="the configuration of odd: expected num_hidden_layers, got none"):
        keep_layers(unknown, 1)
