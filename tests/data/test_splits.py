"""Splits depend on the key alone and keep to their shares."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.config import PrepareConfig
from rgjax.data import splits
from rgjax.data.hashtable import HashTable
from rgjax.data.records import RecordError


def test_hash_is_blake2b():
    # b2sum -l 64 of "abc", read little-endian
    assert splits.hash64("abc") == int.from_bytes(bytes.fromhex("d8bb14d833d59559"), "little")


def test_shares_are_kept():
    n = 20_000
    found = [splits.by_hash(f"u{i}", 0.05, 0.1) for i in range(n)]
    for split, share in (("val", 0.05), ("test", 0.1)):
        assert abs(found.count(split) - n * share) < 4 * math.sqrt(n * share * (1 - share))


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=4), st.text(min_size=1, max_size=4)), max_size=40),
    st.sampled_from(["user", "item", "title"]),
)
def test_a_key_never_crosses(pairs, by):
    splitter = splits.Splitter(PrepareConfig(split_by=by, val_share=0.3, test_share=0.3), set(), "user")
    seen = {}
    for user, item in pairs:
        example = {"user": {"id": user}, "item": {"id": item, "title": item}}
        split = splitter(example, None)
        assert seen.setdefault(user if by == "user" else item, split) == split


def test_source_keeps_file_splits_and_fills_the_missing_one():
    splitter = splits.Splitter(PrepareConfig(split_by="source", val_share=0.5, test_share=0.5), {"train", "test"}, "title")
    got = [splitter({"item": {"title": f"t{i}"}, "user": {}}, "train") for i in range(200)]
    assert set(got) == {"train", "val"} and 60 < got.count("val") < 140
    assert splitter({"item": {"title": "t"}, "user": {}}, "test") == "test"
    with pytest.raises(RecordError, match="names no split"):
        splitter({"item": {"title": "t"}, "user": {}}, None)


def test_missing_key_is_named():
    with pytest.raises(RecordError, match="'user.id' is missing"):
        splits.key_of({"user": {}, "item": {"id": "a"}}, "user")


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 50), st.sampled_from([1, 2, 4])), max_size=300))
def test_hash_table_is_a_dict(operations):
    table, truth = HashTable(), {}
    for key, bits in operations:
        assert table.add(key, bits) == truth.get(key, 0)
        truth[key] = truth.get(key, 0) | bits
    assert len(table) == len(truth)


def test_hash_table_grows():
    table = HashTable()
    for i in range(30_000):
        assert table.add(splits.hash64(str(i))) == 0
    assert all(table.add(splits.hash64(str(i))) == 1 for i in range(30_000)) and len(table) == 30_000
