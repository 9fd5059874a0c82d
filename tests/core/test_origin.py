from __future__ import annotations

import json
import re

import pytest

from losskit import ModelError, PluginError, load, registry
from losskit.origin import read_origins

ENCODER = """
from losskit import Card

class Enc:
    card = Card()

    @classmethod
    def load(cls, path):
        return "lk-enc"
"""


def install(site, distribution: str = "lk-enc", version: str = "1.0", name: str = "mine") -> None:
    module = distribution.replace("-", "_")
    points = {"encoders": {name: f"{module}:Enc"}}
    site.add(distribution, version, points=points, modules={f"{module}.py": ENCODER})
    registry.refresh()


def record(**changes: str) -> dict[str, str]:
    origin = {"kind": "encoder", "name": "mine", "distribution": "lk-enc", "version": "1.0", "sha256": "ab" * 32}
    return {**origin, "target": "lk_enc:Enc", "file": "lk_enc.py", **changes}


@pytest.fixture
def model(tmp_path):
    """A function that writes a model folder which was trained with such components."""

    def write(*components: object, text: str = ""):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "provenance.json").write_text(text or json.dumps({"components": components}))
        return folder

    return write


def test_a_model_is_read_by_the_encoder_that_it_was_trained_with(site, model, caplog) -> None:
    install(site)
    install(site, "lk-other")
    saved = registry.get("encoder", "lk-enc/mine").provenance()
    assert load(model(record(sha256=saved["sha256"]))) == "lk-enc"
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "0.9"}, "with the encoder 'mine' of lk-enc 0.9; installed is lk-enc 1.0"),
        ({}, "'mine' of lk-enc 1.0; .*lk_enc.py has changed since, from SHA-256 abababababab to [0-9a-f]{12}$"),
    ],
    ids=["version", "source"],
)
def test_what_is_not_as_it_was_is_warned_of_once(site, model, caplog, changes, said) -> None:
    install(site)
    folder = model(record(**changes))
    assert load(folder) == "lk-enc"
    (message,) = caplog.messages
    assert re.search(said, message)


def test_refuses_a_missing_encoder_with_distribution_version_and_what_to_install(site, model) -> None:
    with pytest.raises(PluginError) as caught:
        load(folder := model(record()))
    assert str(caught.value) == (
        f"{folder} was trained with the encoder 'mine' of lk-enc 1.0: expected lk-enc to be installed, "
        "got no distribution of that name. Fix: pip install 'lk-enc==1.0'"
    )
    assert caught.value.exit_code == 3


def test_refuses_another_distributions_component_of_that_name(site, model) -> None:
    install(site, "lk-other")
    with pytest.raises(PluginError, match="got no distribution of that name, and another 'mine' of lk-other"):
        load(model(record()))


def test_refuses_a_version_that_no_longer_has_the_component(site, model) -> None:
    install(site, version="2.0", name="renamed")
    with pytest.raises(PluginError, match=r"got 2.0, which has no 'mine'. Fix: pip install 'lk-enc==1.0'"):
        load(model(record()))


def test_refuses_a_blocked_encoder(site, model, monkeypatch) -> None:
    monkeypatch.setenv("LOSSKIT_PLUGINS_BLOCK", "lk-enc")
    install(site)
    with pytest.raises(PluginError, match="blocked: lk-enc is blocked by the environment"):
        load(model(record(version="")))
    assert not site.imported


def test_only_the_trained_encoder_hinders_loading(site, model) -> None:
    builtin = record(name="dense", distribution="losskit")
    folder = model(builtin, record(kind="loss", name="gone"), record(name="guide"), record(distribution=""))
    assert [origin.name for origin in read_origins(folder)] == ["gone", "guide"]
    with pytest.raises(ModelError) as caught:  # of the built-in encoder, for the folder is empty
        load(folder)
    assert "lk-enc" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1.0'; echo"},
        {"version": "\u0661.0"},
        {"distribution": "lk\x1b[31m"},
        {"distribution": "-r"},
        {"name": "../x"},
        {"kind": "thing"},
        {"sha256": "no"},
        {"version": 1},
    ],
    ids=str,
)
def test_refuses_provenance_that_losskit_cannot_have_written(model, changes) -> None:
    with pytest.raises(
        ModelError, match=r"provenance\.json: expected what losskit writes of a training, got"
    ) as caught:
        load(model(record(**changes)))
    assert str(caught.value).isprintable()


def test_refuses_another_component_in_the_place_of_the_encoder(site, model) -> None:
    site.add_loss("lk-enc", name="mine")
    with pytest.raises(ModelError, match=r"provenance\.json: expected the trained encoder first, got a loss$"):
        load(model(record(kind="loss")))
    assert not site.imported


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"components": [1]}', '{"components": [{}]}', '{"components": 7}'])
def test_refuses_provenance_of_another_shape(model, text) -> None:
    with pytest.raises(ModelError, match=r"provenance\.json"):
        load(model(text=text))
