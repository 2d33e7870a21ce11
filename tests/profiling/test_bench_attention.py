"""profiling.attention at a tiny size: its sides must agree, and it says what can't be had."""

import pytest

pytestmark = pytest.mark.parity


def test_the_ways_to_attend_agree_and_take_turns(benchmark, sound):
    pytest.importorskip("torch")
    flags = ("--rows=2", "--length=32", "--examples=4", "--heads=2", "--width=8", "--dtype=float32", "--rounds=3")
    told, out = benchmark("attention", *flags)
    sound(told, "ours", "peer", "plain")
    assert told["ours_is"] == "rows" and "--attention=cudnn can't be had: there is no GPU" in out
