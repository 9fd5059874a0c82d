"""Rows become features and labels; wrong values are named."""

import pickle

import pytest
import torch

import losskit
from losskit import Format, Loss
from losskit.errors import DataError, LossError
from losskit.testing import ToyEncoder
from losskit_plugins.data.collator import Collator
from losskit_plugins.data.columns import match


class WordEncoder:
    """Each text as the number of its characters; remembers roles and prompts."""

    def __init__(self, family="dense"):
        self.family = family

    def preprocess(self, texts, *, role="text", prompt=None):
        return {"input_ids": torch.tensor([[len(str(text))] for text in texts]), "role": role, "prompt": prompt}


class AnyLoss(Loss):
    """Takes what it is told; its encoder needs no model."""

    def __init__(self, taken, family="dense"):
        super().__init__()
        self._formats, self._encoder = taken, WordEncoder(family)

    @property
    def formats(self):
        return self._formats

    @property
    def encoder(self):
        return self._encoder


def collator(inputs, labels="none", mapping=None, rows=(), family="dense", **kwargs):
    formats = (Format(inputs, labels),)
    matched = match(list(rows[0]), formats, mapping, where="f.jsonl", sample=rows[:1])
    return Collator(AnyLoss(formats, family), matched, **kwargs)


def test_columns_in_the_order_of_the_card_with_roles_and_prompts():
    rows = [{"p": "dd", "a": "q", "id": 1}, {"p": "ddd", "a": "", "id": 2}]
    made = collator(
        ["anchor", "positive"], mapping={"anchor": "a", "positive": "p"}, rows=rows, prompts={"query": "ask: "}
    )(rows)
    anchors, positives = made["inputs"]
    assert anchors["input_ids"].tolist() == [[1], [0]]
    assert (anchors["role"], anchors["prompt"]) == ("query", "ask: ")
    assert positives["input_ids"].tolist() == [[2], [3]]
    assert (positives["role"], positives["prompt"]) == ("document", None)
    assert made["labels"] is None


def test_without_a_match_columns_are_found_by_their_own_names():
    rows = [{"positive": "b", "anchor": "aa"}]
    made = Collator(AnyLoss((Format(["anchor", "positive", "negative*"]),)))(rows)
    assert [features["input_ids"].tolist() for features in made["inputs"]] == [[[2]], [[1]]]
    with pytest.raises(DataError, match="expected anchor, positive for AnyLoss, got x"):
        Collator(AnyLoss((Format(["anchor", "positive"]),)))([{"x": "a"}])


def test_lists_are_flattened_with_their_labels():
    rows = [
        {"query": "q", "documents": ["a", "bb"], "scores": [1, 0]},
        {"query": "r", "documents": ["c"], "scores": [2]},
    ]
    made = collator(["query", "documents"], "scores", rows=rows)(rows)
    assert made["inputs"][1]["lists"] == (2, 1)
    assert made["inputs"][1]["input_ids"].tolist() == [[1], [2], [1]]
    assert made["labels"].tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("name", ["distill-kl-div", "list-net"])
def test_a_document_of_minus_infinity_has_the_probability_0(name):
    rows = [{"query": "q", "documents": ["a", "bb"], "scores": [1, -torch.inf]} for _ in range(2)]
    loss = losskit.build({"name": name, "similarity": "dot"}, ToyEncoder())
    made = Collator(loss)(rows)
    assert made["labels"].tolist() == [1.0, -torch.inf] * 2
    queries, documents = (loss.encoder(dict(each, lists=None)).embedding for each in made["inputs"])
    scores = (queries.repeat_interleave(2, 0) * documents).sum(1).reshape(2, 2)
    torch.testing.assert_close(loss(made["inputs"], made["labels"]), -scores.log_softmax(1)[:, 0].mean())


def test_a_document_of_minus_infinity_has_no_margin():
    rows = [{"query": "q", "documents": ["a", "bb"], "scores": [1, -torch.inf]}]
    with pytest.raises(LossError, match="labels for MarginMSELoss: expected numbers, got infinity"):
        Collator(losskit.build("margin-mse", ToyEncoder()))(rows)


