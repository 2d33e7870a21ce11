"""profiling.checkpoint at a tiny size: all of the state is written, and the overhead follows from the windows."""

import statistics

import pytest
from environment import SMALL

pytestmark = pytest.mark.parity


def test_what_is_written_is_the_state(benchmark, tmp_path):
    for name in ("torch", "transformers"):
        pytest.importorskip(name)
    flags = ("--vocab_size=2000", "--rows=2", "--length=16", "--max_positions=64", "--save_every=2", f"--folder={tmp_path}")
    told, _ = benchmark("checkpoint", *SMALL, *flags)
    state = 3 * 4 * (2000 * 32 + 64 * 32 + 12 * 32**2 + 13 * 32 + 2 * 32)  # parameters and two moments, float32
    assert state <= told["peer"]["bytes"] <= 1.2 * state
    assert 0.8 * state <= told["ours"]["bytes"] <= 1.5 * state  # Orbax compresses
    rounds = told["rounds"]
    pairs = [a / b - 1 for a, b in zip(rounds["window with a save"], rounds["window without"], strict=True)]
    assert told["ours"]["overhead"]["median"] == pytest.approx(statistics.median(pairs))
    assert told["ours"]["blocked_seconds"] == statistics.median(rounds["ours, blocked"]) and len(rounds["torch.save"]) == 3
    assert told["enough"] == (told["ours"]["overhead"]["median"] < 0.05)
    assert not list(tmp_path.iterdir())
