import torch

from losskit_plugins.training.averages import Averages


def test_each_name_is_averaged_over_the_steps_it_appeared_in():
    averages = Averages()
    for step in range(4):
        averages.add({"always": torch.tensor(float(step))} | ({"once": torch.tensor(8.0)} if step == 2 else {}))
    assert averages.pop() == {"always": (0 + 1 + 2 + 3) / 4, "once": 8.0}


def test_pop_starts_afresh_and_invents_nothing():
    averages = Averages()
    averages.add({"a": torch.tensor(1.0)})
    averages.pop()
    averages.add({"b": torch.tensor(2.0)})
    assert averages.pop() == {"b": 2.0}


def test_values_are_let_go_of_their_graph():
    averages = Averages()
    averages.add({"a": torch.tensor(1.0, requires_grad=True) * 2})
    assert averages._sums["a"].grad_fn is None
