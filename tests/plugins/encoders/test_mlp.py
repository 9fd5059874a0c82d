from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import losskit
from losskit.batch import preprocess
from losskit.errors import DataError, LossError, LosskitError, ModelError, RecipeError
from losskit.execution import GradCache
from losskit.protocols import Encoder
from losskit_plugins.encoders import mlp
from losskit_plugins.encoders.mlp import MLPEncoder

DOCUMENTS = [[0.0, 10.0, 5.0], [1.0, 30.0, 5.0], [5.0, 20.0], [2.0]]
PAIRS = [(f"q{place}", document) for place, document in enumerate(DOCUMENTS)]


def seeded(**options: Any) -> MLPEncoder:
    torch.manual_seed(0)
    return MLPEncoder(**options).eval()


def by_hand(encoder: MLPEncoder, document: list[float], activation: Any) -> float:
    """The score in loops: standardised inputs through each linear layer."""
    values = [*document, *[0.0] * (encoder.mean.numel() - len(document))]
    values = [
        (value - mean) / deviation
        for value, mean, deviation in zip(values, encoder.mean.tolist(), encoder.deviation.tolist(), strict=True)
    ]
    linear = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
    for depth, layer in enumerate(linear, start=1):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        values = [bias + sum(w * value for w, value in zip(row, values, strict=True)) for row, bias in rows]
        if depth < len(linear):
            values = [activation(value) for value in values]
    (score,) = values
    return float(score)


BY_NAME = {
    "relu": lambda value: max(value, 0.0),
    "tanh": math.tanh,
    "silu": lambda value: value / (1 + math.exp(-value)),
    "gelu": lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2,
}


