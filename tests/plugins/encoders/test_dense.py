from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from losskit.errors import DataError, LossError, ModelError, RecipeError
from losskit.features import can_share, join, take
from losskit.output import Tokens
from losskit.protocols import Encoder
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.pooling import pool

PROMPTS = {"query": "a quick cat: ", "document": ""}


@pytest.fixture
def encoder(make_model, word_piece) -> DenseEncoder:
    return DenseEncoder(make_model("bert"), tokenizer=word_piece).eval()


def test_it_meets_the_protocol(encoder: DenseEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.similarity, encoder.dimension, encoder.normalized) == ("dense", "cosine", 16, False)
    assert encoder.max_length == 24


def test_a_plain_folder_is_pooled_by_the_mean(plain_folder, texts) -> None:
    encoder = DenseEncoder(plain_folder("bert"))
    features = encoder.preprocess(texts)
    with torch.no_grad():
        tokens = encoder.eval().transformer(**features).last_hidden_state
    expected = pool(tokens, features["attention_mask"], "mean")
    np.testing.assert_allclose(encoder.encode(texts), expected.numpy(), atol=1e-6)


def test_a_plain_folder_of_a_causal_model_is_pooled_at_the_last_token(plain_folder, edit_json, texts) -> None:
    folder = plain_folder("gpt2")
    assert DenseEncoder(folder).pooling.modes == ("mean",)
    edit_json(folder / "config.json", architectures=["GPT2ForCausalLM"])
    assert DenseEncoder(folder).pooling.modes == ("last-token",)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last-token", "weighted-mean", "mean_sqrt_len_tokens"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_pooling_and_side_ignores_padding(pooling, side, make_model, byte_pairs, texts) -> None:
    # Left padding shifts GPT-2's positions, so a model with relative positions, here none, has to show it.
    model = make_model("gpt2")
    torch.nn.init.zeros_(model.wpe.weight)
    tokenizer = copy.deepcopy(byte_pairs)
    tokenizer.padding_side = side
    encoder = DenseEncoder(model, pooling=pooling, tokenizer=tokenizer)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), alone, atol=2e-6)


def test_options_override_the_folder(plain_folder, texts) -> None:
    folder = plain_folder("bert")
    plain = DenseEncoder(folder)
    changed = DenseEncoder(
        folder, pooling="cls", normalize=True, prompts=PROMPTS, max_length=6, similarity="dot", truncate_dim=5
    )
    assert (changed.normalized, changed.similarity, changed.max_length, changed.dimension) == (True, "dot", 6, 16)
    assert changed.preprocess(texts)["input_ids"].shape[1] == 6
    assert changed.encode(texts).shape == (5, 5)
    vector = changed(changed.preprocess(texts)).embedding
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(5))
    assert plain.max_length == 24


def test_normalize_false_drops_the_last_step(plain_folder, tmp_path) -> None:
    DenseEncoder(plain_folder("bert"), normalize=True).save(tmp_path / "m")
    assert DenseEncoder(tmp_path / "m").normalized
    assert not DenseEncoder(tmp_path / "m", normalize=False).normalized


def test_the_given_tokenizer_is_not_changed(make_model, byte_pairs) -> None:
    encoder = DenseEncoder(make_model("gpt2"), max_length=7, tokenizer=byte_pairs)
    assert encoder.max_length == 7
    assert encoder.padding["input_ids"] == byte_pairs.eos_token_id
    assert byte_pairs.model_max_length == 40
    assert byte_pairs.pad_token is None


def test_prompts_stand_before_texts_by_role(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("bert"), prompts=PROMPTS, tokenizer=word_piece)
    by_hand = encoder.encode(["a quick cat: " + text for text in texts])
    np.testing.assert_array_equal(encoder.encode(texts, role="query"), by_hand)
    np.testing.assert_array_equal(encoder.encode(texts, prompt="a quick cat: "), by_hand)
    np.testing.assert_array_equal(encoder.encode(texts, role="query", prompt=""), encoder.encode(texts))
    np.testing.assert_array_equal(encoder.encode(texts, role="document"), encoder.encode(texts))


