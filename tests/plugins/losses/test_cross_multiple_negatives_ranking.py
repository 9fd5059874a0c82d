"""Multiple negatives ranking by scores of pairs: the laws, the formula in loops, and what is drawn."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch

from losskit import LossError, Output
from losskit.clock import Clock
from losskit.testing import ToyEncoder, differentiate, laws, require_equal, subjects
from losskit_plugins.losses._drawn_negatives import draw_places, draw_texts
from losskit_plugins.losses.cross_multiple_negatives_ranking import CrossMultipleNegativesRankingLoss

EMBEDDING = ["dense", "sparse"]
ALL = partial(CrossMultipleNegativesRankingLoss, num_negatives=None)
SUBJECTS = [
    *subjects(CrossMultipleNegativesRankingLoss, families=["dense", "cross-encoder"], weights=True),
    *subjects(partial(CrossMultipleNegativesRankingLoss, num_negatives=3), families=EMBEDDING, negatives=2),
    *subjects(partial(CrossMultipleNegativesRankingLoss, num_negatives=3), families=["cross-encoder"], negatives=2),
    *subjects(partial(CrossMultipleNegativesRankingLoss, num_negatives=0), families=["dense", "cross-encoder"]),
    *subjects(ALL, families=[*EMBEDDING, "cross-encoder"]),
    *subjects(partial(ALL, activation="identity", similarity="dot"), families=["dense"], negatives=0),
]
ROWS = 5


@pytest.mark.parametrize("law", laws("loss"), ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=[f"{place}-{subject}" for place, subject in enumerate(SUBJECTS)])
def test_laws(subject, law):
    result = law(subject)
    assert result.fine, result


def by_loops(scores, counts, scale, activation=torch.sigmoid):
    """The mean of -log of the positive's probability over lists of logits, the positive first."""
    total = torch.zeros((), dtype=torch.float64)
    for own in scores.split(list(counts)):
        scaled = [scale * activation(score) for score in own]
        total = total - (scaled[0].exp() / sum(score.exp() for score in scaled)).log()
    return total / len(counts)


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh"])
def test_equals_the_formula_in_loops_on_a_cross_encoder(activation):
    counts = (3, 1, 4)
    scores = torch.randn(sum(counts), dtype=torch.float64, requires_grad=True)
    loss = CrossMultipleNegativesRankingLoss(scale=3.0, activation=activation)
    got = loss.compute([Output(scores, lists=counts)], None, slice(0, 3))
    function = {"identity": lambda score: score, "sigmoid": torch.sigmoid, "tanh": torch.tanh}[activation]
    expected = by_loops(scores, counts, 3.0, function)
    require_equal("loops", differentiate(expected, [scores]), differentiate(got, [scores]))


