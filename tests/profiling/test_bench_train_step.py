"""profiling.train_step at a tiny size: our step and torch's make the same losses, and the figures follow from each other."""

import pytest
from environment import SMALL

pytestmark = pytest.mark.parity
TINY = (*SMALL, "--vocab_size=100", "--rows=4", "--length=16", "--nocompile_peer", "--nomemory")


@pytest.fixture(autouse=True)
def peer():
    for name in ("torch", "transformers"):
        pytest.importorskip(name)


def test_both_sides_make_the_same_losses(benchmark, sound):
    told, printed = benchmark("train_step", *TINY)
    sound(told, "ours", "peer, eager")
    ours, peer = told["losses"]["ours"], told["losses"]["peer, eager"]
    assert ours == pytest.approx(peer, rel=1e-5) and ours[0] > ours[1] > ours[2]  # same gradients, clipping, decay: else they part after a step
    # One layer, read at 15 targets a row of 16 but for its keys and values; a target reads 8.5 keys, the first being the one that is none.
    flops = 3 * 2 * (2 * 32**2 * 64 + 10 * 32**2 * 60) + 3 * 4 * 32 * 60 * 8.5 + 3 * 2 * 32 * 100 * 60
    assert told["flops"]["step_flops"] == flops and "MFU = FLOPs" in printed
    assert told["ours"]["mfu"] == pytest.approx(flops / told["ours"]["seconds"] / told["flops"]["peak_flops"])


def test_sides_in_processes_of_their_own_are_compared_alike(benchmark, sound):
    told, printed = benchmark("train_step", *TINY, "--apart", "--memory")
    sound(told, "ours", "peer, eager")
    assert told["losses"]["ours"] == pytest.approx(told["losses"]["peer, eager"], rel=1e-5)
    assert told["ours"]["peak_bytes"] > 0 and "peak memory" in printed
    assert told["shape"]["apart"] and "lowest" in told["ratio"]  # they took turns


def test_a_text_beyond_the_positions_is_refused(benchmark):
    _, errors = benchmark("train_step", *TINY, "--max_positions=8", code=2)
    assert "--length=16 exceeds --max_positions=8" in errors


@pytest.mark.parametrize("module", ["train_step", "decode", "checkpoint"])
def test_heads_that_do_not_divide_the_width_are_refused(module, benchmark):
    _, errors = benchmark(module, "--layers=1", "--width=50", "--heads=8", "--vocab_size=100", code=2)
    assert errors.strip().splitlines()[-1] == "error: --width=50 does not divide among --heads=8; take a multiple of the heads."
