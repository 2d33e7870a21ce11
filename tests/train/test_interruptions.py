"""SIGTERM: also twice, also while the last save goes on, and again and again."""

import json
import signal
import time

import jax
import jax.numpy as jnp
import pytest
import tiny
from environment import kill_at

from rgjax.train import integrity, preemption
from rgjax.train.checkpoint import Checkpoints
from rgjax.train.state import TrainState


@pytest.mark.parametrize("times", [2, 3])
def test_interrupted_runs_log_what_an_unbroken_run_logs(start_training, unbroken_run, tmp_path, times):
    workdir = tmp_path / "run"
    for n in range(times):
        kill_at(start_training(workdir), workdir, 3 * n + 2, signal.SIGTERM)
    out, errors = start_training(workdir).communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    assert tiny.logged_losses(workdir) == tiny.logged_losses(unbroken_run)  # bit for bit


def test_a_second_signal_does_not_cost_the_save(start_training, tmp_path):
    workdir = tmp_path / "run"
    process = start_training(workdir, steps=100_000, eval_every=100_000, save_every=100_000)
    end = time.monotonic() + 240
    while not (workdir / "metrics.jsonl").exists() or not (workdir / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    signals = 0
    while process.poll() is None and not any(p.name.isdigit() for p in (workdir / "checkpoints").iterdir()):  # until the save is whole
        process.send_signal(signal.SIGTERM)
        signals += 1
        time.sleep(0.003)
    out, errors = process.communicate(timeout=120)
    assert signals > 1 and process.returncode == 0, errors
    step = json.loads(out.splitlines()[-1])["step"]
    assert f"stopped by SIGTERM; step {step} is saved" in errors
    assert integrity.sealed(workdir / "checkpoints" / str(step)) and integrity.damage(workdir / "checkpoints" / str(step)) == ""
    assert max(tiny.logged_losses(workdir)) == step


def test_a_cluster_is_told_by_the_exit_code_to_start_it_again(start_training, tmp_path):
    workdir = tmp_path / "run"
    process = start_training(workdir, preempted_code=75)
    kill_at(process, workdir, 3, signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 75 and not json.loads(out.splitlines()[-1])["finished"]
    out, errors = (again := start_training(workdir, preempted_code=75)).communicate(timeout=240)
    assert again.returncode == 0 and json.loads(out.splitlines()[-1])["finished"], errors


class SlowData:
    """Takes a second to be written."""

    async def save(self, directory):
        async def write():
            folder = await directory.await_creation()
            time.sleep(1.0)
            (folder / "position").write_text("1")

        return write()

    async def load(self, directory):
        raise NotImplementedError


def test_a_save_that_comes_while_another_goes_on_is_not_left_out(tmp_path):
    checkpoints, key = Checkpoints(tmp_path / "checkpoints", keep=9), jax.random.key_data(jax.random.key(0))
    for step in (1, 2, 3):
        state = TrainState(jnp.int32(step), {"w": jnp.full(3, step, jnp.float32)}, (jnp.float32(0),), {}, key)
        checkpoints.save(step, state, SlowData(), {}, None)
    checkpoints.wait()
    assert checkpoints.steps == [1, 2, 3]
    assert all(integrity.sealed(tmp_path / "checkpoints" / str(step)) for step in (1, 2, 3))
    checkpoints.close()


def test_a_signal_that_comes_while_processes_ask_each_other_is_not_lost(monkeypatch):
    run = preemption.Preemption(8)

    def most(mine):
        run.requested = True  # the handler, after the question went out
        return mine

    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(preemption.mesh_lib, "most", most)
    assert [run.ends(8), run.ends(9)] == [False, True]


@pytest.mark.parametrize("seconds, asked", [(0.001, [0, 1, 9, 17, 25]), (1.5, [0, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28]), (20.0, list(range(30)))])
def test_processes_ask_each_other_often_enough_for_a_grace_period(monkeypatch, seconds, asked):
    """Every 8 steps or 5 seconds, whichever is less; a step is the least."""
    clock, found = [0.0], []

    def most(mine):
        found.append(step)
        return mine

    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
    monkeypatch.setattr(preemption.mesh_lib, "most", most)
    monkeypatch.setattr(preemption.time, "perf_counter", lambda: clock[0])
    run = preemption.Preemption(0)
    for step in range(30):
        assert not run.ends(step)
        clock[0] += seconds
    assert found == asked
