"""Bands of lengths: each text in the one whose name says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgjax.data.length_bands import LengthBands
from rgjax.errors import UserError


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True).map(sorted), st.integers(0, 80))
def test_a_length_falls_into_the_band_whose_name_says_so(bounds, length):
    value = LengthBands.parse("characters:" + ",".join(map(str, bounds))).of("字" * length)
    low, high = (bounds[-1], 10**9) if value.startswith("from") else (0, bounds[0] - 1) if value.startswith("under") else map(int, value.split("to"))
    assert low <= length <= high


@pytest.mark.parametrize("bands", ["30,60", "words:", "words:60,30", "words:0,5", "tokens:5", "words:5,5", "words:5;6"])
def test_malformed_bands_are_refused(bands):
    with pytest.raises(UserError, match=f"--length_bands={bands} is no"):
        LengthBands.parse(bands)
