"""Columns are matched by name, and values checked by what the card says they are."""
# ruff: noqa: E501  tables of messages

import math

import pytest

from losskit.card import Format
from losskit.errors import DataError
from losskit.recipe import LabelColumn
from losskit_plugins.data.columns import match

PAIRS = [Format(["anchor", "positive", "negative*"])]
SCORED = [Format(["text", "text"], "score")]
LISTS = [Format(["query", "documents"], "scores"), Format(["query", "positive", "negative*"], "scores")]


def names(matched):
    return [(column.name, column.data) for column in matched.columns]


def refusal(found, formats, mapping=None, **kwargs):
    with pytest.raises(DataError) as caught:
        match(found, formats, mapping, where="f.csv", loss="L", **kwargs)
    return str(caught.value)


class TestNames:
    def test_own_names(self):
        matched = match(["positive", "id", "anchor"], PAIRS)
        assert names(matched) == [("anchor", "anchor"), ("positive", "positive")]
        assert matched.inputs == ("anchor", "positive")
        assert matched.unused == ("id",)

    def test_order_of_columns_changes_nothing(self):
        assert names(match(["b", "a"], SCORED, {"text_1": "a", "text_2": "b", "label": "b"})) == [
            ("text_1", "a"), ("text_2", "b"),
        ]  # fmt: skip

    def test_repeated_inputs_are_numbered(self):
        matched = match(["text_2", "text_1", "score"], SCORED)
        assert names(matched) == [("text_1", "text_1"), ("text_2", "text_2")]
        assert matched.label.data == "score"

    @pytest.mark.parametrize(
        ("found", "mapping", "negatives"),
        [
            (["n"], {"negative": "n"}, ["n"]),
            (["n", "m"], {"negative": ["m", "n"]}, ["m", "n"]),
            (["negative"], {}, ["negative"]),
            (["negative_2", "negative_1", "negative_4"], {}, ["negative_1", "negative_2"]),
            (["n", "m"], {"negative_2": "m", "negative_1": "n"}, ["n", "m"]),
            ([], {}, []),
        ],
    )
    def test_starred_inputs_take_a_name_a_list_or_numbers(self, found, mapping, negatives):
        matched = match(["anchor", "positive", *found], PAIRS, mapping)
        assert names(matched)[2:] == [(f"negative_{i}", name) for i, name in enumerate(negatives, start=1)]

    def test_a_column_that_is_mapped_is_not_found_under_its_own_name_too(self):
        assert "got positive, other" in refusal(["positive", "other"], PAIRS, {"anchor": "positive"})

    def test_one_column_may_be_mapped_twice(self):
        formats = [Format(["text", "text"])]
        assert names(match(["s"], formats, {"text_1": "s", "text_2": "s"})) == [("text_1", "s"), ("text_2", "s")]

    def test_the_format_that_uses_most_columns_is_taken(self):
        formats = [Format(["anchor", "positive"]), Format(["anchor", "positive", "negative"]), Format(["anchor"])]
        assert match(["anchor", "positive", "negative"], formats).format is formats[1]

    def test_optional_inputs(self):
        formats = [Format(["anchor", "positive?"])]
        assert len(match(["anchor"], formats).columns) == 1
        assert len(match(["anchor", "positive"], formats).columns) == 2

    @pytest.mark.parametrize("name", ["label", "labels", "score", "scores"])
    def test_usual_names_of_labels(self, name):
        assert match(["text_1", "text_2", name], SCORED).label.data == name

    def test_labels_that_a_loss_does_not_take_are_unused(self):
        assert match(["anchor", "positive", "label"], PAIRS).unused == ("label",)

    def test_weights_are_used_only_if_named(self):
        assert match(["anchor", "positive", "weight"], PAIRS).unused == ("weight",)
        matched = match(["anchor", "positive", "w"], PAIRS, {"weight": "w"})
        assert (matched.weight, matched.unused, matched.used) == ("w", (), ("anchor", "positive", "w"))

    def test_a_sample_tells_lists_of_texts_and_kinds_of_labels_apart(self):
        formats = [Format(["text"], "score"), Format(["text"], "class")]
        assert match(["text", "label"], formats, sample=[{"text": "a", "label": "card"}]).format is formats[1]
        several = [{"anchor": "a", "positive": ["b", "c"]}]
        assert [column.many for column in match(["anchor", "positive"], PAIRS, sample=several).columns] == [False, True]

    def test_summary(self):
        matched = match(["a", "b", "s", "id"], SCORED, {"text_1": "a", "text_2": "b", "label": "s"})
        assert matched.summary() == "text_1 = a, text_2 = b, label (score) = s; unused: id"


