"""profiling.chaos: a few kills as it is run, and that it would notice what it looks for."""

import json
import os
import random
import re
import subprocess
import sys

import pytest
from environment import ROOT

from profiling import chaos


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_survives_a_few_kills(processes):
    done = subprocess.run(
        [sys.executable, "-m", "profiling.chaos", f"--kills={4 - processes}", "--chaos_steps=60", "--seed=3", f"--chaos_processes={processes}"],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["broken_promises"] == [] and told["largest_difference"] <= (chaos.TOLERANCE if processes == 1 else chaos.APART)
    assert 1 <= told["kills"] <= 4 - processes and told["starts"][-1]["to"] == 60 and len(told["starts"]) == told["kills"] + 1


@pytest.mark.parametrize(
    "logged, message",
    [
        ({1: [3.0], 2: [2.0], 3: [1.0]}, None),
        ({1: [3.0], 3: [1.0]}, "step 2 stands 0 times"),
        ({1: [3.0], 2: [2.0, 2.0], 3: [1.0]}, "step 2 stands 2 times"),
        ({1: [3.0], 2: [2.001], 3: [1.0]}, "losses differ"),
        ({1: [3.0], 2: [2.0], 3: [1.0], 4: [1.0]}, r"steps \[4\] are"),
    ],
)
def test_what_is_lost_repeated_or_different_is_noticed(tmp_path, logged, message):
    rows = [json.dumps({"step": step, "loss": loss}) for step, found in logged.items() for loss in found]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + '\n{"step": 5, "lo')  # a half-written line counts for nothing
    trial = chaos.Trial({}, tmp_path, tmp_path / "log", 0)
    trial.compare({1: [3.0], 2: [2.0], 3: [1.0]})
    assert len(trial.broken) == (message is not None)
    if message:
        assert re.search(message, trial.broken[0])


@pytest.mark.parametrize("seed", range(12))
def test_damage_falls_on_any_file_of_the_newest_of_several_sealed_checkpoints(tmp_path, seed):
    from rgjax.train import integrity

    rng = random.Random(seed)
    for step in (3, 6):
        folder = tmp_path / "checkpoints" / str(step)
        folder.mkdir(parents=True)
        (folder / "large").write_bytes(random.Random(step).randbytes(1000))
        (folder / "small").write_bytes(b"12")
        assert chaos.damage(tmp_path, rng) is None
        integrity.seal(folder)
    assert chaos.damage(tmp_path, rng) == 6
    assert integrity.damage(tmp_path / "checkpoints/6") and not integrity.damage(tmp_path / "checkpoints/3")
