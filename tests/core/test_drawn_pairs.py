"""Which pairs a cross-encoder scores: drawn from seed and texts, before anything is encoded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from losskit import Card, Format, Loss, LossError, Output, Wrapper, build
from losskit.batch import preprocess
from losskit.clock import Clock
from losskit.testing import ToyEncoder


class OneOf(Loss):
    """The mean score of each query with one document, which is drawn among all."""

    card = Card(formats=[Format(["query", "positive"])], encoders=["cross-encoder"], stochastic=True)

    def draw(self, generator: torch.Generator, sizes: Any) -> Tensor:
        return torch.randint(1000, (sizes[0], len(sizes)), generator=generator)

    def pairs(self, columns: Any, drawn: Any = None) -> Any:
        queries, documents = columns
        assert drawn.shape == (len(queries), 2)
        chosen = [documents[number % len(queries)] for number, _ in drawn.tolist()]
        return list(zip(queries, chosen, strict=True)), (1,) * len(queries)

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        return columns[0][rows].embedding.mean()


class Twice(Wrapper):
    """Two times a loss."""

    def compute(self, columns: Any, labels: Tensor | None, rows: slice) -> Tensor:
        return 2 * self.loss.compute(columns, labels, rows)


TEXTS = [[f"query {row}" for row in range(8)], [f"text {row}" for row in range(8)]]


def test_pairs_follow_seed_texts_and_place_in_the_tree() -> None:
    toy = ToyEncoder("cross-encoder", seed=0)
    loss = OneOf(toy)
    first = loss.drawn_pairs(TEXTS)
    for step in (0, 3):
        loss.set_clock(Clock(step=step))
        assert loss.drawn_pairs([tuple(column) for column in TEXTS]) == first
    wrapped = Twice(toy, OneOf(toy)).drawn_pairs(TEXTS)
    assert [query for query, _ in wrapped[0]] == TEXTS[0]
    loss.set_clock(Clock(seed=1))
    others = [wrapped, loss.drawn_pairs(TEXTS), loss.drawn_pairs([TEXTS[0], [*TEXTS[1][:-1], "another"]])]
    assert all(each != first for each in others)


def test_what_was_drawn_before_stays() -> None:
    class Failing(OneOf):
        def pairs(self, columns: Any, drawn: Any = None) -> Any:
            raise LossError("these texts")

    for loss in (OneOf(ToyEncoder("cross-encoder")), Failing(ToyEncoder("cross-encoder"))):
        loss.drawn = "before"
        state = torch.get_rng_state()
        if isinstance(loss, Failing):
            with pytest.raises(LossError, match="these texts"):
                loss.drawn_pairs(TEXTS)
        else:
            loss.drawn_pairs(TEXTS)
        assert loss.drawn == "before"
        assert torch.equal(torch.get_rng_state(), state)


def test_raw_texts_and_features_hold_the_same_pairs() -> None:
    toy = ToyEncoder("cross-encoder", seed=0)
    loss = Twice(toy, OneOf(toy))
    pairs, lists = loss.drawn_pairs(TEXTS)
    expected = 2 * toy(toy.preprocess(pairs)).embedding.mean()
    for given in (TEXTS, preprocess(loss, TEXTS, inputs=("query", "positive"))):
        torch.testing.assert_close(loss(given), expected)
    assert lists == (1,) * 8
    assert loss.compute([Output(torch.ones(2))], None, slice(0, 2)) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([["a", "b"], ["p"]], r"the batch for .*Loss: expected as many rows in every column, got \[2, 1\]"),
        ([["a", "b"]], "expected (two columns or more|columns .anchor, positive, negative..), got 1"),
    ],
)
@pytest.mark.parametrize("name", ["cross-multiple-negatives-ranking", "list-net"])
def test_columns_that_make_no_pairs(name, columns, message):
    with pytest.raises(LossError, match=message):
        build(name).drawn_pairs(columns)