@pytest.mark.parametrize(
    ("found", "formats", "mapping", "message"),
    [
        (
            ["question", "answer"], PAIRS, {},
            "columns of f.csv: expected anchor, positive, negative* for L, got question, answer. "
            "Fix: say which column is which, for example columns: {anchor: question, positive: answer}",
        ),
        (
            ["a", "b", "similarity"], SCORED, {"text_1": "a", "text_2": "b"},
            "columns of f.csv: expected text_1, text_2 and label (score) for L, got a, b, similarity. "
            "Fix: say which column is which, for example columns: {label: NAME}",
        ),
        (
            ["text_1", "text_2", "score", "label"], SCORED, {},
            "columns of f.csv: expected text_1, text_2 and label (score) for L, got text_1, text_2, score, label. "
            "Fix: say which column is which, for example columns: {label: score}",
        ),
        (
            ["text"], LISTS, {},
            "columns of f.csv: expected query, documents and label (scores) or query, positive, negative* and label (scores) "
            "for L, got text. Fix: say which column is which, for example columns: {query: text, documents: NAME, label: NAME}",
        ),
        (["anchor", "positive"], PAIRS, {"anchr": "anchor"}, "columns.anchr of f.csv: no input of L; did you mean 'anchor'?"),
        (["text_1", "x"], SCORED, {"text": "x"}, "columns.text of f.csv: no input of L; did you mean 'text_2' or 'text_1'?"),
        (["a"], SCORED, {"xyz": "a"}, "columns.xyz of f.csv: no input of L; it takes label, text_1, text_2, weight"),
        (["anchor", "positive"], PAIRS, {"anchor": "anchro"}, "columns.anchor of f.csv: expected one of anchor, positive, got 'anchro'. Fix: did you mean 'anchor'?"),
        (["a", "b"], PAIRS, {"anchor": ["a", "b"]}, "columns.anchor of f.csv: expected one column, got a, b"),
        (
            ["anchor", "positive", "s"], PAIRS, {"label": "s"},
            "columns of f.csv: expected anchor, positive, negative* for L, got anchor, positive, s. Fix: leave label out of columns",
        ),
    ],
)  # fmt: skip
def test_refusals_say_what_was_expected_what_is_there_and_how_to_map_it(found, formats, mapping, message):
    assert refusal(found, formats, mapping) == message


