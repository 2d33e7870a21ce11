"""profiling.append_events at a tiny size: both sides give the same vectors, and are timed."""

import pytest


@pytest.mark.parametrize("block", ["transformer", "pointwise"])
def test_both_sides_are_checked_and_timed(block, benchmark, sound):
    small = ("--layers=1", "--width=16", "--window=16", "--items=50", "--users=3", "--known=5", "--rounds=3")
    told, _ = benchmark("append_events", *small, f"--block={block}")
    sound(told, "ours", "read again")
    assert told["largest_difference"] < 1e-4


def test_a_window_that_would_fill_up_is_refused(benchmark):
    with pytest.raises(AssertionError, match="exceed --window=16"):
        benchmark("append_events", "--window=16", "--known=15")
