"""Pairs made of single texts: as a recipe says, the same for seed, epoch and row."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from losskit import Format, RecipeError
from losskit.errors import DataError
from losskit.recipe import ContrastiveTensionPairs, DeleteWords, TrainSource, read_recipe
from losskit_plugins.data.transforms import Transformed, match_training, read_training

TEXTS = [f"text number {number} of many" for number in range(64)]
PAIRS = (Format(["text", "text"]),)
LABELLED = (Format(["text", "text"], "binary"), Format(["text", "text"]))


def tension(ratio=8):
    return ContrastiveTensionPairs(name="contrastive-tension-pairs", ratio=ratio)


def deletion(ratio=0.6):
    return DeleteWords(name="delete-words", ratio=ratio)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": number}) + "\n" for number, text in enumerate(TEXTS)))
    return str(path)


@pytest.mark.parametrize("ratio", [2, 8])
def test_one_pair_in_ratio_is_a_text_with_itself(ratio):
    rows = Transformed(TEXTS, tension(ratio))
    for epoch in range(3):
        rows.set_epoch(epoch)
        assert sum(row["label"] for row in rows) == len(TEXTS) / ratio
        assert [row["text_1"] for row in rows] == TEXTS
        assert all((row["text_1"] == row["text_2"]) == bool(row["label"]) for row in rows)


def test_a_text_that_stands_in_most_rows_is_never_its_own_opposite():
    rows = Transformed(["same"] * 30 + ["other"], tension(2))
    found = [row for row in rows if not row["label"]]
    assert found
    assert all({row["text_1"], row["text_2"]} == {"same", "other"} for row in found)
    with pytest.raises(DataError, match="transform contrastive-tension-pairs: expected two different texts or more"):
        Transformed(["same"] * 3, tension())


def test_words_are_deleted_in_order_and_one_stays():
    rows = Transformed([*TEXTS, "one", ""], deletion(0.6))
    kept = total = 0
    for row in rows:
        words = iter(row["text_2"].split())
        damaged = row["text_1"].split()
        assert all(word in words for word in damaged)  # a subsequence
        assert damaged or not row["text_2"]
        kept, total = kept + len(damaged), total + len(row["text_2"].split())
    assert 0.3 < kept / total < 0.52
    assert rows[64] == {"text_1": "one", "text_2": "one"}
    assert rows[65] == {"text_1": "", "text_2": ""}


@pytest.mark.parametrize("transform", [tension(2), deletion()], ids=lambda transform: transform.name)
def test_seed_epoch_and_row_alone_say_what_is_drawn(transform):
    rows, again = Transformed(TEXTS, transform, seed=3), Transformed(TEXTS, transform, seed=3)
    epochs = []
    for epoch in range(3):
        for each in (rows, again):
            each.set_epoch(epoch)
        epochs.append(list(rows))
        assert [again[row] for row in reversed(range(64))] == epochs[-1][::-1]
        assert again[10:12] == epochs[-1][10:12]
    assert all(a != b for a, b in pairwise(epochs))
    rows.set_epoch(0)
    assert list(rows) == epochs[0]
    assert list(Transformed(TEXTS, transform, seed=4)) != epochs[0]
    with pytest.raises(IndexError):
        rows[64]


def test_a_source_is_matched_as_pairs_and_read_as_texts(file):
    source = TrainSource(path=file, transform=tension())
    matched = match_training(source, LABELLED)
    assert matched.summary() == "text_1 = text_1, text_2 = text_2, label (binary) = label"
    rows, matched = read_training(source, matched, seed=1)
    assert list(rows) == list(Transformed(TEXTS, tension(), seed=1))
    plain = TrainSource(path=file)
    matched = match_training(plain, (Format(["text"]),))
    assert read_training(plain, matched, seed=1)[0][0] == {"text": TEXTS[0]}
    swapped = TrainSource(path=file, transform=deletion(), columns={"text_1": "text_2", "text_2": "text_1"})
    assert [column.data for column in match_training(swapped, PAIRS).columns] == ["text_2", "text_1"]


def test_a_column_that_is_not_there_is_named_before_anything_is_read(file):
    source = TrainSource(path=file, transform=DeleteWords(name="delete-words", column="sentence"))
    with pytest.raises(
        DataError, match=r"data.train.transform.column of .*: expected the .*, one of text, id, got 'sentence'"
    ):
        match_training(source, PAIRS)
    with pytest.raises(DataError, match=r"columns of .*: expected anchor, positive for the loss, got text_1, text_2"):
        match_training(TrainSource(path=file, transform=deletion()), (Format(["anchor", "positive"]),))


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            {"name": "delete-letters"},
            r"data.train.transform: expected delete-words or contrastive-tension-pairs, or a map",
        ),
        ("delete-letters", r"data.train.transform: expected delete-words or contrastive-tension-pairs, or a map"),
        ({"ratio": 3}, r"data.train.transform: expected delete-words or contrastive-tension-pairs, or a map"),
        (3, r"data.train.transform: expected .*, got 3"),
        ({"name": "delete-words", "ratio": 1.5}, r"data.train.transform.ratio: expected less than 1, got 1.5"),
        (
            {"name": "contrastive-tension-pairs", "ratio": 1},
            r"transform.ratio: expected greater than or equal to 2, got 1",
        ),
        (
            {"name": "delete-words", "share": 0.5},
            r"data.train.transform.share: unknown: expected one of column, name, ratio",
        ),
    ],
)
def test_recipes_are_strict_about_transforms(transform, said, file):
    recipe = {"encoder": {"name": "dense", "model": "m"}, "loss": "cosent", "output": "o"}
    with pytest.raises(RecipeError, match=said):
        read_recipe([{**recipe, "data": {"train": {"path": file, "transform": transform}}}])
    with pytest.raises(RecipeError, match=r"data.eval.transform"):
        read_recipe(
            [{**recipe, "data": {"train": {"path": file}, "eval": {"path": file, "transform": "delete-words"}}}]
        )


def test_a_recipe_with_a_transform_reads_back(file):
    data = {"train": {"path": file, "transform": {"name": "delete-words", "ratio": 0.5}}}
    base = {"encoder": {"name": "dense", "model": "m"}, "loss": "cosent", "output": "o"}
    recipe = read_recipe([{**base, "data": data}])
    assert recipe.data.train.transform == deletion(0.5)
    assert read_recipe([recipe.to_dict()]) == recipe
    short = read_recipe([{**base, "data": {"train": {"path": file, "transform": "delete-words"}}}])
    assert short.data.train.transform == deletion()