class TestValues:
    def row(self, kind, value, inputs=("text", "text"), **texts):
        row = {"text_1": "a", "text_2": "b", **texts, "label": value}
        return match(list(row), [Format(list(inputs), kind)], where="f.csv", sample=[row]).row(row, "line 7")["label"]

    @pytest.mark.parametrize(
        ("kind", "value", "parsed"),
        [
            ("binary", 1, 1), ("binary", False, 0), ("binary", "1", 1), ("binary", 0.0, 0),
            ("class", 3, 3), ("class", "card", "card"), ("class", 2.0, 2),
            ("score", 0.5, 0.5), ("score", 3, 3.0), ("score", "4.25", 4.25),
            ("distribution", [0.25, 0.75], [0.25, 0.75]), ("embedding", [1, 2.5], [1.0, 2.5]),
            ("embedding", [[1.0], [2.0]], [[1.0], [2.0]]), ("margins", -0.5, -0.5),
        ],
    )  # fmt: skip
    def test_values_of_each_kind(self, kind, value, parsed):
        found = self.row(kind, value)
        assert found == parsed
        assert type(found) is type(parsed)

    @pytest.mark.parametrize(
        ("kind", "value", "expected", "got"),
        [
            ("binary", 2, "0 or 1", "2"), ("binary", None, "0 or 1", "nothing"), ("binary", "yes", "0 or 1", "'yes'"),
            ("class", -1, "an integer from 0, or a name", "-1"), ("class", 0.5, "an integer from 0, or a name", "0.5"),
            ("class", "", "an integer from 0, or a name", "''"), ("class", math.nan, "an integer from 0, or a name", "nan"),
            ("score", math.nan, "a finite number", "nan"), ("score", "inf", "a finite number", "'inf'"),
            ("score", "high", "a finite number", "'high'"), ("score", None, "a finite number", "nothing"),
            ("score", 10**400, "a finite number", f"1{'0' * 76}..."), ("score", True, "a finite number", "True"), ("score", [1.0], "a finite number", "[1.0]"),
            ("scores", 1.0, "a list of finite numbers, or -Infinity", "1.0"),
            ("scores", [1.0, None], "a list of finite numbers, or -Infinity", "[1.0, None]"),
            ("scores", [math.inf], "a list of finite numbers, or -Infinity", "[inf]"),
            ("embedding", [1.0, -math.inf], "a list of finite numbers", "[1.0, -inf]"),
            ("scores", [], "a list of finite numbers, or -Infinity", "[]"), ("scores", [1.0, 2.0], "1 number, one for each document", "[1.0, 2.0]"),
            ("margins", [1.0], "0 numbers, one for each negative", "[1.0]"),
            ("distribution", [0.5, 0.6], "a list of probabilities whose sum is 1", "[0.5, 0.6]"),
            ("distribution", [1.5, -0.5], "a list of probabilities whose sum is 1", "[1.5, -0.5]"),
            ("embedding", [[1.0], [1.0, 2.0]], "vectors of one length", "[[1.0], [1.0, 2.0]]"),
        ],
    )  # fmt: skip
    def test_refusals_name_file_row_and_column(self, kind, value, expected, got):
        with pytest.raises(DataError) as caught:
            self.row(kind, value)
        assert str(caught.value) == f"f.csv, line 7, column 'label': expected {expected}, got {got}"

    @pytest.mark.parametrize("value", [None, 3, ["a"], math.nan])
    def test_texts(self, value):
        matched = match(["anchor", "positive"], PAIRS, where="f.csv", sample=[{"anchor": "a", "positive": "b"}])
        with pytest.raises(DataError, match=r"f\.csv, line 2, column 'anchor': expected a text, got"):
            matched.row({"anchor": value, "positive": "b"}, "line 2")
        assert matched.row({"anchor": "", "positive": "b"}, "line 2") == {"anchor": "", "positive": "b"}

    def test_lists_of_texts(self):
        matched = match(["query", "documents", "scores"], LISTS, where="f.csv")
        good = {"query": "q", "documents": ["a", "b"], "scores": [1, 0]}
        assert matched.row(good, "row 1") == good | {"scores": [1.0, 0.0]}
        for documents, expected in (
            (None, "a list of texts"),
            ("a", "a list of texts"),
            (["a", None], "a list of texts"),
            ([], "at least one text"),
        ):
            with pytest.raises(DataError, match=f"column 'documents': expected {expected}"):
                matched.row(good | {"documents": documents}, "row 1")
        with pytest.raises(DataError, match="column 'scores': expected 2 numbers, one for each document"):
            matched.row(good | {"scores": [1.0]}, "row 1")

    def test_margins_have_one_number_per_negative(self):
        formats = [Format(["query", "positive", "negative*"], "margins")]
        texts = {"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}
        matched = match([*texts, "label"], formats)
        assert matched.row({**texts, "label": [0.5, 1]}, "row 1")["label"] == [0.5, 1.0]
        with pytest.raises(DataError, match="expected 2 numbers, one for each negative"):
            matched.row({**texts, "label": [0.5]}, "row 1")

    @pytest.mark.parametrize("weight", [None, -1.0, math.inf, "x"])
    def test_weights(self, weight):
        matched = match(["anchor", "positive", "w"], PAIRS, {"weight": "w"})
        assert matched.row({"anchor": "a", "positive": "b", "w": "0.5"}, "row 1")["w"] == 0.5
        with pytest.raises(DataError, match="column 'w': expected a finite number from 0"):
            matched.row({"anchor": "a", "positive": "b", "w": weight}, "row 1")


class TestScaling:
    def test_numbers_are_scaled_and_checked(self):
        label = LabelColumn(column="s", **{"from": [0.0, 5.0], "to": [-1.0, 1.0]})
        matched = match(["text_1", "text_2", "s"], SCORED, {"label": label}, where="f.csv")
        row = matched.row({"text_1": "a", "text_2": "b", "s": 4.0}, "line 1")
        assert row["s"] == 4.0
        assert matched.label.final(4.0) == -1 + 2 * 4 / 5
        with pytest.raises(DataError, match=r"f\.csv, line 9, column 's': expected a number from 0 to 5, got 5\.5"):
            matched.row({"text_1": "a", "text_2": "b", "s": 5.5}, "line 9")

    def test_a_range_can_be_turned_round(self):
        label = LabelColumn(column="s", **{"from": [0.0, 4.0], "to": [1.0, 0.0]})
        assert match(["text_1", "text_2", "s"], SCORED, {"label": label}).label.final(1.0) == 0.75

    def test_classes_have_no_range(self):
        label = LabelColumn(column="s", **{"from": [0.0, 5.0]})
        with pytest.raises(DataError, match=r"expected a label of numbers \(score, scores\), got class"):
            match(["text", "s"], [Format(["text"], "class")], {"label": label})


class TestClasses:
    formats = (Format(["text"], "class"),)

    def label(self, values):
        return match(["text", "label"], self.formats, where="f.csv").with_classes(values).label

    def test_names_get_ids_in_alphabetical_order(self):
        label = self.label(["dog", "cat", "dog"])
        assert label.classes == ("cat", "dog")
        assert [label.final(name) for name in ("dog", "cat")] == [1, 0]
        with pytest.raises(ValueError, match="one of cat, dog"):
            label.final("cow")

    def test_integers_stay_also_as_strings(self):
        assert self.label([3, 1]).final(3) == 3
        assert self.label(["3", "1"]).final("3") == 3

    def test_both_in_one_column_are_refused(self):
        with pytest.raises(DataError, match="column 'label': expected all integers, or all names, got both"):
            self.label([1, "cat"])


def test_scaling_is_the_business_of_the_format_that_is_chosen():
    formats = [Format(["text"], "class"), Format(["text", "text"], "score")]
    mapping = {"text_1": "a", "text_2": "b", "label": LabelColumn(column="s", **{"from": [0, 5]})}
    found = match(["a", "b", "s"], formats, mapping)
    assert found.format == formats[1]
    assert found.label.final(2.5) == 0.5
    with pytest.raises(DataError, match=r"of column 's': expected a label of numbers \(score, scores\), got class"):
        match(["a", "s"], formats, {"text": "a", "label": mapping["label"]})


class TestEqualFormats:
    formats = (
        Format(["query", "positive", "negative+"], "margins"),
        Format(["query", "positive", "negative+"], "scores"),
    )
    names = ("query", "positive", "negative", "label")

    def kind(self, *labels, text="p"):
        rows = [{"query": "q", "positive": text, "negative": "n", "label": label} for label in labels]
        return match(self.names, self.formats, sample=rows).label.kind

    def test_the_number_of_labels_says_which_kind_they_are(self):
        assert self.kind(0.5) == self.kind([0.5]) == "margins"
        assert self.kind([0.9, 0.1]) == "scores"

    def test_where_no_format_fits_all_rows_the_one_that_fits_longest_is_taken(self):
        assert self.kind([0.9, 0.1], [0.9]) == "scores"
        assert self.kind([0.9], [0.9, 0.1]) == "margins"
        assert self.kind([0.9, 0.1], text=None) == "margins"
