"""What a folder holds that an encoder cannot honour is refused by name, never dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import nn

from losskit.errors import ModelError
from losskit_plugins.encoders.cross_encoder import CrossEncoder
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.head import Projection
from losskit_plugins.encoders.layout import TYPES

Edit = Callable[..., None]


@pytest.fixture
def folder(plain_folder, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    encoder = DenseEncoder(plain_folder("bert"), normalize=True)
    encoder.steps.insert(0, Projection(16, 8, True, nn.Tanh()))
    encoder.save(path)
    return path


def change_module(folder: Path, index: int, **changes: object) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[index].update(changes)
    (folder / "modules.json").write_text(json.dumps(modules))


def refusal(folder: Path, encoder: type = DenseEncoder) -> str:
    with pytest.raises(ModelError) as error:
        encoder.load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "sentence_transformers.base.modules.router.Router",
        "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
        "sentence_transformers.models.LSTM",
        "my_package.Pooling",
        "custom_st.Normalize",
    ],
)
def test_a_module_it_does_not_know(folder: Path, name: str) -> None:
    change_module(folder, 3, type=name)
    message = refusal(folder)
    assert f"module '3' ({name})" in message
    assert "expected one of Transformer, Pooling, Normalize, Dense" in message


def test_arguments_that_modules_take_at_run_time(folder: Path) -> None:
    change_module(folder, 0, kwargs=["task"])
    assert "expected no kwargs, got ['task']" in refusal(folder)


def test_modules_outside_the_folder(folder: Path) -> None:
    change_module(folder, 1, path="../1_Pooling")
    assert "expected a path inside the model folder" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[{}]", "[3]", "{}", "[]"])
def test_a_broken_module_list(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content)
    assert "modules.json: expected" in refusal(folder)


def test_no_pooling(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    assert "modules.json: expected one Pooling, got 0" in refusal(folder)


def test_two_transformers(folder: Path) -> None:
    change_module(folder, 2, type=TYPES["Transformer"])
    assert "expected one Transformer, got several" in refusal(folder)


@pytest.mark.parametrize("kind", ["SparseEncoder", "CrossEncoder", "MultiVectorEncoder"])
def test_another_type_of_model(folder: Path, edit_json: Edit, kind: str) -> None:
    edit_json(folder / "config_sentence_transformers.json", model_type=kind)
    assert f"expected a SentenceTransformer, got model_type {kind}" in refusal(folder)


def test_a_dense_model_is_no_cross_encoder(folder: Path) -> None:
    assert "expected a CrossEncoder, got model_type SentenceTransformer" in refusal(folder, CrossEncoder)


def test_a_similarity_it_does_not_know(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name="maxsim")
    assert "expected one of cosine, dot, euclidean, manhattan, got 'maxsim'" in refusal(folder)


@pytest.mark.parametrize("prompts", [["query: "], {"query": 3}])
def test_prompts_that_are_none(folder: Path, edit_json: Edit, prompts: object) -> None:
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts)
    assert "config_sentence_transformers.json: expected texts by name, got" in refusal(folder)


def test_a_default_prompt_that_is_not_there(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name="qury")
    assert "expected the name of one of the prompts, query, document, got 'qury'" in refusal(folder)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_seq_length": "128"}, "expected a number of tokens, got '128'"),
        ({"transformer_task": "fill-mask"}, "'transformer_task' in"),
        ({"module_output_name": "sentence_embedding"}, "expected 'token_embeddings', got 'sentence_embedding'"),
        ({"modality_config": {"message": {}}}, "'modality_config' in"),
        ({"query_expansion": {"length": 32}}, "'query_expansion' in"),
        ({"query_length": 16}, "'query_length' in"),
        ({"processing_kwargs": {"text": {"padding": False}}}, "'processing_kwargs' in"),
        ({"model_args": {"dtype": "float16"}}, "'model_args' in"),
    ],
)
def test_a_transformer_that_is_run_differently(folder: Path, edit_json: Edit, setting: dict, message: str) -> None:
    edit_json(folder / "sentence_bert_config.json", **setting)
    assert message in refusal(folder)


def test_settings_that_say_nothing_are_no_obstacle(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "sentence_bert_config.json", processing_kwargs={})
    content = json.loads((folder / "sentence_bert_config.json").read_text()) | {"query_length": None}
    (folder / "sentence_bert_config.json").write_text(json.dumps(content))
    assert DenseEncoder.load(folder).dimension == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_mode": "median"}, "expected some of cls, max, mean"),
        ({"pooling_mode": ["mean", {}]}, "got ['mean', {}]"),
        ({"pooling_mode": []}, "got []"),
        ({"embedding_dimension": None}, "embedding_dimension in"),
        ({"embedding_dimension": "16"}, "expected a positive number, got '16'"),
        ({"attention_heads": 4}, "'attention_heads' in"),
    ],
)
def test_a_pooling_it_does_not_know(folder: Path, edit_json: Edit, changes: dict, message: str) -> None:
    edit_json(folder / "1_Pooling/config.json", **changes)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module_input_name": "token_embeddings"}, "expected sentence_embedding in and out at this place"),
        ({"activation_function": "os.system"}, "expected a module class of torch.nn, got 'os.system'"),
        ({"activation_function": "torch.nn.functional.relu"}, "expected a module class of torch.nn"),
        ({"activation_function": "torch.nn.modules.linear.Linear"}, "expected a class that takes no arguments"),
        ({"in_features": 12}, "expected a Dense module, got"),
        ({"out_features": None}, "expected a Dense module, got 'out_features'"),
        ({"rank": 4}, "'rank' in"),
        ({"use_residual": True}, "residual.weight"),
    ],
)
def test_a_projection_it_does_not_know(folder: Path, edit_json: Edit, changes: dict, message: str) -> None:
    edit_json(folder / "2_Dense/config.json", **changes)
    assert message in refusal(folder)


def test_a_projection_that_does_not_fit(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "1_Pooling/config.json", pooling_mode=["mean", "max"])
    assert "the projection after pooling: expected 32 features, got 16" in refusal(folder)


def test_a_normalization_of_something_else(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "3_Normalize/config.json", module_output_name="unit")
    assert "got sentence_embedding in and unit out" in refusal(folder)


@pytest.mark.parametrize("where", ["", "2_Dense"])
def test_pickled_weights(folder: Path, where: str) -> None:
    (folder / where / "model.safetensors").rename(folder / where / "pytorch_model.bin")
    assert "got pytorch_model.bin, which is pickled" in refusal(folder)


@pytest.mark.parametrize("where", ["", "2_Dense"])
def test_torn_weights(folder: Path, where: str) -> None:
    path = folder / where / "model.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    assert str(folder / where).rstrip("/") in refusal(folder)


def test_weights_that_are_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "expected all weights of BertModel, got no encoder.layer.1.output.dense.weight" in refusal(folder)


def test_weights_of_a_pooler_may_be_missing(folder: Path) -> None:
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler")}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert DenseEncoder.load(folder).dimension == 8


def test_weights_of_another_shape(folder: Path, edit_json: Edit) -> None:
    edit_json(folder / "config.json", intermediate_size=20)
    assert f"{folder}: expected a transformers model, got" in refusal(folder)


@pytest.mark.parametrize("content", ["{", '{"model_type": "no-such-type"}', "{}"])
def test_a_broken_configuration(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert f"{folder}: expected a transformers model, got" in refusal(folder)


def test_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert f"{folder}: expected a tokenizer, got" in refusal(folder)


def test_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "x", "peft_type": "LORA"}')
    assert "expected a whole model, got a PEFT adapter. Fix: merge it" in refusal(folder)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "expected a transformers model" in refusal(tmp_path)
    assert "expected a transformers model" in refusal(tmp_path, CrossEncoder)
