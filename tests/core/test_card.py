from __future__ import annotations

import pytest

from losskit.card import Card, CardError, Format, split_input


@pytest.mark.parametrize(
    ("inputs", "arity"),
    [
        (["text"], (1, 1)),
        (["anchor", "positive", "negative*"], (2, None)),
        (["anchor", "positive+"], (2, None)),
        (["query", "positive", "negative?"], (2, 3)),
    ],
)
def test_arity_follows_from_the_suffixes(inputs, arity) -> None:
    assert Format(inputs).arity == arity
    assert Format(inputs).inputs == tuple(inputs)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"inputs": []}, "Format.inputs: expected at least one column"),
        ({"inputs": "text"}, "inputs: expected a list of strings, got 'text'"),
        ({"inputs": ["ancor"]}, "Format.inputs: expected names among anchor, .* got 'ancor'"),
        ({"inputs": ["negative*", "anchor"]}, r"expected 'negative\*' last, got position 1"),
        ({"inputs": ["text"], "labels": "scored"}, "Format.labels: expected one of none, .* got 'scored'"),
        ({"inputs": ["text"], "outputs": 0}, "Format.outputs: expected a positive integer"),
        ({"inputs": ["text"], "outputs": True}, "Format.outputs"),
        ({"inputs": ["text"], "outputs": "many"}, "Format.outputs"),
    ],
)
def test_formats_that_cannot_be_are_refused(values, said) -> None:
    with pytest.raises(CardError, match=said):
        Format(**values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"formats": "text"}, r"Card.formats: expected a list of Format\(...\)"),
        ({"formats": [["text"]]}, "Card.formats"),
        ({"formats": 3}, "Card.formats"),
        ({"encoders": ["dens"]}, "Card.encoders: expected one of dense, sparse"),
        ({"encoders": "dense"}, "encoders: expected a list of strings"),
        ({"row_wise": 1}, "Card.row_wise: expected True or False, got 1"),
        ({"formula": 1}, "Card.formula: expected a string"),
        ({"reads": ["model"]}, "Card.reads: expected a dict"),
    ],
)
def test_cards_that_cannot_be_are_refused(values, said) -> None:
    with pytest.raises(CardError, match=said):
        Card(**values)


def test_a_card_as_plain_values() -> None:
    card = Card(formats=[Format(["text", "text"], labels="score", outputs=1)], encoders=["dense"], aliases=["old"])
    record = card.to_dict()
    assert record["formats"] == [{"inputs": ["text", "text"], "labels": "score", "outputs": 1}]
    assert (record["encoders"], record["aliases"], record["row_wise"], record["reads"]) == (
        ["dense"],
        ["old"],
        True,
        None,
    )


def test_split_input() -> None:
    assert [split_input(text) for text in ("negative*", "positive+", "text?", "text", "")] == [
        ("negative", "*"), ("positive", "+"), ("text", "?"), ("text", ""), ("", ""),
    ]  # fmt: skip
