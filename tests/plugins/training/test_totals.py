"""Loss and time of a whole training are those of all its parts."""

import json
from types import SimpleNamespace

import pytest
import torch

from losskit_plugins.training import totals
from losskit_plugins.training.totals import Totals


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(totals, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def train(made, clock, losses, state):
    made.on_train_begin(None, state, None)
    for loss in losses:
        clock.seconds += 2.0
        made.add(torch.tensor(loss))
        made.on_step_end(None, state, None)
        state.global_step += 1
    made.read()


def test_a_resumed_training_counts_on_from_its_checkpoint(clock):
    first = Totals()
    train(first, clock, [4.0, 2.0], SimpleNamespace(global_step=0, stateful_callbacks={"Totals": first.state()}))
    kept = json.loads(json.dumps({"Totals": first.state()}))
    train(first, clock, [], SimpleNamespace(global_step=2, stateful_callbacks=kept))
    clock.seconds += 50.0  # between the parts
    second = Totals()
    train(second, clock, [1.0, 1.0], SimpleNamespace(global_step=2, stateful_callbacks=kept))
    second.on_train_end(None, None, None)
    clock.seconds += 50.0
    assert (second.steps, second.mean_loss, second.seconds) == (4, 2.0, 8.0)


def test_a_second_training_of_one_trainer_counts_anew(clock):
    made = Totals()
    for loss in (3.0, 5.0):
        train(made, clock, [loss], SimpleNamespace(global_step=0, stateful_callbacks={"Totals": made.state()}))
        assert (made.steps, made.mean_loss, made.seconds) == (1, loss, 2.0)


def test_a_checkpoint_without_totals_counts_from_there_on(clock):
    made, state = Totals(), SimpleNamespace(global_step=7, stateful_callbacks={})
    train(made, clock, [3.0], state)
    assert (made.steps, made.mean_loss, made.seconds) == (1, 3.0, 2.0)
    assert "Totals" in state.stateful_callbacks  # transformers writes only what is there
