"""Length buckets against every way to cut a row."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.data import buckets
from rgjax.data.shape import Shape
from rgjax.errors import UserError

SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), min_size=1, max_size=12)


def slots(limits, needed) -> float:
    return sum(min(limit for limit in limits if limit >= need - 1e-9) for need in needed)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=15), st.integers(1, 5))
def test_no_other_cut_leaves_fewer_slots(lengths, count):
    """Brute force over all choices of so many multiples of a tenth."""
    needed = np.array(lengths) / 10
    found = buckets.fewest_slots(needed, count, 0.1)
    assert found == sorted(set(found)) and found[-1] == 1.0 and len(found) <= count
    every = [(*part, 1.0) for n in range(count) for part in itertools.combinations(np.arange(1, 10) / 10, n)]
    assert slots(found, needed) == pytest.approx(min(slots(limits, needed) for limits in every))


@given(SIZES, st.integers(1, 6))
def test_a_number_makes_rows_of_eights_that_hold_everything(sizes, count):
    rows, sizes_N2 = buckets.shapes(str(count), Shape(64, 40), np.array(sizes)), np.array(sizes)
    assert rows[-1] == Shape(64, 40) and len(rows) <= count
    assert all(row.length % 8 == 0 for row in rows)
    for (tokens, read), which in zip(sizes, buckets.of(sizes_N2, rows), strict=True):
        holds = [n for n, row in enumerate(rows) if tokens <= row.length and read <= row.encoder_length]
        assert which == holds[0]


def test_shares_are_taken_as_they_are():
    assert [row.length for row in buckets.shapes("0.29,0.5", Shape(100, 0), np.ones((1, 2)))] == [29, 50, 100]
    assert [row.length for row in buckets.shapes("1.0", Shape(100, 0), np.ones((1, 2)))] == [100]


def test_what_fits_nowhere_goes_into_the_last():
    assert buckets.of(np.array([[3, 0], [101, 0]]), [Shape(50, 0), Shape(100, 0)]).tolist() == [0, 1]


@pytest.mark.parametrize("text", ["0", "-2", "2,3", "0.5,2", "", "six", "1.5"])
def test_other_texts_are_refused(text):
    with pytest.raises(UserError, match="--buckets"):
        buckets.shapes(text, Shape(64, 0), np.ones((1, 2)))
