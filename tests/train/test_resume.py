"""A run that is killed and continued logs, step for step, what an unbroken run logs."""

import json
import random
import signal

import pytest
import tiny
from environment import kill_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_killed_runs_continue_with_the_same_losses(start_training, unbroken_run, tmp_path):
    workdir, rng = tmp_path / "broken", random.Random(0)
    for low in (1, 3, 5, 7, 9):  # five kills, saves included: whatever step they fall on
        kill_at(start_training(workdir, save_every=2), workdir, rng.randint(low, low + 1), signal.SIGKILL)
    kill_at(start_training(workdir, save_every=3), workdir, 11, signal.SIGTERM)
    last = start_training(workdir, save_every=100)
    out, errors = last.communicate(timeout=240)
    assert last.returncode == 0, errors
    assert json.loads(out.splitlines()[-1])["step"] == 12
    found, expected = tiny.logged_losses(workdir), tiny.logged_losses(unbroken_run)
    assert sorted(found) == sorted(expected) == list(range(1, 13))
    assert found == pytest.approx(expected, rel=1e-6)
    assert len(set(expected.values())) == 12
    board = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [e.step for e in board.Tensors("loss")] == list(range(1, 13))


def test_a_run_continues_on_another_mesh(start_training, unbroken_run, tmp_path):
    """One device, then 2 x 2 x 2, then 4: the checkpoint is laid out anew each time, and the losses do not notice."""
    workdir, expected = tmp_path / "moving", tiny.logged_losses(unbroken_run)
    kill_at(start_training(workdir, save_every=2), workdir, 4, signal.SIGKILL)
    kill_at(start_training(workdir, devices=8, mesh="data:2,fsdp:2,tensor:2", save_every=2), workdir, 8, signal.SIGKILL)
    out, errors = start_training(workdir, devices=4, mesh="fsdp:4").communicate(timeout=240)
    assert json.loads(out.splitlines()[-1])["step"] == 12, errors
    assert tiny.logged_losses(workdir) == pytest.approx(expected, rel=1e-4)


def test_a_flag_that_would_change_the_run_is_refused_by_name(start_training, unbroken_run):
    before = (unbroken_run / "config.json").read_text()
    process = start_training(unbroken_run, width=48)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and out == ""
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "--width=32" in line and "48" in line and "Traceback" not in errors
    assert (unbroken_run / "config.json").read_text() == before


def test_every_save_is_kept_however_close_they_follow(start_training, tmp_path):
    process = start_training(tmp_path / "run", eval_every=2, save_every=2, keep=3, eval_batches=1)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    summary = json.loads(out.splitlines()[-1])
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {8, 10, 12, summary["best_step"]}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = min((row for row in rows if "val_loss" in row), key=lambda row: row["val_loss"])
    assert (best["step"], best["val_loss"]) == (summary["best_step"], summary["best_val_loss"])
