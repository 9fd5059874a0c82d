"""What a model is seen as where plugins of strangers are asked too."""

from __future__ import annotations

import pytest
from torch import nn

from losskit import LossError, registry
from losskit.adapt import DictEncoder, _warn, view

ENCODER = """
from losskit import Card

class Mine:
    card = Card(encoders=["dense"])

    @classmethod
    def adapt(cls, model): {body}
"""


def add(site, distribution: str, body: str) -> None:
    module = distribution.replace("-", "_")
    source = ENCODER.format(body=body)
    site.add(distribution, points={"encoders": {distribution: f"{module}:Mine"}}, modules={f"{module}.py": source})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("return model.absent", "AttributeError: 'Linear' object has no attribute 'absent'"),
    ],
    ids=["raises", "exits", "interrupts", "expects"],
)
def test_an_adapter_that_fails_hinders_no_other_and_is_said_once(site, caplog, body, said) -> None:
    _warn.cache_clear()
    add(site, "lk-a", body)
    add(site, "lk-b", "return 'adopted' if model.out_features == 2 else None")
    registry.refresh()
    assert view(nn.Linear(1, 2)) == view(nn.Linear(1, 2)) == "adopted"
    assert isinstance(view(nn.Linear(1, 1)), DictEncoder)
    assert caplog.messages == [f"lk-a==1.0 lk_a:Mine: adapt raises {said}"]


def test_what_losskit_itself_refuses_is_raised(site, monkeypatch) -> None:
    def refuse(model: object) -> None:
        raise LossError("model")

    monkeypatch.setattr(registry.get("encoder", "dense").load(), "adapt", refuse)
    with pytest.raises(LossError):
        view(nn.Identity())
