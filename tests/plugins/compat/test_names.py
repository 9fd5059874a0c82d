"""Names, constructors, settings and attributes of the incumbent's dense losses."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from torch import nn

original = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
losses = pytest.importorskip("losskit_compat.sentence_transformer.losses")

CLASSES = sorted(name for name in original.__all__ if issubclass(getattr(original, name), nn.Module))


def test_every_public_name_is_there():
    assert sorted(losses.__all__) == sorted(original.__all__)
    assert all(hasattr(losses, name) for name in losses.__all__)


def comparable(default):
    """A default in words that both libraries share: functions and modules by their names."""
    if isinstance(default, nn.Module):
        return type(default), str(default)
    for metric in ("SiameseDistanceMetric", "TripletDistanceMetric"):
        for library in (original, losses):
            for member in ("COSINE", "COSINE_DISTANCE", "EUCLIDEAN", "MANHATTAN"):
                if getattr(getattr(library, metric), member, None) is default:
                    return metric, member
    return getattr(default, "__qualname__", default)


def parameters(cls):
    return [(p.name, p.kind, comparable(p.default)) for p in inspect.signature(cls.__init__).parameters.values()]


@pytest.mark.parametrize("name", [*CLASSES, "ContrastiveTensionDataLoader"])
def test_constructors_take_the_same_arguments(name):
    assert parameters(getattr(losses, name)) == parameters(getattr(original, name))


def test_importing_loads_nothing_of_the_incumbent():
    code = """
from losskit_compat.sentence_transformer.losses import CoSENTLoss
from losskit_compat.sentence_transformer import losses
import losskit_compat.losses
import sys
assert losskit_compat.losses.CoSENTLoss is losses.CoSENTLoss is CoSENTLoss
assert not [name for name in sys.modules if name.startswith("sentence_transformers")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
