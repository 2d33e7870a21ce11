"""profiling.behaviour_step at a tiny size: both sides have the same loss over the same events."""

import subprocess
import sys

import pytest
from environment import ROOT

pytestmark = pytest.mark.parity


def test_both_sides_do_equal_work(benchmark, sound):
    pytest.importorskip("torch")
    small = ("--layers=1", "--width=16", "--heads=2", "--window=100", "--row_length=200", "--items=50", "--batch_size=8", "--batches=2", "--rounds=3")
    told, _ = benchmark("behaviour_step", *small)
    sound(told, "ours", "peer")
    assert told["events"] > 100 and told["filled"][0] > told["filled"][1] and told["loss"] > 3


CHECK = """
import torch
from profiling import behaviour_step
from rgjax.errors import UserError
peer = [(None, torch.tensor([[1, -100]]))]
ours = lambda weights, batch: {"nll": 2.0, "tokens": 1.0}
assert behaviour_step.check(ours, [{}], {}, peer, lambda *_: 2.0) == 2.0
try:
    behaviour_step.check(ours, [{}], {}, peer, lambda *_: 2.1)
except UserError as error:
    assert "differ" in str(error)
else:
    raise AssertionError("another loss went unseen")
"""


def test_the_sides_are_compared_before_they_are_timed():
    """In a process of its own: benchmarks define flags of the same names."""
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