def test_it_meets_the_protocol_and_is_registered() -> None:
    encoder = MLPEncoder(3)
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.dimension, encoder.normalized) == ("cross-encoder", None, False)
    spec = losskit.get("encoder", "mlp")
    assert (spec.status, spec.load(), spec.card) == ("ok", MLPEncoder, MLPEncoder.card)
    assert BY_NAME.keys() == mlp.ACTIVATIONS.keys()
    assert MLPEncoder.adapt(nn.Linear(3, 1)) is None


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)], ids=str)
@pytest.mark.parametrize("activation", BY_NAME)
def test_scores_are_those_of_the_formula(hidden: tuple[int, ...], activation: Any) -> None:
    encoder = seeded(hidden=hidden, activation=activation)
    encoder.fit_inputs(PAIRS)
    expected = [by_hand(encoder, document, BY_NAME[activation]) for document in DOCUMENTS]
    scores = encoder(encoder.preprocess(PAIRS)).embedding
    assert scores.shape == (4,)
    np.testing.assert_allclose(scores.tolist(), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(PAIRS, batch_size=3), expected, atol=1e-5)
    assert encoder.encode([]).shape == (0,)


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("features", [None, 3, 5])
def test_inputs_are_standardised_by_their_mean_and_deviation(monkeypatch, chunk: int, features: int | None) -> None:
    monkeypatch.setattr(mlp, "CHUNK", chunk)
    encoder = MLPEncoder(features)
    encoder.fit_inputs(iter(PAIRS))
    columns = [[0.0, 1.0, 5.0, 2.0], [10.0, 30.0, 20.0, 0.0], [5.0, 5.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4]
    columns = columns[: features or 3]
    means = [sum(column) / 4 for column in columns]
    spreads = [math.sqrt(sum((x - m) ** 2 for x in column) / 4) for column, m in zip(columns, means, strict=True)]
    assert encoder.mean.tolist() == pytest.approx(means)
    assert encoder.deviation.tolist() == pytest.approx([spread or 1.0 for spread in spreads])


def test_deviations_beside_a_large_mean_are_not_lost() -> None:
    encoder = MLPEncoder(1)
    encoder.fit_inputs(("", [2.0**20 + step]) for step in (0.0, 1.0, 2.0, 3.0))
    assert encoder.deviation.item() == pytest.approx(math.sqrt(1.25))


def test_inputs_may_stay_as_they_are() -> None:
    encoder = seeded(hidden=(), standardize=False)
    encoder.fit_inputs(PAIRS)
    assert (encoder.features, encoder.mean.tolist(), encoder.deviation.tolist()) == (3, [0.0] * 3, [1.0] * 3)


def test_the_query_is_left_unread() -> None:
    encoder = seeded(features=3)
    other = [("something else", np.array(document, np.float32)) for document in DOCUMENTS]
    np.testing.assert_array_equal(encoder.encode(PAIRS), encoder.encode(other))


def test_dropout_only_while_training() -> None:
    encoder = seeded(features=3, hidden=(64,), dropout=0.5)
    features = encoder.preprocess(PAIRS)
    still = encoder(features).embedding
    assert torch.equal(still, encoder(features).embedding)
    assert not torch.equal(still, encoder.train()(features).embedding)
    np.testing.assert_allclose(encoder.encode(PAIRS), still.tolist(), atol=1e-6)
    assert encoder.training


class TestFolders:
    def test_what_is_loaded_gives_the_same_scores(self, tmp_path: Path) -> None:
        encoder = seeded(hidden=(5,), dropout=0.25, activation="tanh")
        encoder.fit_inputs(PAIRS)
        encoder.save(tmp_path / "model")
        assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
        for loaded in (losskit.load(tmp_path / "model"), MLPEncoder.load(tmp_path / "model")):
            assert isinstance(loaded, MLPEncoder)
            np.testing.assert_array_equal(loaded.encode(PAIRS), encoder.encode(PAIRS))
            assert loaded.get_config_dict() == encoder.get_config_dict()

    def test_what_is_no_part_of_the_model_stays(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        MLPEncoder(3).save(tmp_path)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_options_build_it_again(self) -> None:
        config = seeded(features=3, hidden=[2]).get_config_dict()
        built = losskit.build({"name": "mlp", **json.loads(json.dumps(config))}, kind="encoder")
        assert built.get_config_dict() == config

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("config.json", '{"architectures": ["BertModel"]}', "expected an mlp of losskit, got another model"),
            ("config.json", '{"losskit_encoder": "mlp", "feature": 3}', "expected the weights that its config.json"),
            ("config.json", '{"losskit_encoder": "mlp", "features": 4}', "expected the weights that its config.json"),
            ("config.json", '{"losskit_encoder": "mlp", "features": -1}', "features: expected 1 or more, got -1"),
            ("config.json", '{"losskit_encoder": "mlp", "features": 1000000000000000}', "size mismatch for mean"),
            ("config.json", '{"losskit_encoder": "mlp", "features": 1e30}', "describes, got TypeError: zeros"),
            ("config.json", f'{{"losskit_encoder": "mlp", "features": {10**30}}}', "when unpacking long long$"),
            ("config.json", "{", "expected JSON"),
            ("model.safetensors", "no weights", "expected the weights that its config.json describes"),
        ],
    )
    def test_refuses_a_damaged_folder(self, tmp_path: Path, name: str, content: str, message: str) -> None:
        MLPEncoder(3).save(tmp_path)
        (tmp_path / name).write_text(content)
        with pytest.raises(ModelError, match=message):
            MLPEncoder.load(tmp_path)

    def test_refuses_pickled_weights(self, tmp_path: Path) -> None:
        MLPEncoder(3).save(tmp_path)
        (tmp_path / "model.safetensors").rename(tmp_path / "model.bin")
        with pytest.raises(ModelError, match="pickled"):
            losskit.load(tmp_path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"features": 0}, "features: expected 1 or more, got 0"),
            ({"hidden": [8, 0]}, r"hidden: expected widths of 1 or more, got \[8, 0\]"),
            ({"dropout": 1.0}, r"dropout: expected a number from 0, below 1, got 1\.0"),
            ({"dropout": math.nan}, "dropout: expected a number from 0, below 1, got nan"),
            ({"activation": "swish"}, "activation: expected one of relu, gelu, silu, tanh, got 'swish'"),
        ],
    )
    def test_refuses_options_out_of_range(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            MLPEncoder(**options)

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ("a text", "document 2 of 2: expected a list of numbers, got 'a text'. Fix: for texts take cross-encoder"),
            ([1.0, "x"], r"document 2 of 2: expected a list of numbers, got \[1\.0, 'x'\]"),
            ([[1.0], [2.0]], r"document 2 of 2: expected a list of numbers, got \[\[1\.0\], \[2\.0\]\]"),
            ([1.0, math.nan], "document 2 of 2: expected finite numbers, got NaN or infinity"),
            ([1e39], "document 2 of 2: expected finite numbers, got NaN or infinity"),
            ([1.0] * 4, "document 2 of 2: expected 3 numbers at most, got 4. Fix: give mlp features="),
        ],
    )
    def test_refuses_what_is_no_row_of_features(self, document: Any, message: str) -> None:
        for use in (MLPEncoder.preprocess, MLPEncoder.encode, MLPEncoder.fit_inputs):
            with pytest.raises(DataError, match=message):
                use(MLPEncoder(3), [("q", [1.0]), ("q", document)])

    @pytest.mark.parametrize("pair", ["a text", [1.0, 2.0, 3.0], 0.5])
    def test_refuses_what_is_no_pair(self, pair: Any) -> None:
        for use in (MLPEncoder.preprocess, MLPEncoder.encode, MLPEncoder.fit_inputs):
            with pytest.raises(DataError, match=r"a pair for the mlp: expected \(query, list of numbers\), got"):
                use(MLPEncoder(3), [("q", [1.0]), pair])

    def test_refuses_to_work_before_its_width_is_known(self, tmp_path: Path) -> None:
        encoder = MLPEncoder()
        for use in (lambda: encoder.preprocess(PAIRS), lambda: encoder.encode(PAIRS), lambda: encoder.save(tmp_path)):
            with pytest.raises(ModelError, match="features of the mlp: expected how many there are"):
                use()
        for pairs in ([], [("q", [])]):
            with pytest.raises(DataError, match="expected documents of numbers, got none"):
                encoder.fit_inputs(pairs)

    def test_refuses_a_prompt(self) -> None:
        with pytest.raises(RecipeError, match="prompt: expected none"):
            MLPEncoder(3).preprocess(PAIRS, prompt="query: ")

    def test_refuses_a_loss_that_needs_tokens(self) -> None:
        encoder = MLPEncoder(3)
        with pytest.raises(LossError, match="needs of the loss"):
            encoder(encoder.preprocess(PAIRS), needs=("layers",))

    def test_refuses_features_for_encoders_of_texts(self, make_model, word_piece) -> None:
        from losskit_plugins.encoders.cross_encoder import CrossEncoder

        encoder = CrossEncoder(make_model("classifier"), tokenizer=word_piece)
        with pytest.raises(DataError, match=r"expected \(query, document\), both strings, got \('q0', \[0\.0, 10\.0"):
            encoder.preprocess(PAIRS)
        with pytest.raises(DataError, match="Fix: for rows of features take the encoder mlp"):
            encoder.encode(PAIRS)
        with pytest.raises(LosskitError, match="similarity"):
            losskit.build({"name": "list-net", "similarity": "dot"}, MLPEncoder(3))


def test_a_loss_trains_it_and_gradient_caching_changes_nothing() -> None:
    columns = [["q", "r"], [DOCUMENTS[:3], DOCUMENTS[3:]]]
    labels = torch.tensor([2.0, 0.0, 1.0, 1.0])
    gradients = []
    for execution in (None, GradCache(mini_batch_size=2)):
        encoder = seeded(features=3, hidden=(8,)).double().train()
        loss = losskit.build("list-net", encoder, execution=execution)
        features = preprocess(loss, columns, inputs=["query", "documents"])
        assert features[0]["lists"] == (3, 1)
        loss(features, labels).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in encoder.parameters()]))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
