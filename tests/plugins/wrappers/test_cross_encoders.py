"""Wrappers around losses of cross-encoders: those of embeddings are refused, and so is gathering."""

from __future__ import annotations

import pytest
from matrix import LOSSES, SETTINGS

import losskit
from losskit import Direct, GradCache, LossError
from losskit.testing import ToyEncoder, random_batch

CROSS = [name for name in LOSSES if "cross-encoder" in losskit.get("loss", name).card.encoders]
OF_EMBEDDINGS = {
    "matryoshka": "MatryoshkaLoss",
    "matryoshka-2d": "MatryoshkaLoss",  # which it is made of
    "adaptive-layer": "AdaptiveLayerLoss",
}
"""Wrappers, and the class that refuses."""


def expression(name):
    return {"name": name, **SETTINGS.get(name, {})}


def cross_encoder(name):
    classes = losskit.get("loss", name).card.formats[0].outputs == "classes"
    return ToyEncoder("cross-encoder", outputs=3 if classes else 1, seed=0)


@pytest.mark.parametrize("wrapper", OF_EMBEDDINGS)
@pytest.mark.parametrize("name", CROSS)
def test_refuses_wrappers_of_embeddings_where_there_are_none(name, wrapper):
    wanted = rf"^{OF_EMBEDDINGS[wrapper]}\.model: expected an encoder that is dense.*got ToyEncoder, which is cross-enc"
    with pytest.raises(LossError, match=wanted):
        losskit.build({**expression(wrapper), "loss": expression(name)}, cross_encoder(name))


@pytest.mark.parametrize("execution", [Direct(gather=True), GradCache(gather=True)], ids=["direct", "grad-cache"])
@pytest.mark.parametrize("name", CROSS)
def test_refuses_to_gather_scores(name, execution):
    loss = losskit.build(expression(name), cross_encoder(name), execution=execution)
    batch = random_batch(loss.formats[0], negatives=2)
    with pytest.raises(LossError, match=r"execution: expected gather=False with a cross-encoder, whose pairs are form"):
        loss(batch.features(loss), batch.flat_labels)
