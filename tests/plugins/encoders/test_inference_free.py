"""The encoder inference-free-splade: weights of queries, routes, and folders with a Router, both ways."""

from __future__ import annotations

import copy
import json
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, PreTrainedModel

import losskit
from losskit.batch import preprocess
from losskit.building import build
from losskit.errors import DataError, ModelError, RecipeError
from losskit.execution import GradCache
from losskit.features import can_share, take
from losskit.protocols import Encoder
from losskit_plugins.encoders.inference_free import InferenceFreeSpladeEncoder
from losskit_plugins.encoders.query_weights import inverse_document_frequencies
from losskit_plugins.encoders.splade import SpladeEncoder

from .conftest import bert_config

PROMPTS = {"query": "a quick cat: ", "document": "the lazy dog: ", "title": "fox "}


@pytest.fixture(scope="session")
def masked(word_piece) -> Callable[[], PreTrainedModel]:
    """A masked-language model with a term for each token, the same each time."""

    def make() -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = BertForMaskedLM(bert_config(len(word_piece), initializer_range=0.3))
        return model.eval()

    return make


@pytest.fixture
def make(masked, word_piece) -> Callable[..., InferenceFreeSpladeEncoder]:
    def encoder(**options: Any) -> InferenceFreeSpladeEncoder:
        return InferenceFreeSpladeEncoder(masked(), tokenizer=word_piece, **options).eval()

    return encoder


@pytest.fixture
def weights(word_piece) -> dict[str, float]:
    """A weight for every third token."""
    return {token: 0.5 + place for token, place in word_piece.get_vocab().items() if place % 3 == 0}


