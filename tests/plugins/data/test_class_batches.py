"""Batches of P classes with K samples: every row once, classes spread, as many batches as promised."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st

from losskit.errors import DataError
from losskit_plugins.data.class_batches import ClassBatchSampler

CLASSES = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60).filter(lambda found: len(set(found)) > 1)
BANKING = Path(__file__).parents[4] / "shared" / "data" / "banking77" / "train.jsonl.gz"


@settings(deadline=None, max_examples=60)
@given(classes=CLASSES, p=st.integers(2, 5), k=st.integers(2, 5), shards=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_row_once_and_the_promised_length(classes, p, k, shards, seed):
    sampler = ClassBatchSampler(classes, p * k, k, shards=shards, seed=seed)
    promised = len(sampler)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == promised
        assert batches == list(sampler)
        assert sorted(row for batch in batches for row in batch) == list(range(len(classes)))
        assert all(0 < len(batch) <= p * k for batch in batches)


@settings(deadline=None, max_examples=60)
@given(classes=CLASSES, p=st.integers(2, 5), k=st.integers(2, 5))
def test_a_class_gives_k_rows_to_a_batch_unless_it_has_more_than_its_share(classes, p, k):
    sampler = ClassBatchSampler(classes, p * k, k)
    counts = Counter(classes)
    for batch in sampler:
        for name, here in Counter(classes[row] for row in batch).items():
            groups = -(-counts[name] // k)
            assert here <= k * -(-groups // len(sampler))


def test_a_class_that_k_divides_gives_exactly_k_rows():
    classes = [name for name in "abcdef" for _ in range(12)]
    for batch in ClassBatchSampler(classes, 12, 4):
        assert set(Counter(classes[row] for row in batch).values()) == {4}
        assert len(batch) == 12


def test_rows_that_k_does_not_divide_come_in_groups_of_nearly_k():
    classes = ["a"] * 5 + ["b"] * 4 + ["c"]
    sizes = Counter()
    for batch in ClassBatchSampler(classes, 8, 4):
        sizes.update(Counter(classes[row] for row in batch).items())
    assert sizes == Counter({("a", 3): 1, ("a", 2): 1, ("b", 4): 1, ("c", 1): 1})


def test_a_large_class_is_spread_and_leaves_room_for_others():
    classes = ["large"] * 80 + ["b"] * 20 + ["c"] * 20
    batches = list(ClassBatchSampler(classes, 16, 4))
    assert len(batches) == 8
    for batch in batches:
        found = Counter(classes[row] for row in batch)
        assert 8 <= found["large"] <= 12
        assert len(found) > 1


def test_seed_and_epoch_determine_the_order():
    classes = ["ab"[row % 2] for row in range(64)]

    def drawn(seed, epoch):
        sampler = ClassBatchSampler(classes, 8, 2, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_processes_take_turns_and_get_as_many_batches_each():
    classes = [row % 5 for row in range(75)]
    sampler = ClassBatchSampler(classes, 8, 4, shards=3)
    shards = [list(BatchSamplerShard(sampler, num_processes=3, process_index=rank)) for rank in range(3)]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(row for shard in shards for batch in shard for row in batch) == list(range(75))


@pytest.mark.parametrize(
    ("classes", "size", "samples", "message"),
    [
        (["a"] * 9, 8, 4, r"the classes of the training data: expected two or more, got 'a' in all 9 rows"),
        ([], 8, 4, r"the classes of the training data: expected two or more, got no rows"),
        (["a", "b"], 8, 1, r"samples_per_class: expected 2 or more, so that samples have positives, got 1"),
        (["a", "b"], 7, 4, r"batch_size: expected 8 or more on each device, for two classes of 4 samples, got 7\. Fix"),
    ],
)
def test_refuses_what_makes_no_batches(classes, size, samples, message):
    with pytest.raises(DataError, match=message):
        ClassBatchSampler(classes, size, samples)


@pytest.mark.skipif(not BANKING.exists(), reason="BANKING77 is not there")
def test_real_intents():
    with gzip.open(BANKING, "rt") as file:
        rows = [json.loads(line) for line in file]
    (name,) = [key for key in rows[0] if key.startswith("label")][:1]
    classes = [row[name] for row in rows]
    sampler = ClassBatchSampler(classes, 64, 4)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    found = [Counter(classes[row] for row in batch) for batch in batches]
    assert all(max(each.values()) <= 4 for each in found)
    assert sum(len(each) for each in found) / len(found) > 15.5
    assert sum(count == 1 for each in found for count in each.values()) <= len(set(classes))