def test_an_excluded_prompt_is_read_but_not_pooled(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("bert"), prompts=PROMPTS, tokenizer=word_piece).eval()
    encoder.pooling.include_prompt = False
    features = encoder.preprocess(texts, role="query")
    prompt = word_piece("a quick cat: ", add_special_tokens=False)["input_ids"]
    assert features["prompt_length"].tolist() == [len(prompt) + 1] * 5  # [CLS] stands before it
    tokens = encoder.transformer(**{k: v for k, v in features.items() if k != "prompt_length"}).last_hidden_state
    mask = features["attention_mask"].clone()
    mask[:, : len(prompt) + 1] = 0
    torch.testing.assert_close(encoder(features).embedding, pool(tokens, mask, "mean"))


def test_columns_with_and_without_an_excluded_prompt_share_a_forward(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("bert"), prompts=PROMPTS, tokenizer=word_piece).eval()
    encoder.pooling.include_prompt = False
    columns = [encoder.preprocess(texts, role=role) for role in ("query", "document")]
    assert can_share(*columns)
    joined = encoder(join(encoder, columns)).embedding
    torch.testing.assert_close(joined, torch.cat([encoder(column).embedding for column in columns]))


def test_features_can_be_cut_and_trimmed(encoder: DenseEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    part = take(encoder, features, [3, 1])
    assert part["input_ids"].shape[1] < features["input_ids"].shape[1]
    torch.testing.assert_close(encoder(part).embedding, encoder(features).embedding[[3, 1]], atol=1e-6, rtol=0)


def test_only_what_the_model_takes_becomes_a_feature(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("distilbert"), tokenizer=word_piece)
    assert set(encoder.preprocess(texts)) == {"input_ids", "attention_mask"}
    assert encoder.encode(texts).shape == (5, 16)


def test_layers_go_through_everything_that_follows(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("bert"), pooling="max", normalize=True, tokenizer=word_piece).eval()
    features = encoder.preprocess(texts)
    output = encoder(features, needs=("layers",))
    hidden = encoder.transformer(**features, output_hidden_states=True).hidden_states
    expected = [torch.nn.functional.normalize(pool(h, features["attention_mask"], "max")) for h in hidden]
    assert len(output.layers) == 3
    for layer, wanted in zip(output.layers, expected, strict=True):
        torch.testing.assert_close(layer, wanted)
    torch.testing.assert_close(output.layers[-1], output.embedding)
    assert encoder(features).layers == ()


def test_input_ids_come_as_tokens(encoder: DenseEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    part = encoder(features, needs=("input_ids",)).parts["input_ids"]
    assert isinstance(part, Tokens)
    assert part.values is features["input_ids"]
    assert part.mask.dtype == torch.bool
    assert part.fill == encoder.padding["input_ids"]


def test_what_it_cannot_give_is_named(encoder: DenseEncoder, texts) -> None:
    with pytest.raises(LossError, match="expected some of input_ids of this encoder, got 'reconstruction'"):
        encoder(encoder.preprocess(texts), needs=("reconstruction",))


def test_gradients_reach_every_weight_and_dropout_follows_the_mode(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("distilbert"), tokenizer=word_piece).train()
    features = encoder.preprocess(texts)
    first, second = encoder(features).embedding, encoder(features).embedding
    assert not torch.equal(first, second)
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    encoder.eval()
    assert torch.equal(encoder(features).embedding, encoder(features).embedding)


def test_encode_leaves_the_mode_and_the_features_alone(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("bert"), tokenizer=word_piece).train()
    encoder.transformer.embeddings.eval()
    before = [part.training for part in encoder.modules()]
    vectors = encoder.encode(texts, batch_size=2)
    assert [part.training for part in encoder.modules()] == before
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, encoder.encode(texts, batch_size=2))
    features = encoder.preprocess(texts)
    kept = dict(features)
    encoder(features, needs=("layers",))
    assert features.keys() == kept.keys()
    assert all(features[key] is kept[key] for key in kept)


def test_batches_and_progress_change_nothing(encoder: DenseEncoder, texts) -> None:
    alone = encoder.encode(texts, batch_size=1)
    np.testing.assert_allclose(encoder.encode(texts, batch_size=3, progress=True), alone, atol=1e-6)


def test_no_texts_give_no_rows(encoder: DenseEncoder) -> None:
    assert encoder.encode([]).shape == (0, 16)
    with pytest.raises(DataError, match="a column of a batch: expected at least one text, got none"):
        encoder.preprocess([])


def test_a_missing_text_is_named(encoder: DenseEncoder) -> None:
    with pytest.raises(DataError, match="text 2 of 2: expected a string, got None"):
        encoder.encode(["a", None])  # type: ignore[list-item]


def test_bf16_weights(make_model, word_piece, texts, tmp_path) -> None:
    exact = DenseEncoder(make_model("bert"), tokenizer=word_piece).eval()
    encoder = DenseEncoder(make_model("bert").bfloat16(), tokenizer=word_piece, normalize=True).eval()
    features = encoder.preprocess(texts)
    assert encoder(features).embedding.dtype == torch.bfloat16
    assert encoder.encode(texts).dtype == np.float32
    cosine = torch.cosine_similarity(encoder(features).embedding.float(), exact(features).embedding)
    assert cosine.min() > 0.99
    encoder.save(tmp_path / "half")
    again = DenseEncoder(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    np.testing.assert_array_equal(again.encode(texts), encoder.encode(texts))


def test_autocast(encoder: DenseEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = encoder(features).embedding
    assert torch.cosine_similarity(made.float(), encoder(features).embedding).min() > 0.99


def test_decode_gives_the_texts_back(encoder: DenseEncoder) -> None:
    assert encoder.decode(encoder.preprocess(["a cat sat"])) == ["a cat sat"]


def test_it_pickles_and_copies(encoder: DenseEncoder, texts) -> None:
    expected = encoder.encode(texts)
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode(texts), expected)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2"])
def test_saved_and_loaded_is_the_same(name, plain_folder, tmp_path, texts) -> None:
    encoder = DenseEncoder(
        plain_folder(name),
        pooling="weighted-mean",
        normalize=True,
        prompts={**PROMPTS, "title": "title: "},
        max_length=9,
        similarity="euclidean",
        truncate_dim=7,
    )
    encoder.save(tmp_path / "m")
    again = DenseEncoder.load(tmp_path / "m")
    for role in ("text", "query", "title"):
        np.testing.assert_array_equal(again.encode(texts, role=role), encoder.encode(texts, role=role))
    assert (again.max_length, again.similarity, again.truncate_dim) == (9, "euclidean", 7)
    assert again.prompts == encoder.prompts


def test_the_side_of_padding_survives_saving(make_model, byte_pairs, texts, tmp_path, st) -> None:
    encoder = DenseEncoder(make_model("gpt2"), pooling="last-token", tokenizer=byte_pairs)
    encoder.tokenizer.base.padding_side = "left"
    encoder.save(tmp_path / "m")
    np.testing.assert_array_equal(DenseEncoder(tmp_path / "m").encode(texts), encoder.encode(texts))
    model = st.SentenceTransformer(str(tmp_path / "m"), device="cpu")
    np.testing.assert_allclose(model.encode(texts), encoder.encode(texts), atol=1e-6)


def test_saving_keeps_unknown_settings_of_the_model(plain_folder, tmp_path, edit_json) -> None:
    DenseEncoder(plain_folder("bert")).save(tmp_path / "m")
    edit_json(tmp_path / "m" / "config_sentence_transformers.json", requirements=["torch>=2"])
    DenseEncoder(tmp_path / "m").save(tmp_path / "n")
    written = json.loads((tmp_path / "n" / "config_sentence_transformers.json").read_text())
    assert written["requirements"] == ["torch>=2"]


def test_saving_over_a_model_keeps_its_readme(encoder: DenseEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("mine")
    DenseEncoder(tmp_path / "m", normalize=True).save(tmp_path / "m")
    encoder.save(tmp_path / "m")
    assert (tmp_path / "m" / "README.md").read_text() == "mine"
    assert not (tmp_path / "m" / "2_Normalize").exists()
    assert not DenseEncoder(tmp_path / "m").normalized


def test_a_save_that_fails_leaves_the_old_model(encoder: DenseEncoder, tmp_path, texts, monkeypatch) -> None:
    encoder.save(tmp_path / "m")
    before = DenseEncoder(tmp_path / "m").encode(texts)

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(encoder.tokenizer, "save", fail)
    with pytest.raises(ModelError, match="expected a folder that can be written, got disk full"):
        encoder.save(tmp_path / "m")
    np.testing.assert_array_equal(DenseEncoder(tmp_path / "m").encode(texts), before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_loading_prints_nothing(plain_folder, tmp_path, capfd) -> None:
    DenseEncoder(plain_folder("bert"))
    capfd.readouterr()
    encoder = DenseEncoder(tmp_path / "plain-bert")
    encoder.save(tmp_path / "m")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "avg"}, "pooling: expected one of mean, cls, max, last-token"),
        ({"similarity": "cosin"}, "got 'cosin'. Fix: did you mean 'cosine'?"),
        ({"max_length": 0}, "max_length: expected 2 or more, as so many tokens stand around a text, got 0"),
        ({"max_length": 1}, "max_length: expected 2 or more"),
        ({"truncate_dim": 0}, "truncate_dim: expected 1 or more, got 0"),
        ({"tokenizer": None}, "tokenizer: expected the tokenizer of the given model, got none"),
    ],
)
def test_wrong_options(options, message, make_model, word_piece) -> None:
    with pytest.raises(RecipeError) as error:
        DenseEncoder(make_model("bert"), **{"tokenizer": word_piece, **options})
    assert message in str(error.value)