def opened(st, folder: Path):
    """A SparseEncoder of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.SparseEncoder(str(folder), device="cpu")


def same(model, encoder: Encoder, texts: list[str]) -> None:
    """The same vectors for every role."""
    for theirs, ours in (
        (model.encode(texts), encoder.encode(texts)),
        (model.encode_query(texts), encoder.encode(texts, role="query")),
        (model.encode_document(texts), encoder.encode(texts, role="document")),
        (model.encode(texts, prompt="mat: "), encoder.encode(texts, prompt="mat: ")),
    ):
        np.testing.assert_allclose(ours.toarray(), theirs.to_dense().numpy(), atol=1e-6)


def test_it_meets_the_protocol_and_is_registered(make, word_piece) -> None:
    encoder = make()
    assert isinstance(encoder, Encoder)
    assert (encoder.family, encoder.similarity, encoder.normalized) == ("sparse", "dot", False)
    assert encoder.dimension == len(word_piece)
    spec = losskit.get("encoder", "inference-free-splade")
    assert (spec.status, spec.load(), spec.card) == ("ok", InferenceFreeSpladeEncoder, InferenceFreeSpladeEncoder.card)


def test_queries_have_the_weights_of_the_tokens_they_hold(make, weights, word_piece, texts) -> None:
    encoder = make(query_weights=weights)
    expected = np.zeros((len(texts), len(word_piece)))
    for row, text in enumerate(texts):
        for token in word_piece.tokenize(text):
            expected[row, word_piece.get_vocab()[token]] = weights.get(token, 0.0)
    np.testing.assert_allclose(encoder.encode(texts, role="query").toarray(), expected)
    ones = make().encode(texts, role="query").toarray()
    assert set(ones.flatten()) == {0.0, 1.0}


def test_documents_are_encoded_as_by_splade(make, masked, word_piece, texts) -> None:
    encoder = make(prompts=PROMPTS)
    splade = SpladeEncoder(masked(), prompts=PROMPTS, tokenizer=word_piece)
    for role in ("document", "text", "title"):
        np.testing.assert_array_equal(
            encoder.encode(texts, role=role).toarray(), splade.encode(texts, role=role).toarray()
        )


def test_columns_of_different_roles_share_no_forward(make, texts) -> None:
    encoder = make()
    query, document, text = (encoder.preprocess(texts, role=role) for role in ("query", "document", "text"))
    assert not can_share(query, document)
    assert can_share(document, text)
    part = take(encoder, query, [3, 1])
    torch.testing.assert_close(encoder(part).embedding, encoder(query).embedding[[3, 1]])


def test_a_query_without_tokens_has_zeros(make) -> None:
    encoder = make()
    assert encoder.encode(["", "fox"], role="query").toarray().sum(1).tolist()[0] == 0
    assert encoder.encode([""], role="query").nnz == 0


def test_weights_are_inverse_document_frequencies_of_a_corpus(make, texts, word_piece) -> None:
    encoder = make()
    encoder.fit_query_weights(texts)
    for token, place in word_piece.get_vocab().items():
        count = sum(token in word_piece.tokenize(text) for text in texts)
        expected = math.log(1 + (len(texts) - count + 0.5) / (count + 0.5))
        assert encoder.queries.weight[place].item() == pytest.approx(expected, rel=1e-5)
    assert encoder.queries.weight.requires_grad
    assert inverse_document_frequencies([], 2).tolist() == pytest.approx([math.log(2)] * 2)


def test_weights_come_from_a_file_as_well(make, weights, texts, tmp_path) -> None:
    (tmp_path / "idf.json").write_text(json.dumps(weights))
    make().save(tmp_path / "m")
    expression = {"name": "inference-free-splade", "model": str(tmp_path / "m"), "train_query_weights": False}
    for given in (weights, str(tmp_path / "idf.json")):
        encoder = build({**expression, "query_weights": given}, kind="encoder")
        assert torch.equal(encoder.queries.weight, make(query_weights=weights).queries.weight)
        assert encoder.get_config_dict() == {"model": expression["model"], "query_weights": given} | {
            "train_query_weights": False
        }
    direct = InferenceFreeSpladeEncoder(tmp_path / "m", tmp_path / "idf.json")
    assert direct.get_config_dict() == {"model": str(tmp_path / "m"), "query_weights": str(tmp_path / "idf.json")}


def test_half_precision_gives_both_sides_one_type(make, texts) -> None:
    encoder = make().to(torch.bfloat16)
    for role in ("query", "document"):
        assert encoder(encoder.preprocess(texts, role=role)).embedding.dtype == torch.float32
    loss = build("multiple-negatives-ranking", encoder.train())
    loss([encoder.preprocess(texts, role=role) for role in ("query", "document")]).backward()
    assert encoder.queries.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("execution", [None, GradCache(mini_batch_size=2)])
def test_losses_train_both_ways(execution, make, texts) -> None:
    encoder = make()
    loss = build("multiple-negatives-ranking", encoder, execution=execution)
    value = loss(preprocess(loss, [texts[:4], texts[1:]], inputs=["anchor", "positive"]), None)
    value.backward()
    pieces = [encoder(encoder.preprocess(part, role=role)).embedding for part, role in
              ((texts[:4], "query"), (texts[1:], "document"))]  # fmt: skip
    expected = torch.nn.functional.cross_entropy(pieces[0] @ pieces[1].T, torch.arange(4))
    torch.testing.assert_close(value, expected)
    gradients = torch.autograd.grad(expected, list(encoder.parameters()), allow_unused=True, materialize_grads=True)
    for parameter, wanted in zip(encoder.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-5, rtol=1e-4)
    assert encoder.queries.weight.grad.count_nonzero() > 0
    frozen = make(train_query_weights=False)
    assert not frozen.queries.weight.requires_grad


def test_half_precision_leaves_the_weights_in_float32(masked, word_piece, texts) -> None:
    encoder = InferenceFreeSpladeEncoder(masked().bfloat16(), tokenizer=word_piece)
    encoder.fit_query_weights(texts)
    assert encoder.queries.weight.dtype == torch.float32
    loss = build("multiple-negatives-ranking", encoder)
    assert loss(preprocess(loss, [texts[:4], texts[1:]], inputs=["anchor", "positive"]), None).isfinite()


def test_it_pickles_and_copies(make, weights, texts) -> None:
    encoder = make(query_weights=weights)
    for other in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        for role in ("query", "document"):
            np.testing.assert_array_equal(
                other.encode(texts, role=role).toarray(), encoder.encode(texts, role=role).toarray()
            )


# Folders


def test_ours_opens_there_and_here(make, weights, tmp_path, texts, st) -> None:
    encoder = make(
        query_weights=weights, train_query_weights=False, pooling="sum", activation="log1p-relu", prompts=PROMPTS,
        max_length=9, max_active_dims=5,
    )  # fmt: skip
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert (model.prompts, model.max_seq_length, model.max_active_dims) == (PROMPTS, 9, 5)
    assert not model[0].sub_modules["query"][0].weight.requires_grad
    again = losskit.load(tmp_path / "m")
    assert isinstance(again, InferenceFreeSpladeEncoder)
    assert not again.queries.weight.requires_grad
    for role in ("text", "query", "title"):
        np.testing.assert_array_equal(
            again.encode(texts, role=role).toarray(), encoder.encode(texts, role=role).toarray()
        )


@pytest.mark.parametrize("default", ["document", "query"])
def test_theirs_opens_here(default, masked, word_piece, tmp_path, texts, st) -> None:
    modules = st.sparse_encoder.modules
    masked().save_pretrained(tmp_path / "plain")
    word_piece.save_pretrained(tmp_path / "plain")
    router = st.base.modules.Router.for_query_document(
        [modules.SparseStaticEmbedding(copy.deepcopy(word_piece), torch.linspace(0, 2, len(word_piece)))],
        [modules.Transformer(str(tmp_path / "plain"), transformer_task="fill-mask"), modules.SpladePooling("max")],
        default_route=default,
    )
    model = st.SparseEncoder(modules=[router], prompts=PROMPTS, similarity_fn_name="dot", device="cpu")
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = losskit.load(tmp_path / "theirs")
    assert isinstance(encoder, InferenceFreeSpladeEncoder)
    same(model, encoder, texts)
    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    for path in (tmp_path / "theirs").rglob("*.json"):
        if "tokenizer" not in path.name:
            ours = json.loads((tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_text())
            assert ours == json.loads(path.read_text()), path.name


def test_a_splade_folder_begins_one(masked, word_piece, tmp_path, texts) -> None:
    splade = SpladeEncoder(masked(), pooling="sum", tokenizer=word_piece)
    splade.save(tmp_path / "m")
    encoder = InferenceFreeSpladeEncoder(tmp_path / "m")
    assert encoder.pooling.pooling == "sum"
    np.testing.assert_array_equal(encoder.encode(texts).toarray(), splade.encode(texts).toarray())
    encoder.save(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir() if path.is_dir()) == [
        "document_0_Transformer", "document_1_SpladePooling", "query_0_SparseStaticEmbedding",
    ]  # fmt: skip
    splade.save(tmp_path / "m")
    assert not (tmp_path / "m/router_config.json").exists()
    assert isinstance(losskit.load(tmp_path / "m"), SpladeEncoder)


# Errors


def test_refuses_weights_of_no_token(make) -> None:
    with pytest.raises(RecipeError, match="query_weights: expected tokens of the model's vocabulary, got 'zebra'"):
        make(query_weights={"zebra": 1.0})


@pytest.mark.parametrize("weight", ["heavy", None, float("nan")], ids=repr)
def test_refuses_weights_that_are_no_numbers(weight, make) -> None:
    with pytest.raises(RecipeError, match=f"query_weights of 'cat': expected a finite number, got {weight!r}"):
        make(query_weights={"cat": weight})


def test_refuses_to_fit_weights_to_no_texts(make) -> None:
    with pytest.raises(DataError, match="texts of the query weights: expected at least one, got none"):
        make().fit_query_weights([])


def test_refuses_a_router_that_no_modules_name(make, tmp_path) -> None:
    make().save(tmp_path / "m")
    (tmp_path / "m/modules.json").unlink()
    with pytest.raises(ModelError, match=r"modules.json: expected a file, got nothing there"):
        InferenceFreeSpladeEncoder(tmp_path / "m")


def test_refuses_more_terms_than_tokens(word_piece) -> None:
    model = BertForMaskedLM(bert_config(len(word_piece) + 8))
    with pytest.raises(ModelError, match=r"the vocabulary head: expected a term for each of the \d+ tokens of queries"):
        InferenceFreeSpladeEncoder(model, tokenizer=word_piece)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": {"query": ["document_0_Transformer"]}}, "expected query: SparseStaticEmbedding; document"),
        ({"structure": {"query": ["other"]}}, "expected types, structure and parameters, got KeyError"),
        ({"parameters": {"default_route": "image"}}, "'default_route' in .*: expected one of query, document"),
        ({"parameters": {"default_route": ["query"]}}, "'default_route' in .*: expected one of query, document"),
        ({"parameters": {"route_mappings": {"(None, 'text')": "query"}}}, "'route_mappings' in .*: expected none"),
    ],
)
def test_refuses_other_routes(changes, message, make, tmp_path, edit_json) -> None:
    make().save(tmp_path / "m")
    edit_json(tmp_path / "m/router_config.json", **changes)
    with pytest.raises(ModelError, match=message):
        InferenceFreeSpladeEncoder(tmp_path / "m")


def test_refuses_a_route_that_leaves_the_folder(make, tmp_path, edit_json) -> None:
    make().save(tmp_path / "m")
    config = json.loads((tmp_path / "m/router_config.json").read_text())
    name = config["structure"]["query"][0]
    edit_json(
        tmp_path / "m/router_config.json",
        types={**config["types"], f"../{name}": config["types"][name]},
        structure={**config["structure"], "query": [f"../{name}"]},
    )
    with pytest.raises(ModelError, match=rf"the module's path '../{name}' in .*: expected a path inside the model"):
        losskit.load(tmp_path / "m")


def test_refuses_weights_that_are_not_one_for_each_token(make, tmp_path, edit_json) -> None:
    from safetensors.torch import save_file

    make().save(tmp_path / "m")
    folder = tmp_path / "m/query_0_SparseStaticEmbedding"
    save_file({"weight": torch.ones(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"expected a weight for each of the tokenizer's \d+ tokens"):
        losskit.load(tmp_path / "m")
    edit_json(folder / "config.json", weight="idf.json")
    with pytest.raises(ModelError, match=r"'weight' in .*: expected one of frozen"):
        losskit.load(tmp_path / "m")
