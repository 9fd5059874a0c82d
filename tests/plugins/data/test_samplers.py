"""Batches without duplicate texts: every row once, no text twice, as many batches as promised."""

import logging

import datasets
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from losskit.errors import DataError
from losskit_plugins.data.samplers import NoDuplicatesBatchSampler

TEXTS = st.text(alphabet="abcdefghij", max_size=1)
ROWS = st.lists(
    st.fixed_dictionaries({"anchor": TEXTS, "positive": st.lists(TEXTS, max_size=2)}), min_size=1, max_size=40
)


def texts_of(row):
    return {text for value in row.values() for text in ([value] if isinstance(value, str) else value)}


def assert_no_text_twice(rows, batch):
    seen = [text for index in batch for text in texts_of(rows[index])]
    assert len(seen) == len(set(seen))


def pairs(*anchors):
    return [{"anchor": anchor, "positive": f"positive {index}"} for index, anchor in enumerate(anchors)]


@settings(deadline=None, max_examples=200)
@given(rows=ROWS, size=st.integers(1, 6), shards=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_row_once_no_text_twice_and_the_promised_length(rows, size, shards, seed):
    sampler = NoDuplicatesBatchSampler(rows, size, shards=shards, seed=seed)
    promised = len(sampler)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == promised
        assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
        assert all(0 < len(batch) <= size for batch in batches)
        for batch in batches:
            assert_no_text_twice(rows, batch)
        assert batches == list(sampler)


@settings(deadline=None, max_examples=100)
@given(rows=ROWS, size=st.integers(1, 6))
def test_dropping_the_last_leaves_batches_of_one_size_or_nothing_out(rows, size):
    whole = NoDuplicatesBatchSampler(rows, size)
    dropped = NoDuplicatesBatchSampler(rows, size, drop_last=True)
    assert len(whole) - len(dropped) in (0, 1)
    assert len(list(dropped)) == len(dropped)


def test_all_batches_are_full_but_the_last():
    rows = pairs(*"aabbccdd", *(f"x{index}" for index in range(94)))
    sizes = [len(batch) for batch in NoDuplicatesBatchSampler(rows, 8)]
    assert sizes == [8] * 12 + [6]
    assert len(NoDuplicatesBatchSampler(rows, 8, drop_last=True)) == 12


def test_the_same_seed_and_epoch_give_the_same_batches_and_others_do_not():
    rows = pairs(*(f"x{index % 40}" for index in range(60)))

    def batches(seed, epoch):
        sampler = NoDuplicatesBatchSampler(rows, 8, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(1, 2) == batches(1, 2)
    assert batches(1, 2) != batches(1, 3)
    assert batches(1, 2) != batches(2, 2)


def test_a_text_in_most_rows_makes_small_batches_and_a_warning(caplog):
    rows = pairs(*"aaaaaabc")
    with caplog.at_level(logging.WARNING, logger="losskit"):
        batches = list(NoDuplicatesBatchSampler(rows, 4))
    assert sorted(map(len, batches)) == [1, 1, 1, 1, 2, 2]
    assert "a text stands in 6 of 8 rows, so batches hold 2 rows at most instead of 4" in caplog.text
    for batch in batches:
        assert_no_text_twice(rows, batch)


def test_steps_of_several_processes_share_no_text():
    rows = pairs(*(f"x{index % 24}" for index in range(48)))
    sampler = NoDuplicatesBatchSampler(rows, 4, shards=3)
    shards = [list(BatchSamplerShard(sampler, num_processes=3, process_index=rank)) for rank in range(3)]
    assert {len(shard) for shard in shards} == {4}
    for step in zip(*shards, strict=True):
        assert_no_text_twice(rows, [index for batch in step for index in batch])
    assert sorted(index for shard in shards for batch in shard for index in batch) == list(range(48))


def test_processes_do_as_many_steps_where_batches_do_not_go_round():
    sampler = NoDuplicatesBatchSampler(pairs(*(f"x{index}" for index in range(10))), 4)
    shards = [BatchSamplerShard(sampler, num_processes=2, process_index=rank) for rank in range(2)]
    assert [len(list(shard)) for shard in shards] == [len(shard) for shard in shards] == [2, 2]


def test_a_text_may_stand_twice_in_one_row():
    assert list(NoDuplicatesBatchSampler([{"a": "x", "b": "x"}], 2)) == [[0]]


def test_labels_are_no_texts_and_columns_can_be_named():
    rows = [{"anchor": f"a{index}", "label": "same", "genre": "same"} for index in range(4)]
    assert len(NoDuplicatesBatchSampler(rows, 4, ["anchor"])) == 1
    assert len(NoDuplicatesBatchSampler([{**row, "genre": str(i)} for i, row in enumerate(rows)], 4)) == 1
    with pytest.raises(
        DataError, match=r"column 'nope' of the training data: expected texts, got columns anchor, label"
    ):
        NoDuplicatesBatchSampler(rows, 4, ["nope"])
    with pytest.raises(DataError, match="expected a column of texts, got x"):
        NoDuplicatesBatchSampler([{"x": 1}], 4)


def test_datasets_also_shuffled_and_in_a_loader():
    rows = pairs(*"aabbccdd")
    dataset = datasets.Dataset.from_list(rows).shuffle(seed=3)
    sampler = NoDuplicatesBatchSampler(dataset, 4)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=list)
    assert len(loader) == 2
    for batch in loader:
        assert len({row["anchor"] for row in batch}) == 4


def test_no_rows():
    assert list(NoDuplicatesBatchSampler([], 4)) == []
