"""GradCache over the logits of pairs, for every registered loss that takes a cross-encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from matrix import LOSSES, SETTINGS

import losskit
from losskit import Direct, GradCache, Output
from losskit.features import unload
from losskit.testing import ToyEncoder, differentiate, random_batch, require_equal

FORMATS = {
    f"{name} {'-'.join(form.inputs)} {form.labels}": (name, form)
    for name in LOSSES
    if "cross-encoder" in (card := losskit.get("loss", name).card).encoders
    for form in card.formats
}
SIZE = 4


@pytest.fixture(params=FORMATS)
def case(request):
    """The name of a loss, and data for it."""
    return FORMATS[request.param]


def built(name, form, *, dropout=0.3, width=8, execution=None):
    outputs = 3 if form.outputs == "classes" else 1
    toy = ToyEncoder("cross-encoder", width, dropout, outputs, seed=0)
    return losskit.build({"name": name, **SETTINGS.get(name, {})}, toy, execution=execution)


def batch_of(form, rows=7):
    return random_batch(form, rows=rows, negatives=2)


def by_mini_batches(loss, features, labels):
    """The loss by hand: the pairs in forwards of `SIZE`, padded to the longest of each, in one graph."""
    tokens, riders = unload(features[0])
    scores = []
    for start in range(0, len(tokens["input_ids"]), SIZE):
        longest = int(tokens["attention_mask"][start : start + SIZE].sum(1).max())
        part = {key: value[start : start + SIZE, :longest] for key, value in tokens.items()}
        scores.append(loss.encoder(part).embedding)
    column = Output(torch.cat(scores), lists=riders.lists)
    loss.drawn = None
    return loss.compute([column], labels, slice(0, column.tuples))


def test_equals_an_ordinary_backward_with_dropout(case):
    batch, results = batch_of(case[1]), []
    for execution in (None, GradCache(mini_batch_size=SIZE)):
        loss = built(*case, execution=execution)
        features, labels = batch.features(loss), batch.flat_labels
        assert len(features[0]["input_ids"]) > SIZE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            value = by_mini_batches(loss, features, labels) if execution is None else loss(features, labels)
            torch.rand(3)  # the replay brings its own random state
            results.append(differentiate(value, list(loss.parameters())))
    assert any(bool(gradient.any()) for gradient in results[0].gradients)
    require_equal(case[0], *results)


def test_equals_direct_from_raw_texts(case):
    batch, results = batch_of(case[1]), []
    for execution in (Direct(), GradCache(mini_batch_size=SIZE), GradCache(mini_batch_tokens=30)):
        loss = built(*case, dropout=0.0, execution=execution)
        results.append(differentiate(loss(batch.columns, batch.labels), list(loss.parameters())))
    for got in results[1:]:
        require_equal(case[0], results[0], got)


@contextmanager
def counted_activations(module: torch.nn.Module) -> Iterator[list[int]]:
    """Bytes that graphs hold for their backwards: [now, at most]. Parameters, which are there anyway, do not count."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    held = [0, 0]

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            held[0] += tensor.nbytes
            held[1] = max(held)

        def __del__(self) -> None:
            held[0] -= self.tensor.nbytes

    def pack(tensor: torch.Tensor) -> object:
        return tensor if tensor.untyped_storage().data_ptr() in parameters else Held(tensor)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each.tensor if isinstance(each, Held) else each):
        yield held


def most_held(case, execution, copies):
    """The most bytes held in a training forward and backward of so many copies of a batch."""
    name, form = case
    loss = built(name, form, width=64, execution=execution)
    batch = batch_of(form)
    batch = batch.take(list(range(batch.rows)) * copies)
    with counted_activations(loss) as held:
        value = loss(batch.features(loss), batch.flat_labels)
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        del value
    assert held[0] == 0
    return held[1]


def test_activations_of_one_mini_batch_are_held_at_a_time(case):
    direct, cached = (
        [most_held(case, execution, copies) for copies in (1, 8)]
        for execution in (Direct(), GradCache(mini_batch_size=SIZE))
    )
    assert direct[1] > 6 * direct[0]
    assert cached[1] < 1.25 * cached[0]
    assert cached[1] < direct[1] / 5
