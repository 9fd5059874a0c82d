from __future__ import annotations

import json

import pytest

from losskit import ModelError, NotFoundError, PluginError, load, registry

ENCODER = """
from losskit import Card

class Enc:
    card = Card()

    @classmethod
    def load(cls, path):
        return NAME, path
"""
POOLING = {"type": "sentence_transformers.models.Pooling"}
STATIC = {"type": "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"}
AUTO_ENCODER = {"type": "sentence_transformers.sparse_encoder.modules.sparse_auto_encoder.SparseAutoEncoder"}
SPARSE = {"model_type": "SparseEncoder"}


@pytest.fixture
def model(site, tmp_path):
    """Encoders that say their own name, and a function that writes a model folder."""
    names = ("lk-dense", "lk-cross-encoder", "lk-splade", "lk-static", "lk-csr", "lk-mine")
    for name in names:
        module = name.replace("-", "_")
        source = f"NAME = {name!r}\n" + ENCODER
        site.add(
            name, points={"encoders": {name.removeprefix("lk-"): f"{module}:Enc"}}, modules={f"{module}.py": source}
        )
    pins = "".join(f'{name.removeprefix("lk-")} = "{name}"\n' for name in names)
    (tmp_path / "work" / "pyproject.toml").write_text(f"[tool.losskit.pins]\n{pins}")
    registry.refresh()

    def write(**files: object):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            stem, _, suffix = name.rpartition("_")
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / f"{stem}.{suffix}").write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    ("files", "encoder"),
    [
        ({"config_sentence_transformers_json": {"model_type": "SentenceTransformer"}}, "lk-dense"),
        ({"config_sentence_transformers_json": {"model_type": "CrossEncoder"}}, "lk-cross-encoder"),
        ({"config_sentence_transformers_json": {"model_type": "SparseEncoder"}}, "lk-splade"),
        ({"config_sentence_transformers_json": {}, "modules_json": []}, "lk-dense"),
        ({"config_json": {}, "modules_json": [POOLING]}, "lk-dense"),
        ({"config_sentence_transformers_json": {}, "modules_json": [STATIC, POOLING]}, "lk-static"),
        ({"config_sentence_transformers_json": SPARSE, "modules_json": [POOLING, AUTO_ENCODER]}, "lk-csr"),
        ({"config_sentence_transformers_json": SPARSE, "modules_json": [STATIC]}, "lk-splade"),
        ({"config_json": {"architectures": ["BertForSequenceClassification"]}}, "lk-cross-encoder"),
        ({"config_json": {"architectures": ["BertModel"]}}, "lk-dense"),
        ({"config_json": {}}, "lk-dense"),
        ({"config_json": {"architectures": ["BertForSequenceClassification"]}, "modules_json": []}, "lk-dense"),
        ({"config_json": {"losskit_encoder": "mine"}}, "lk-mine"),
        ({"config_json": {"losskit_encoder": "dense"}, "recipe_yaml": "encoder: mine"}, "lk-mine"),
        ({"config_json": {}, "recipe_yaml": "encoder: {name: mine, model: x}"}, "lk-mine"),
        ({"config_json": {}, "recipe_yaml": "encoder: mine"}, "lk-mine"),
        ({"config_json": {}, "recipe_yaml": "encoder: lk-mine/mine"}, "lk-mine"),
        ({"config_json": {}, "recipe_yaml": "encoder: not-installed"}, "lk-dense"),
        ({"config_json": {}, "recipe_yaml": "encoder: lk_mine:Enc"}, "lk-dense"),
        ({"config_json": {}, "recipe_yaml": "loss: cosent"}, "lk-dense"),
        ({"config_json": {}, "recipe_yaml": "- 1"}, "lk-dense"),
    ],
)  # fmt: skip
def test_the_folder_says_which_encoder_reads_it(model, files, encoder) -> None:
    folder = model(**files)
    assert load(folder) == (encoder, folder)
    assert load(str(folder)) == (encoder, folder)


def test_an_encoder_that_only_the_recipe_knows_is_warned_of(model, caplog) -> None:
    assert load(model(config_json={}, recipe_yaml="encoder: mime"))[0] == "lk-dense"
    (message,) = caplog.messages
    assert message.startswith("The model's configuration decides which encoder reads it, not its recipe ")
    assert message.endswith("recipe.yaml: no encoder is named 'mime'. Fix: did you mean 'mine'?")


def test_an_encoder_of_no_plugin_is_named(model) -> None:
    with pytest.raises(NotFoundError, match="no encoder is named 'not-installed'"):
        load(model(config_json={"losskit_encoder": "not-installed"}))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected a model folder, with one of config_sentence_transformers.json"),
        ({"config_json": "{"}, "config.json: expected JSON"),
        ({"config_json": "[]"}, "config.json: expected a JSON object, got list"),
        ({"modules_json": {}}, "modules.json: expected a JSON list, got dict"),
        (
            {"config_sentence_transformers_json": {"model_type": "Other"}},
            "one of SentenceTransformer.*'Other'",
        ),
        ({"config_json": {"losskit_encoder": "lk_mine:Enc"}}, "expected the name of a registered encoder, got 'lk_mi"),
        ({"config_sentence_transformers_json": {"model_type": ["SparseEncoder"]}}, r"one of .*got \['SparseEncoder'\]"),
        ({"config_json": {"architectures": 5}}, "architectures in .*config.json: expected a list, got 5"),
        ({"config_json": {"losskit_encoder": 1}}, "config.json: expected the name of a registered encoder, got 1"),
        ({"config_json": {}, "recipe_yaml": "a: [\n"}, "recipe.yaml: expected YAML"),
    ],
)
def test_what_is_no_model_is_refused_with_the_file(model, files, said) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load(model(**files))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="got no folder of that name"):
        load(tmp_path / "gone")


def test_an_encoder_that_does_not_load_is_a_plugin_error(model, site) -> None:
    source = "from losskit import Card\nclass Enc:\n    card = Card()\n1 / 0\n"
    site.add("lk-bad", points={"encoders": {"bad": "lk_bad:Enc"}}, modules={"lk_bad.py": source})
    registry.refresh()
    with pytest.raises(PluginError, match="lk-bad"):
        load(model(config_json={}, recipe_yaml="encoder: bad"))