def test_a_folder_brings_its_own_tokenizer(plain_folder, word_piece) -> None:
    with pytest.raises(RecipeError, match="tokenizer: expected none, for the model folder has its own"):
        DenseEncoder(plain_folder("bert"), tokenizer=word_piece)


def test_a_model_with_a_head_says_what_is_missing(make_model, word_piece, texts) -> None:
    encoder = DenseEncoder(make_model("classifier"), tokenizer=word_piece)
    with pytest.raises(ModelError, match="expected a transformer whose output has last_hidden_state, got"):
        encoder.encode(texts)


def test_something_foreign_is_not_adopted(encoder: DenseEncoder) -> None:
    assert DenseEncoder.adapt(encoder.transformer) is None
    assert DenseEncoder.adapt("a string") is None


def test_texts_without_a_token_are_encoded_alone_as_among_others(make_model, byte_pairs) -> None:
    encoder = DenseEncoder(make_model("gpt2"), tokenizer=byte_pairs)
    alone, among = encoder.encode([""]), encoder.encode(["", "a cat"])[:1]
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(alone, among, atol=1e-6)
    features = encoder.preprocess(["", ""])
    assert features["attention_mask"].tolist() == [[0], [0]]
    assert features["input_ids"].dtype == torch.long


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}])
def test_refuses_architectures_that_are_no_names(value, plain_folder, edit_json) -> None:
    folder = plain_folder("bert")
    edit_json(folder / "config.json", architectures=value)
    with pytest.raises(ModelError, match=r"architectures in .*config.json: expected a list of names"):
        DenseEncoder(folder)


@pytest.mark.parametrize("value", ["x", 0, True, 2.5])
def test_refuses_a_folder_that_truncates_to_no_number(value, make_model, word_piece, tmp_path, edit_json) -> None:
    DenseEncoder(make_model("bert"), tokenizer=word_piece).save(tmp_path / "m")
    edit_json(tmp_path / "m/config_sentence_transformers.json", truncate_dim=value)
    with pytest.raises(ModelError, match=r"truncate_dim of the model: expected 1 or more"):
        DenseEncoder(tmp_path / "m")
