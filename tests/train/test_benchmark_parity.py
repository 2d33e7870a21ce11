"""profiling.adapters at a tiny size: both sides compute the same losses, and the figures are there."""

import json
import os
import subprocess
import sys

import pytest
from environment import ROOT

pytestmark = pytest.mark.parity


def test_both_sides_do_equal_work():
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    small = ("--layers=1", "--width=32", "--heads=2", "--vocab_size=100", "--rows=2", "--length=32", "--rounds=3")
    command = [sys.executable, "-m", "profiling.adapters", *small]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    for what in ("full", "lora"):
        assert told["losses"][what]["ours"] == pytest.approx(told["losses"][what]["peer"], rel=1e-4)
        assert told["losses"][what]["ours"][2] < told["losses"][what]["ours"][0]
        one, other = told["ours"][what], told["peer"][what]
        assert one["trainable"] == other["trainable"] and told["ratio"][what]["tokens_per_second"] > 0
        assert one["optimizer_bytes"] == pytest.approx(8 * one["trainable"], abs=200)  # two float32 moments, and a few scalars
    assert set(told["methods"]) == {"adalora", "prefix", "prompt", "ia3", "bottleneck"}
    assert all(method["tokens_per_second"] > 0 for method in told["methods"].values())
