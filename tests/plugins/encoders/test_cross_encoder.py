from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from losskit.errors import DataError, LossError, ModelError, RecipeError
from losskit.output import Tokens
from losskit.protocols import Encoder
from losskit_plugins.encoders.adapters import CrossEncoderView
from losskit_plugins.encoders.cross_encoder import CrossEncoder
from losskit_plugins.encoders.dense import DenseEncoder

PROMPTS = {"search": "a quick cat: "}


def opened(st, folder: Path, **options):
    """Its own deprecations are none of our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.CrossEncoder(str(folder), device="cpu", **options)


@pytest.fixture
def encoder(make_model, word_piece) -> CrossEncoder:
    return CrossEncoder(make_model("classifier"), tokenizer=word_piece).eval()


def test_it_meets_the_protocol(encoder: CrossEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.dimension, encoder.normalized, encoder.num_labels) == (
        "cross-encoder",
        None,
        False,
        1,
    )


def test_raw_scores_and_what_encode_makes_of_them(encoder: CrossEncoder, word_piece, pairs) -> None:
    features = encoder.preprocess(pairs)
    tokens = word_piece(
        [q for q, _ in pairs], [d for _, d in pairs], padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = encoder.transformer(**tokens).logits[:, 0]
        scores = encoder(features).embedding
    assert scores.shape == (5,)
    torch.testing.assert_close(scores, logits)
    expected = [1 / (1 + np.exp(-value)) for value in logits.tolist()]
    np.testing.assert_allclose(encoder.encode(pairs, batch_size=2), expected, atol=1e-6)


def test_classes(make_model, word_piece, pairs) -> None:
    encoder = CrossEncoder(make_model("classifier3"), tokenizer=word_piece).eval()
    scores = encoder(encoder.preprocess(pairs)).embedding
    assert scores.shape == (5, 3)
    np.testing.assert_allclose(encoder.encode(pairs), scores.detach().numpy(), atol=1e-6)
    assert encoder.encode([]).shape == (0, 3)


def test_no_pairs_give_no_scores(encoder: CrossEncoder) -> None:
    assert encoder.encode([]).shape == (0,)


def test_the_prompt_stands_before_the_query(make_model, word_piece, pairs) -> None:
    encoder = CrossEncoder(make_model("classifier"), tokenizer=word_piece, prompts=PROMPTS)
    by_hand = encoder.encode([("a quick cat: " + query, document) for query, document in pairs])
    np.testing.assert_array_equal(encoder.encode(pairs, role="search"), by_hand)
    np.testing.assert_array_equal(encoder.encode(pairs, prompt="a quick cat: "), by_hand)
    assert np.abs(encoder.encode(pairs) - by_hand).max() > 1e-4


def test_gradients_and_dropout(make_model, word_piece, pairs) -> None:
    encoder = CrossEncoder(make_model("classifier"), tokenizer=word_piece).train()
    features = encoder.preprocess(pairs)
    first = encoder(features).embedding
    assert not torch.equal(first, encoder(features).embedding)
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    encoder.encode(pairs)
    assert encoder.training


def test_parts_and_what_it_cannot_give(encoder: CrossEncoder, pairs) -> None:
    features = encoder.preprocess(pairs)
    assert isinstance(encoder(features, needs=("input_ids",)).parts["input_ids"], Tokens)
    with pytest.raises(LossError, match="got 'layers'"):
        encoder(features, needs=("layers",))


def test_texts_are_no_pairs(encoder: CrossEncoder, texts) -> None:
    with pytest.raises(DataError, match="pair 1 of 5: expected"):
        encoder.preprocess(texts)


def test_bf16_weights(make_model, word_piece, pairs, st, tmp_path) -> None:
    encoder = CrossEncoder(make_model("classifier").bfloat16(), tokenizer=word_piece)
    assert encoder.encode(pairs).dtype == np.float32
    encoder.save(tmp_path / "m")
    np.testing.assert_allclose(opened(st, tmp_path / "m").predict(pairs), encoder.encode(pairs), atol=1e-6)


@pytest.mark.parametrize("name", ["classifier", "classifier3"])
def test_ours_opens_there(name, make_model, word_piece, pairs, tmp_path, st) -> None:
    encoder = CrossEncoder(make_model(name), tokenizer=word_piece, prompts=PROMPTS, max_length=12)
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    np.testing.assert_allclose(model.predict(pairs), encoder.encode(pairs), atol=1e-6)
    np.testing.assert_allclose(
        model.predict(pairs, prompt_name="search"), encoder.encode(pairs, role="search"), atol=1e-6
    )
    assert (model.max_seq_length, model.prompts, model.num_labels) == (12, PROMPTS, encoder.num_labels)
    again = CrossEncoder.load(tmp_path / "m")
    np.testing.assert_array_equal(again.encode(pairs), encoder.encode(pairs))
    with pytest.raises(ModelError, match="expected a SentenceTransformer, got model_type CrossEncoder"):
        DenseEncoder.load(tmp_path / "m")


@pytest.mark.parametrize("labels", [1, 3])
def test_theirs_opens_here(labels, plain_folder, pairs, tmp_path, st) -> None:
    name = "classifier" if labels == 1 else "classifier3"
    model = opened(
        st, plain_folder(name), max_length=10, prompts=PROMPTS, default_prompt_name="search", activation_fn=nn.Tanh()
    )
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = CrossEncoder(tmp_path / "theirs")
    np.testing.assert_allclose(encoder.encode(pairs), model.predict(pairs), atol=1e-6)
    assert encoder.max_length == 10
    encoder.save(tmp_path / "ours")
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "config.json"):
        ours, theirs = (json.loads((tmp_path / who / name).read_text()) for who in ("ours", "theirs"))
        assert ours == theirs, name


@pytest.mark.parametrize("key", ["sbert_ce_default_activation_function", "sentence_transformers"])
def test_a_folder_of_an_old_version_has_its_activation_in_the_configuration(
    key, plain_folder, pairs, st, edit_json
) -> None:
    name = "torch.nn.modules.linear.Identity"
    folder = plain_folder("classifier")
    edit_json(folder / "config.json", **{key: name if key.startswith("sbert") else {"activation_fn": name}})
    encoder = CrossEncoder(folder)
    assert isinstance(encoder.activation, nn.Identity)
    np.testing.assert_allclose(encoder.encode(pairs), opened(st, folder).predict(pairs), atol=1e-6)


def test_the_activation_can_be_chosen_and_is_saved(plain_folder, pairs, tmp_path, st) -> None:
    encoder = CrossEncoder(plain_folder("classifier"), activation="identity")
    encoder.save(tmp_path / "m")
    raw = encoder(encoder.eval().preprocess(pairs)).embedding.detach().numpy()
    np.testing.assert_allclose(opened(st, tmp_path / "m").predict(pairs), raw, atol=1e-6)
    np.testing.assert_allclose(CrossEncoder(tmp_path / "m").encode(pairs), raw, atol=1e-6)


@pytest.mark.parametrize("labels", [None, 1, 4])
@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_a_folder_without_a_classifier_gets_a_new_one(name, labels, plain_folder, pairs, tmp_path, st) -> None:
    encoder = CrossEncoder(plain_folder(name), num_labels=labels)
    expected = (5,) if labels in (None, 1) else (5, 4)
    assert encoder.encode(pairs).shape == expected
    encoder.save(tmp_path / "m")
    np.testing.assert_allclose(opened(st, tmp_path / "m").predict(pairs), encoder.encode(pairs), atol=1e-6)


def test_a_trained_classifier_keeps_its_labels(plain_folder) -> None:
    with pytest.raises(ModelError) as error:
        CrossEncoder(plain_folder("classifier3"), num_labels=1)
    assert "expected a classifier with 1 labels, got one with 3. Fix: leave num_labels out" in str(error.value)


def test_a_trained_classifier_must_be_there(plain_folder) -> None:
    from safetensors.torch import load_file, save_file

    path = plain_folder("classifier") / "model.safetensors"
    weights = {name: weight for name, weight in load_file(path).items() if name != "classifier.weight"}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"got no classifier\.weight"):
        CrossEncoder(path.parent)


def test_more_than_a_classifier_is_refused(plain_folder, tmp_path, edit_json) -> None:
    CrossEncoder(plain_folder("classifier")).save(tmp_path / "m")
    settings = tmp_path / "m" / "config_sentence_transformers.json"
    edit_json(settings, keep_in_fp32_modules=["0.model.classifier"])
    with pytest.raises(ModelError, match="'keep_in_fp32_modules' in"):
        CrossEncoder(tmp_path / "m")
    edit_json(settings, keep_in_fp32_modules=None, activation_fn="builtins.exec")
    with pytest.raises(ModelError, match=r"expected a module class of torch\.nn, got 'builtins\.exec'"):
        CrossEncoder(tmp_path / "m")
    edit_json(settings, activation_fn=None)
    modules = tmp_path / "m" / "modules.json"
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    entries = [*json.loads(modules.read_text()), {"idx": 1, "name": "1", "path": "1_LogitScore", "type": kind}]
    modules.write_text(json.dumps(entries))
    with pytest.raises(ModelError, match="module '1' "):
        CrossEncoder(tmp_path / "m")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 2}, "num_labels: expected the model's 1, got 2"),
        ({"activation": "tanh"}, "activation: expected one of identity, sigmoid, got 'tanh'"),
        ({"tokenizer": None}, "tokenizer: expected the tokenizer of the given model, got none"),
    ],
)
def test_wrong_options(options, message, make_model, word_piece) -> None:
    with pytest.raises(RecipeError) as error:
        CrossEncoder(make_model("classifier"), **{"tokenizer": word_piece, **options})
    assert str(error.value).startswith(message)


# Objects


@pytest.fixture
def model(plain_folder, st):
    return opened(st, plain_folder("classifier"), prompts=PROMPTS)


def test_an_object_is_seen_as_an_encoder(model) -> None:
    view = CrossEncoder.adapt(model)
    assert isinstance(view, CrossEncoderView)
    assert isinstance(view, Encoder)
    assert not isinstance(view, nn.Module)
    assert (view.family, view.num_labels, view.dimension, view.normalized) == ("cross-encoder", 1, None, False)
    assert CrossEncoder.adapt(nn.Linear(1, 1)) is None


def test_it_scores_as_the_object_does(model, pairs) -> None:
    view = CrossEncoder.adapt(model.eval())
    features = view.preprocess(pairs, role="search")
    kept = set(features)
    scores = view(features).embedding
    expected = model(dict(model.preprocess(pairs, prompt=PROMPTS["search"])))["scores"]
    assert torch.equal(scores, expected[:, 0])
    assert set(features) == kept
    scores.sum().backward()
    assert model.model.classifier.weight.grad.abs().sum() > 0
    np.testing.assert_array_equal(view.encode(pairs), model.predict(pairs))
    np.testing.assert_array_equal(view.encode(pairs, role="search"), model.predict(pairs, prompt_name="search"))


def test_it_keeps_classes(plain_folder, pairs, st) -> None:
    view = CrossEncoder.adapt(opened(st, plain_folder("classifier3")))
    assert view(view.preprocess(pairs)).embedding.shape == (5, 3)
    assert view.encode(pairs).shape == (5, 3)


def test_it_saves_and_loads_through_the_object(model, pairs, tmp_path) -> None:
    CrossEncoder.adapt(model).save(tmp_path / "m")
    again = CrossEncoderView.load(tmp_path / "m")
    np.testing.assert_allclose(again.encode(pairs), model.predict(pairs), atol=1e-6)
    np.testing.assert_allclose(CrossEncoder(tmp_path / "m").encode(pairs), model.predict(pairs), atol=1e-6)


def test_encode_restores_the_mode(model, pairs) -> None:
    model.train()
    CrossEncoder.adapt(model).encode(pairs)
    assert model.training
