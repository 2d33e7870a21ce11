"""profiling.adversarial_step at a tiny size: both sides agree on weights that are the same, and are timed."""

import pytest

pytestmark = pytest.mark.parity


def test_both_sides_take_turns(benchmark, sound):
    pytest.importorskip("torch")
    flags = ("--texts=4", "--length=6", "--vocab_size=30", "--hidden=8", "--completions=2", "--d_steps=1", "--rounds=3")
    told, _ = benchmark("adversarial_step", *flags, "--d_width=8", "--d_filters=3", "--d_windows=2,3")
    sound(told, "ours", "peer")
    assert told["shape"]["completions"] == 2
