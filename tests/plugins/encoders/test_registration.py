from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from losskit.batch import preprocess
from losskit.building import build
from losskit.errors import RecipeError
from losskit.execution import GradCache
from losskit.registry import get
from losskit.saved import load
from losskit_plugins.encoders.adapters import SentenceTransformerView
from losskit_plugins.encoders.cross_encoder import CrossEncoder
from losskit_plugins.encoders.dense import DenseEncoder
from losskit_plugins.encoders.multi_vector import MultiVectorEncoder
from losskit_plugins.encoders.static import StaticEncoder

ENCODERS = {
    "cross-encoder": CrossEncoder,
    "dense": DenseEncoder,
    "multi-vector": MultiVectorEncoder,
    "static": StaticEncoder,
}


@pytest.mark.parametrize(("name", "cls"), ENCODERS.items(), ids=list(ENCODERS))
def test_it_is_registered_with_its_card(name: str, cls: type) -> None:
    spec = get("encoder", name)
    assert (spec.status, spec.problem, spec.class_name) == ("ok", None, cls.__name__)
    assert spec.card == cls.card
    assert spec.load() is cls


def test_it_is_built_from_a_recipe_and_its_folder_opened_by_what_it_is(plain_folder, tmp_path, texts, pairs) -> None:
    dense = build({"name": "dense", "model": str(plain_folder("bert")), "pooling": "cls"}, kind="encoder")
    scorer = build({"name": "cross-encoder", "model": str(plain_folder("classifier"))}, kind="encoder")
    dense.save(tmp_path / "dense")
    scorer.save(tmp_path / "scorer")
    np.testing.assert_array_equal(load(tmp_path / "dense").encode(texts), dense.encode(texts))
    np.testing.assert_array_equal(load(tmp_path / "scorer").encode(pairs), scorer.encode(pairs))


def test_a_recipe_cannot_name_another_pooling(plain_folder) -> None:
    with pytest.raises(RecipeError, match=r"encoder\.pooling: expected 'mean', 'cls'"):
        build({"name": "dense", "model": str(plain_folder("bert")), "pooling": "avg"}, kind="encoder")


@pytest.mark.parametrize("name", ["dense", "cross-encoder", "multi-vector"])
def test_a_recipe_cannot_trust_code(name: str, plain_folder) -> None:
    with pytest.raises(RecipeError, match="trust_remote_code"):
        build({"name": name, "model": str(plain_folder("bert")), "trust_remote_code": True}, kind="encoder")


def test_losses_train_it_and_an_object_of_sentence_transformers_alike(plain_folder, texts, st) -> None:
    folder = plain_folder("bert")
    models = [DenseEncoder(folder).eval(), st.SentenceTransformer(str(folder), device="cpu").eval()]
    values, gradients = [], []
    for model in models:
        for execution in (None, GradCache(mini_batch_size=2)):
            loss = build("multiple-negatives-ranking", model, execution=execution)
            model.zero_grad()
            features = preprocess(loss, [texts[:4], texts[1:]], inputs=["anchor", "positive"])
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            value = loss(features, None)
            value.backward()
            values.append(value.item())
            gradients.append(next(model.parameters()).grad.clone().numpy())
    assert isinstance(loss.encoder, SentenceTransformerView)
    np.testing.assert_allclose(values, values[0], atol=1e-5)
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, gradients[0], atol=1e-5)