def numbered(columns, rows=ROWS):
    """Texts that say where they stand: column 1, row 0 is "1-0"."""
    return [[f"{column}-{row}" for row in range(rows)] for column in range(columns)]


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 100, None])
def test_an_encoder_that_embeds_scores_the_drawn_documents(count, negatives):
    torch.manual_seed(0)
    columns = [torch.randn(ROWS, 4, dtype=torch.float64, requires_grad=True) for _ in range(2 + negatives)]
    loss = CrossMultipleNegativesRankingLoss(num_negatives=count)
    got = differentiate(loss.compute_loss_from_embeddings(columns), columns)
    anchors, *documents = columns
    documents, size = torch.cat(documents), ROWS * (1 + negatives)
    scores = []
    for row, anchor in enumerate(anchors):
        own = [row + ROWS * place for place in range(1 + negatives)]
        left = [place for place in range(size) if place not in own]
        numbers = [] if loss.drawn is None else loss.drawn[row].tolist()
        others = left if loss.drawn is None else [left.pop(int(number * len(left))) for number in numbers]
        scores += [cosine(anchor, documents[place]) for place in (*own, *others)]
    counts = [len(scores) // ROWS] * ROWS
    assert counts[0] == 1 + negatives + min(size - 1 - negatives, size if count is None else count)
    expected = by_loops(torch.stack(scores), counts, 10.0)
    require_equal("loops", differentiate(expected, columns), got)


@pytest.mark.parametrize("columns", [2, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 1000, None])
def test_negatives_are_drawn_from_other_rows_and_none_twice(count, columns):
    texts = numbered(columns)
    loss = CrossMultipleNegativesRankingLoss(ToyEncoder("cross-encoder"), num_negatives=count)
    pairs, lists = loss.drawn_pairs(texts)
    others = (ROWS - 1) * (columns - 1)
    assert lists == (columns - 1 + min(others, 1000 if count is None else count),) * ROWS
    rest = iter(pairs)
    for row, size in enumerate(lists):
        own = [next(rest) for _ in range(size)]
        assert [anchor for anchor, _ in own] == [f"0-{row}"] * size
        documents = [document for _, document in own]
        assert documents[: columns - 1] == [column[row] for column in texts[1:]]
        assert len(set(documents)) == size
        assert not any(document.endswith(f"-{row}") for document in documents[columns - 1 :])


def test_every_text_of_other_rows_is_as_likely():
    texts, found = numbered(3), Counter()
    loss = CrossMultipleNegativesRankingLoss(ToyEncoder("cross-encoder"), num_negatives=3)
    repeats = 2000
    for seed in range(repeats):
        loss.set_clock(Clock(seed=seed))
        pairs, _ = loss.drawn_pairs(texts)
        found.update(document for anchor, document in pairs if anchor == "0-2")
    assert found.pop("1-2") == found.pop("2-2") == repeats
    share = repeats * 3 / 8  # of 8 texts; the deviation of a binomial count is 22
    assert len(found) == 8
    assert all(abs(count - share) < 5 * 22 for count in found.values())


def test_places_are_drawn_as_popping_from_a_list_does():
    numbers = torch.rand(50, 6, dtype=torch.float64)
    taken = torch.tensor([[row % 5, 5 + row % 3, 9] for row in range(50)])  # 9 stands for none
    expected = []
    for row, own in zip(numbers.tolist(), taken.tolist(), strict=True):
        left = [place for place in range(9) if place not in own]
        expected.append([left.pop(int(number * len(left))) for number in row])
    assert draw_places(numbers, 9, taken).tolist() == expected


def test_the_texts_of_an_anchor_are_no_negatives_of_its_own_wherever_they_stand():
    columns = [["a", "b", "c", "a"], ["p", "q", "p", "r"], ["n", "o", "o", "q"]]
    # "a" has the positives p and r; every copy of them, and of its row's negative, is left out
    expected = [["q", "o", "o", "q"], ["p", "p", "r", "n"], ["q", "r", "n", "q"], ["n", "o", "o"]]
    assert draw_texts(columns, None) == expected
    for seed in range(20):
        numbers = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
        for drawn, allowed in zip(draw_texts(columns, numbers), expected, strict=True):
            assert len(drawn) == 3
            assert Counter(drawn) <= Counter(allowed)


def test_fewer_are_drawn_where_fewer_are_left():
    columns = [["a", "a", "b"], ["p", "q", "r"]]
    assert [sorted(row) for row in draw_texts(columns, torch.rand(3, 2))] == [["r"], ["r"], ["p", "q"]]


def test_draws_follow_seed_and_texts_alone():
    loss = CrossMultipleNegativesRankingLoss(ToyEncoder("cross-encoder"), num_negatives=2)
    first = loss.drawn_pairs(numbered(2))
    loss.set_clock(Clock(step=3, progress=0.5))
    state = torch.get_rng_state()
    assert loss.drawn_pairs([tuple(column) for column in numbered(2)]) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert loss.drawn is None
    assert loss.drawn_pairs([column[::-1] for column in numbered(2)]) != first
    loss.set_clock(Clock(seed=1))
    assert loss.drawn_pairs(numbered(2)) != first


def test_raw_texts_give_what_features_give():
    toy = ToyEncoder("cross-encoder")
    loss = CrossMultipleNegativesRankingLoss(toy, num_negatives=2)
    pairs, lists = loss.drawn_pairs(numbered(3))
    expected = by_loops(toy(toy.preprocess(pairs)).embedding, lists, 10.0)
    torch.testing.assert_close(loss(numbered(3)), expected)
    torch.testing.assert_close(loss([toy.preprocess(pairs) | {"lists": lists}]), expected)


def test_sample_weights_weigh_lists():
    scores = torch.randn(7, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0])
    record = Output(scores, parts={"weight": weights}, lists=(3, 4))
    each = [by_loops(part, [len(part)], 10.0) for part in scores.split([3, 4])]
    got = CrossMultipleNegativesRankingLoss().compute([record], None, slice(0, 2))
    torch.testing.assert_close(got, (0.5 * each[0] + 2 * each[1]) / 2)


@pytest.mark.parametrize(("rows", "columns", "count"), [(1, 2, 4), (3, 2, 0)])
def test_a_positive_alone_teaches_nothing(rows, columns, count):
    loss = CrossMultipleNegativesRankingLoss(num_negatives=count)
    embeddings = [torch.randn(rows, 4, requires_grad=True) for _ in range(columns)]
    value = loss.compute_loss_from_embeddings(embeddings)
    value.backward()
    assert value == 0
    assert not any(embedding.grad.any() for embedding in embeddings)
    loss.strict = True
    with pytest.raises(LossError, match="teaches nothing: rows without negatives have nothing to be told from"):
        loss.compute_loss_from_embeddings(embeddings)


@pytest.mark.parametrize("count", [-1, 2.0, True, "all"])
def test_refuses_numbers_of_negatives_that_are_none(count):
    with pytest.raises(LossError, match=r"num_negatives: expected an integer from 0, or None for all, got "):
        CrossMultipleNegativesRankingLoss(num_negatives=count)


def test_refuses_what_does_not_fit():
    toy = ToyEncoder("cross-encoder")
    with pytest.raises(LossError, match="similarity: expected None with a cross-encoder"):
        CrossMultipleNegativesRankingLoss(toy, similarity="dot")
    with pytest.raises(LossError, match=r"RankingLoss\.scale: expected a positive number, got 0"):
        CrossMultipleNegativesRankingLoss(scale=0)
    with pytest.raises(LossError, match="expected one score per pair, got 2 per pair"):
        CrossMultipleNegativesRankingLoss(ToyEncoder("cross-encoder", outputs=2))(numbered(2))
    with pytest.raises(LossError, match="expected one text per row in each column, got a list of texts"):
        CrossMultipleNegativesRankingLoss(toy)([["q"], ["a"], [["b", "c"]]])
    with pytest.raises(LossError, match=r"expected columns \(anchor, positive, negative\*\), got 1 column"):
        CrossMultipleNegativesRankingLoss(toy)([["q", "r"]])
    with pytest.raises(LossError, match="expected none, for it learns from the columns alone"):
        CrossMultipleNegativesRankingLoss(toy)(numbered(2), torch.zeros(ROWS))


def test_draws_are_made_where_the_generator_is():
    """A default device that is another than the generator's would be refused."""
    generator = torch.Generator().manual_seed(0)
    loss = CrossMultipleNegativesRankingLoss(ToyEncoder())
    expected = loss.draw(generator, (6, 6, 6))
    with torch.device("meta"):
        again = loss.draw(generator.manual_seed(0), (6, 6, 6))
    assert torch.equal(expected, again)