def test_several_positives_as_a_list_column():
    rows = [{"anchor": "q", "positive": ["a", "bb"]}, {"anchor": "r", "positive": ["c"]}]
    assert collator(["anchor", "positive"], rows=rows)(rows)["inputs"][1]["lists"] == (2, 1)


def test_a_cross_encoder_gets_pairs():
    rows = [{"query": "q", "documents": ["a", "b"], "scores": [1, 0]}]
    (features,) = collator(["query", "documents"], "scores", rows=rows, family="cross-encoder")(rows)["inputs"]
    assert features["lists"] == (2,)
    assert features["input_ids"].tolist() == [[len("('q', 'a')")], [len("('q', 'b')")]]


@pytest.mark.parametrize(
    ("kind", "values", "dtype", "expected"),
    [
        ("binary", [True, 0], torch.int64, [1, 0]),
        ("class", [4, 2], torch.int64, [4, 2]),
        ("score", [1, 0.5], torch.float32, [1.0, 0.5]),
        ("distribution", [[0.5, 0.5], [1, 0]], torch.float32, [[0.5, 0.5], [1.0, 0.0]]),
        ("embedding", [[1.0, 2.0], [3.0, 4.0]], torch.float32, [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_labels(kind, values, dtype, expected):
    rows = [{"text": "a", "label": value} for value in values]
    labels = collator(["text"], kind, rows=rows)(rows)["labels"]
    assert labels.dtype == dtype
    assert labels.tolist() == expected


def test_class_names_become_ids():
    rows = [{"text": "a", "label": "dog"}, {"text": "b", "label": "cat"}]
    formats = (Format(["text"], "class"),)
    matched = match(["text", "label"], formats, where="f.jsonl").with_classes(["dog", "cat"])
    collate = Collator(AnyLoss(formats), matched)
    assert collate(rows)["labels"].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"f\.jsonl, column 'label': expected one of cat, dog"):
        collate([{"text": "a", "label": "cow"}])


def test_weights_ride_along_with_the_first_column():
    rows = [{"anchor": "a", "positive": "b", "w": 0.5}, {"anchor": "c", "positive": "d", "w": 2}]
    first, second = collator(["anchor", "positive"], mapping={"weight": "w"}, rows=rows)(rows)["inputs"]
    assert first["weight"].tolist() == [0.5, 2.0]
    assert "weight" not in second


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("score", [1.0, float("nan")], "f.jsonl, row 2 of a batch, column 'label': expected a finite number, got nan"),
        ("score", [None], "f.jsonl, row 1 of a batch, column 'label': expected a finite number, got nothing"),
        (
            "class",
            ["dog"],
            "f.jsonl, column 'label': expected an integer from 0, for names of classes have no ids here",
        ),
        (
            "embedding",
            [[1.0], [1.0, 2.0]],
            "f.jsonl, column 'label': expected embedding of one length in a batch, got shapes [1] and [2]",
        ),
    ],
)
def test_wrong_values(kind, values, message):
    rows = [{"text": "a", "label": value} for value in values]
    with pytest.raises(DataError) as caught:
        collator(["text"], kind, rows=rows)(rows)
    assert str(caught.value).startswith(message)


def test_none_is_no_text_but_the_empty_string_is():
    rows = [{"text": ""}]
    assert collator(["text"], rows=rows)(rows)["inputs"][0]["input_ids"].tolist() == [[0]]
    with pytest.raises(DataError, match="row 1 of a batch, column 'text': expected a text, got nothing"):
        collator(["text"], rows=rows)([{"text": None}])


def test_it_can_be_pickled():
    rows = [{"text": "a", "label": 1}]
    again = pickle.loads(pickle.dumps(collator(["text"], "class", rows=rows)))
    assert again(rows)["labels"].tolist() == [1]
